# SPDX-License-Identifier: Apache-2.0
"""The decision: may this caller do this here?

Order of the reasons: unknown service, wrong protocol, ambiguous path, unknown operation, unknown caller; then what the
rules say (:mod:`everyhop.authz.cases`).  The answer depends on nothing but the snapshot and the arguments, and costs
the same for ten rules and for a hundred thousand.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from everyhop.authz.cases import SOFT, Cases, Judgement, Outcome
from everyhop.authz.explain import explain_http, explain_tcp
from everyhop.authz.facts import Call, FactSheet
from everyhop.authz.filtering import reduce_case, unknown_of
from everyhop.authz.paths import clean_pattern
from everyhop.authz.permissions import Permissions
from everyhop.authz.requirements import Requirement, requirement_of
from everyhop.authz.routing import RouteTrie
from everyhop.core.collector import collector_paused
from everyhop.core.decision import Decision, Effect, Reason, Would
from everyhop.core.errors import NotFound
from everyhop.policy.access import TCP, AccessIndex
from everyhop.policy.facts import NOTHING_KNOWN
from everyhop.policy.model import OUTSIDE, UserMode
from everyhop.policy.routes import guarded_characters

if TYPE_CHECKING:
    from everyhop.authz.cases import Case
    from everyhop.authz.explanation import Explanation
    from everyhop.policy.access import Access
    from everyhop.policy.facts import Context
    from everyhop.policy.model import Operation, Rule, Service, Snapshot


class Door:
    """One operation, probe or tcp port, and the decisions made at it so far, by caller.

    A decision that no fact of a call can change is made once per declared caller and then only looked up:
    ``decisions`` holds those for calls of which nothing is said, ``certain`` those that hold whatever is said.
    """

    __slots__ = ("access", "cases", "certain", "decisions", "is_probe", "made", "name", "operation", "target")

    def __init__(
        self,
        target: Service,
        name: str,
        access: Access,
        *,
        is_probe: bool,
        operation: Operation | None = None,
    ) -> None:
        self.target = target
        self.name = name
        self.operation = operation
        self.access = access
        self.is_probe = is_probe
        self.cases: dict[str, Cases] = {}
        self.decisions: dict[str, Decision] = {}
        self.certain: dict[str, Decision] = {}
        self.made: dict[tuple[str, Reason, str | None, Would | None], Decision] = {}

    @property
    def leaves_resource(self) -> bool:
        """Tell whether the application checks what conditions say of resources."""
        return self.operation is not None and self.operation.leaves_resource

    def cases_of(self, snapshot: Snapshot, caller: str) -> Cases:
        """Return the rules for a declared caller (or ``outside``)."""
        found = self.cases.get(caller)
        if found is None:
            probe = f"services.{self.target.name}.{self.name}" if self.is_probe else None
            found = self.cases[caller] = Cases.of(snapshot, self.access, caller, self.target.name, probe)
        return found


class _Target:
    """One service, ready to be asked."""

    __slots__ = ("ambiguous", "doors", "is_clean", "literals", "tcp", "trie", "unknown")

    def __init__(self, service: Service, index: AccessIndex) -> None:
        routes = tuple(operation.route for operation in (*service.operations, *service.probes))
        self.is_clean: Final = clean_pattern(guarded_characters(routes)).match
        self.trie: Final = RouteTrie[Door]()
        self.tcp = Door(service, TCP, index.of(service.name, TCP), is_probe=False) if service.tcp else None
        self.doors: dict[str, Door] = {}
        self.ambiguous: dict[str, Decision] = {}
        self.unknown: dict[str, Decision] = {}
        for operations, is_probe in ((service.operations, False), (service.probes, True)):
            for operation in operations:
                access = index.of(service.name, operation.name)
                door = self.doors[operation.name] = Door(
                    service, operation.name, access, is_probe=is_probe, operation=operation
                )
                self.trie.add(operation.route, door)
        methods = sorted({route.method for route in routes})
        self.literals: Final = {
            path: {m: d for m in methods if (d := self.trie.find(m, path[1:].split("/"))) is not None}
            for path in {route.template for route in routes if route.is_literal}
        }


class Engine:
    """Decides calls under one snapshot.  Immutable in effect, and safe to share between threads."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot: Final = snapshot
        self.facts: Final = FactSheet(snapshot)
        self.permissions: Final = Permissions(snapshot)
        with collector_paused():
            self.index: Final = AccessIndex(snapshot)
            self._targets = {
                name: _Target(service, self.index) for name, service in snapshot.services.items()
            }
        self._rules = {rule.id: rule for rule in snapshot.rules}

    def decide(
        self, *, caller: str, target: str, method: str, path: str, context: Context | None = None
    ) -> Decision:
        """Decide an HTTP, gRPC or WebSocket request.

        ``caller`` is a verified SPIFFE ID in normal form (or ``outside``, which is none), ``target`` a service
        name, ``method`` and ``path`` are as on the wire (``path`` up to or with its query).  ``context`` holds the
        verified facts of the call.  Without it nothing is known: a condition that reads a fact denies, and whether
        there must be a user is left to :meth:`requirement` (where the policy declares roles, it denies too).
        Never raises on any text.
        """
        compiled = self._targets.get(target)
        if compiled is None:
            return self._deny(Reason.UNKNOWN_SERVICE, caller, target)
        if compiled.tcp is not None:
            return self._deny(Reason.WRONG_PROTOCOL, caller, target)
        cut = path.find("?")
        bare = path if cut < 0 else path[:cut]
        methods = compiled.literals.get(bare)
        if methods is not None:  # a literal path is clean, so it need not be examined
            door = methods.get(method)
        elif compiled.is_clean(bare):
            door = compiled.trie.find(method, bare[1:].split("/"))
        else:
            return compiled.ambiguous.get(caller) or self._refuse(
                compiled.ambiguous, Reason.AMBIGUOUS_PATH, caller, target
            )
        if door is None:
            return compiled.unknown.get(caller) or self._refuse(
                compiled.unknown, Reason.UNKNOWN_OPERATION, caller, target
            )
        kept = (door.decisions if context is None else door.certain).get(caller)
        return kept or self._at(door, caller, context, method, path)

    def decide_tcp(self, *, caller: str, target: str, context: Context | None = None) -> Decision:
        """Decide a connection to a tcp service; ``caller`` is a verified SPIFFE ID in normal form."""
        compiled = self._targets.get(target)
        if compiled is None:
            return self._deny(Reason.UNKNOWN_SERVICE, caller, target)
        if compiled.tcp is None:
            return self._deny(Reason.WRONG_PROTOCOL, caller, target)
        return self._at(compiled.tcp, caller, context)

    def decide_door(
        self,
        *,
        caller: str,
        target: str,
        door: str,
        context: Context | None = None,
        method: str | None = None,
        path: str | None = None,
    ) -> Decision:
        """Decide a door by name (an operation, ``probes[N]`` or ``tcp``), past all questions of its path.

        ``method`` and ``path`` are for conditions; without them, one that reads them denies.
        """
        found = self.door(target, door)
        if found is None:
            known = target in self._targets
            reason = Reason.UNKNOWN_OPERATION if known else Reason.UNKNOWN_SERVICE
            return self._deny(reason, caller, target)
        return self._at(found, caller, context, method, path)

    def door(self, target: str, name: str) -> Door | None:
        """Return a door by its name, or None."""
        compiled = self._targets.get(target)
        if compiled is None:
            return None
        return compiled.tcp if compiled.tcp is not None and name == TCP else compiled.doors.get(name)

    def find(self, target: str, method: str, path: str) -> Door | None:
        """Return the door that a request of an HTTP service comes to, or None (also for an ambiguous path)."""
        compiled = self._targets.get(target)
        if compiled is None or compiled.tcp is not None:
            return None
        bare = path.partition("?")[0]
        methods = compiled.literals.get(bare)
        if methods is not None:
            return methods.get(method)
        return compiled.trie.find(method, bare[1:].split("/")) if compiled.is_clean(bare) else None

    def rule(self, rule_id: str) -> Rule | None:
        """Return a rule by its id, or None (probes are opened by none)."""
        return self._rules.get(rule_id)

    def call(
        self, door: Door, caller: str, context: Context | None, method: str | None, path: str | None
    ) -> Call:
        """Return a call at a door, for conditions to be evaluated on."""
        return Call(
            caller=self.snapshot.service_of(caller),
            target=door.target,
            door=door.name,
            operation=door.operation,
            method=method,
            path=path,
            context=context or NOTHING_KNOWN,
        )

    def explain(
        self, *, caller: str, target: str, method: str, path: str, context: Context | None = None
    ) -> Explanation:
        """Decide, and say why: the deciding or the nearest rule, what differs, what would allow it."""
        decision = self.decide(caller=caller, target=target, method=method, path=path, context=context)
        return explain_http(self, decision, method=method, path=path, context=context)

    def explain_tcp(self, *, caller: str, target: str, context: Context | None = None) -> Explanation:
        """Decide a connection, and say why."""
        decision = self.decide_tcp(caller=caller, target=target, context=context)
        return explain_tcp(self, decision, context=context)

    def requirement(self, *, caller: str, target: str, operation: str) -> Requirement:
        """Return what a permitted call carries; ``caller`` as for :meth:`decide`, the others are declared names.

        Raises NotFound for a service or an operation that is not declared.
        """
        door = self.door(target, operation)
        if door is None or door.operation is None:
            raise NotFound(f"the policy declares no operation {target[:80]}.{operation[:80]}")
        name = self.name_of(caller)
        user = UserMode.NONE if name is None else door.access.user_mode(name)
        return requirement_of(target, door.operation, user)

    def name_of(self, caller: str) -> str | None:
        """Return the name of a declared caller (``outside`` is itself), or None."""
        if caller == OUTSIDE:
            return OUTSIDE
        owner = self.snapshot.service_of(caller)
        return None if owner is None else owner.name

    def _deny(self, reason: Reason, caller: str, target: str) -> Decision:
        return Decision(
            effect=Effect.DENY,
            reason=reason,
            caller=caller,
            target=target,
            operation=None,
            rule=None,
            snapshot=self.snapshot.hash,
        )

    def _refuse(self, kept: dict[str, Decision], reason: Reason, caller: str, target: str) -> Decision:
        """Deny, and keep the answer for declared callers (strangers are without number)."""
        decision = self._deny(reason, caller, target)
        owner = self.snapshot.service_of(caller)
        if owner is not None:
            if reason in SOFT and self.snapshot.is_watched(owner.name, target):
                denied = Would(effect=decision.effect, reason=reason, rule=None)
                decision = replace(decision, effect=Effect.ALLOW, reason=Reason.SHADOWED, would=denied)
            kept[caller] = decision
        return decision

    def _at(
        self,
        door: Door,
        caller: str,
        context: Context | None,
        method: str | None = None,
        path: str | None = None,
    ) -> Decision:
        """Decide at a door; keep what no fact can change, for declared callers."""
        owner = self.name_of(caller)
        if owner is None:
            return self._decided(
                door, caller, Outcome(enforced=Judgement(Effect.DENY, Reason.UNKNOWN_CALLER, None))
            )
        has_facts = context is not None
        kept = door.certain if has_facts else door.decisions
        decision = kept.get(caller)
        if decision is not None:
            return decision
        cases = door.cases_of(self.snapshot, owner)
        settled = cases.settled(with_facts=has_facts)
        if settled is not None:
            decision = kept[caller] = self._decided(door, caller, settled)
            return decision
        call = self.call(door, caller, context, method, path)
        if door.leaves_resource and call.context.resource is None:
            outcome = cases.judge_by(lambda case: self._open(case, call))
        else:
            outcome = cases.judge(call, self.facts, self.permissions)
        return self._decided(door, caller, outcome)

    def _open(self, case: Case, call: Call) -> Judgement:
        """Judge a call whose resource the application knows: it passes where some resource would be allowed."""
        known = self.facts.resource(call)
        unknown = unknown_of(self.snapshot, known, {} if known is None else known.attributes)
        return reduce_case(case, call, self.facts, self.permissions, unknown).judgement

    def _decided(self, door: Door, caller: str, outcome: Outcome) -> Decision:
        """Return the decision; the same one for the same outcome, since there are few of them at a door."""
        enforced = outcome.enforced
        key = caller, enforced.reason, enforced.rule, outcome.would
        made = door.made.get(key)
        if made is None:
            made = self._decision(door, caller, outcome)
            if enforced.reason is not Reason.UNKNOWN_CALLER:  # strangers are without number
                door.made[key] = made
        return made

    def _decision(self, door: Door, caller: str, outcome: Outcome) -> Decision:
        return Decision(
            effect=outcome.enforced.effect,
            reason=outcome.enforced.reason,
            caller=caller,
            target=door.target.name,
            operation=door.name,
            rule=outcome.enforced.rule,
            snapshot=self.snapshot.hash,
            would=outcome.would,
        )
