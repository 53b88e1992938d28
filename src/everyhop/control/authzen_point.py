# SPDX-License-Identifier: Apache-2.0
"""The policy in force as AuthZEN's decision point: the same engine that decides for sidecars, a record per decision."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from everyhop.anomaly.looking import find_block
from everyhop.anomaly.model import Blocks
from everyhop.auditlog.append import ID_BYTES
from everyhop.authz import Engine
from everyhop.authzen import Answer, Kind
from everyhop.control.authzen_deciding import UNKNOWN_RESOURCE, decide_question
from everyhop.control.authzen_mapping import ROUTE, SERVICE, USERS, read_question, service_named
from everyhop.control.authzen_record import record_of
from everyhop.core.decision import Effect, Reason
from everyhop.core.errors import AccessDenied, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from everyhop.authzen import Evaluation, Search
    from everyhop.control.authzen_deciding import Decided
    from everyhop.control.authzen_mapping import Question
    from everyhop.control.authzen_peps import Pep
    from everyhop.control.decision_journal import DecisionJournal, Draft
    from everyhop.core.clock import Clock, Entropy
    from everyhop.policy.model import Snapshot


class DecisionPoints:
    """Opens the policy in force for PEPs.  Safe to share between threads."""

    def __init__(
        self,
        *,
        snapshot: Callable[[], Snapshot],
        journal: DecisionJournal,
        clock: Clock,
        entropy: Entropy,
        blocks: Callable[[], Blocks] = Blocks,
    ) -> None:
        """``snapshot`` returns the one in force; it raises Unavailable before the first.  ``blocks`` are those of the moment."""
        self._blocks = blocks
        self._snapshot = snapshot
        self._journal = journal
        self._clock = clock
        self._entropy = entropy
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    def open(self, pep: Pep) -> AuthzenPoint:
        """Return the decision point for one request of a PEP, at this moment."""
        return AuthzenPoint(
            self._engine_of(self._snapshot()),
            pep,
            now=self._clock.now(),
            journal=self._journal,
            blocks=self._blocks(),
            new_id=lambda: self._entropy.token_bytes(ID_BYTES).hex(),
        )

    def _engine_of(self, snapshot: Snapshot) -> Engine:
        with self._lock:
            if self._engine is None or self._engine.snapshot is not snapshot:
                self._engine = Engine(snapshot)
            return self._engine


class AuthzenPoint:
    """One request of one PEP (the port ``authzen.DecisionPoint``).  Used by one thread."""

    def __init__(
        self,
        engine: Engine,
        pep: Pep,
        *,
        now: datetime,
        journal: DecisionJournal,
        new_id: Callable[[], str],
        blocks: Blocks | None = None,
    ) -> None:
        self._engine = engine
        self._pep = pep
        self._now = now
        self._blocks = blocks or Blocks()
        self._journal = journal
        self._new_id = new_id
        self._drafts: list[Draft] = []
        self.forbidden = 0

    @property
    def snapshot(self) -> str:
        """Return the content hash of the policy."""
        return self._engine.snapshot.hash

    @property
    def asker(self) -> str:
        """Return the name of the PEP."""
        return self._pep.name

    def evaluate(self, asked: Evaluation) -> Answer:
        """Decide, and keep the decision for :meth:`close`.  Raises InputError or AccessDenied."""
        try:
            question = self._question(asked)
            decided = self._decide(question)
        except AccessDenied:
            self.forbidden += 1
            raise
        decision, decision_id = decided.decision, self._new_id()
        self._drafts.append(
            partial(
                record_of, decision_id, self._now, self._pep, asked, question, decided, self._engine.snapshot
            )
        )
        reason = UNKNOWN_RESOURCE if question.target is None else decision.reason.value
        context: dict[str, Any] = {
            "decision_id": decision_id,
            "reason": reason,
            "snapshot": decision.snapshot,
        }
        if decided.block is not None:
            context["retry_after"] = decided.block.seconds_left(self._now)
        if decision.would is not None:
            context["would"] = {
                "decision": decision.would.effect is Effect.ALLOW,
                "reason": decision.would.reason.value,
            }
        return Answer(decision=decision.is_allowed, context=context)

    def permits(self, asked: Evaluation) -> bool:
        """Decide without a record; what cannot be asked is not permitted."""
        try:
            return self._decide(self._question(asked)).decision.is_allowed
        except (InputError, AccessDenied):
            return False

    def candidates(self, search: Search) -> Sequence[str] | None:
        """Return what a search could find, as far as this PEP may know of it."""
        snapshot = self._engine.snapshot
        if search.kind is Kind.SUBJECT:
            if search.sought_type in USERS:
                return sorted(snapshot.directory.users)
            return sorted(snapshot.services) if search.sought_type == SERVICE else None
        if search.kind is Kind.ACTION:
            return self._actions(search)
        if search.sought_type == SERVICE:
            return [name for name in sorted(snapshot.services) if self._may_know(name)]
        declared = snapshot.directory.resources.get(search.sought_type or "")
        return sorted(declared.items) if declared is not None and self._may_know(declared.service) else None

    def close(self) -> None:
        """Make the records of all decisions durable; raises Unavailable when that fails."""
        drafts, self._drafts = self._drafts, []
        self._journal.write(drafts)

    def _actions(self, search: Search) -> Sequence[str] | None:
        snapshot, resource = self._engine.snapshot, search.resource
        assert resource is not None  # noqa: S101  # an action search has one
        if resource.type == ROUTE:
            stated = resource.properties.get("service", self._pep.service)
            name = service_named(snapshot, stated) if isinstance(stated, str) else None
        elif resource.type == SERVICE:
            name = service_named(snapshot, resource.id)
        else:
            declared = snapshot.directory.resources.get(resource.type)
            name = None if declared is None else declared.service
        if name is None or not self._may_know(name):
            return None
        operations = snapshot.services[name].operations
        if resource.type == ROUTE:
            return sorted({operation.route.method for operation in operations})
        return sorted(operation.name for operation in operations)

    def _may_know(self, target: str) -> bool:
        return self._pep.may_ask(caller=self._pep.default_caller, target=target)

    def _question(self, asked: Evaluation) -> Question:
        return read_question(asked, snapshot=self._engine.snapshot, pep=self._pep, now=self._now)

    def _decide(self, question: Question) -> Decided:
        decided = decide_question(self._engine, question)
        target, operation = question.target, decided.decision.operation
        if target is not None and not self._pep.may_ask_about(target=target, operation=operation):
            raise AccessDenied("this PEP may not ask about this operation, or there is none")
        return self._unless_blocked(question, decided)

    def _unless_blocked(self, question: Question, decided: Decided) -> Decided:
        """Return the decision, or that the caller, its user or its address is blocked, which goes before every rule."""
        user = question.context.user
        block = find_block(
            self._blocks,
            self._now,
            identity=question.caller,
            subject=None if user is None else user.id,
            address=question.context.source_ip,
        )
        if block is None:
            return decided
        refused = replace(decided.decision, effect=Effect.DENY, reason=Reason.BLOCKED, rule=None, would=None)
        return replace(decided, decision=refused, block=block)
