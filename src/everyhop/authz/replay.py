# SPDX-License-Identifier: Apache-2.0
"""Recorded decisions against another policy: which real calls would get another answer?

A record holds who called what and when, not every fact.  Where the candidate's answer hangs on a fact that was not recorded
(a user's roles, a header, an address), the call is not guessed at: it is counted as one that cannot be replayed, unless
the door is equal by value to the one at which it was decided, for then the answer is too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from everyhop.authz.difference.callers import Population
from everyhop.authz.difference.equality import Equality
from everyhop.core.decision import Reason
from everyhop.policy.access import TCP
from everyhop.policy.facts import Context

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from everyhop.authz.engine import Door, Engine
    from everyhop.core.decision import Decision

MAX_EDGES: Final = 5000
"""Edges that a tally tells apart; what comes after is counted as ``others``."""

_RECORDED: Final = (
    "caller.",
    "target.",
    "operation",
    "request.method",
    "request.path",
    "request.query",
    "now",
    "resource.",
)
_REASONS: Final = frozenset(Reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One recorded decision: ``caller`` is a SPIFFE ID or ``outside``; without ``method`` it was a tcp connection.

    ``snapshot`` is the hash of the policy under which it was made, or its first 16 digits.
    """

    id: str
    time: datetime
    caller: str
    target: str
    method: str | None
    path: str | None
    operation: str | None
    is_allowed: bool
    reason: str
    snapshot: str | None


class Outcome(StrEnum):
    """What becomes of a recorded call."""

    SAME = "same"
    GAINED = "gained"
    LOST = "lost"
    ALREADY = (
        "already"  # it was recorded under an older policy; the one in force answers as the candidate does
    )
    UNKNOWN = "unknown"  # facts that count were not recorded
    FOREIGN = "foreign"  # something else than the policy refused it: a token, a bad request


@dataclass(frozen=True, slots=True)
class Judged:
    """The outcome of one record; ``why`` names the facts that are missing."""

    outcome: Outcome
    decision: Decision | None = None
    why: str | None = None


@dataclass(slots=True)
class EdgeCount:
    """How many calls of one edge there were; with the id of the first, and the times of the first and the last."""

    count: int
    example: str
    first: datetime
    last: datetime


@dataclass(slots=True)
class Tally:
    """What became of many records: counts by outcome, and edges for those that flip or cannot be replayed.

    An edge is (outcome, caller, target, operation, reason); ``unreadable`` counts records that could not be asked about.
    """

    counts: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    edges: dict[tuple[str, str, str, str, str], EdgeCount] = field(default_factory=dict)
    others: int = 0
    unreadable: int = 0

    def add(self, record: Recorded, judged: Judged) -> None:
        """Count one record."""
        self.counts[judged.outcome] += 1
        if judged.outcome not in {Outcome.GAINED, Outcome.LOST, Outcome.UNKNOWN}:
            return
        operation = (judged.decision and judged.decision.operation) or record.operation or "-"
        why = judged.why or ("" if judged.decision is None else judged.decision.reason.value)
        key = (judged.outcome.value, record.caller, record.target, operation, why)
        edge = self.edges.get(key)
        if edge is not None:
            edge.count += 1
            edge.first, edge.last = min(edge.first, record.time), max(edge.last, record.time)
        elif len(self.edges) < MAX_EDGES:
            self.edges[key] = EdgeCount(1, record.id, record.time, record.time)
        else:
            self.others += 1

    @property
    def flips(self) -> int:
        """Return how many recorded calls would get another answer."""
        return self.counts[Outcome.GAINED] + self.counts[Outcome.LOST]


class Replay:
    """Asks a candidate about recorded calls.  ``in_force`` is the policy that most of them were made under."""

    def __init__(self, in_force: Engine, candidate: Engine) -> None:
        self._in_force = in_force
        self._candidate = candidate
        self._equality = Equality(in_force, candidate)
        self._unsteady = {
            known.spiffe_id for known in Population(in_force.snapshot, candidate.snapshot).unsteady
        }

    def run(self, records: Iterable[Recorded], tally: Tally | None = None) -> Tally:
        """Judge records one by one and count them; memory does not grow with their number."""
        tally = tally or Tally()
        for record in records:
            tally.add(record, self.judge(record))
        return tally

    def judge(self, record: Recorded) -> Judged:
        """Return what becomes of one recorded call.  Never raises on any text."""
        if record.reason not in _REASONS:
            return Judged(Outcome.FOREIGN)
        decision, missing = self._ask(self._candidate, record)
        if missing:
            if self._is_equal(record):
                return Judged(Outcome.SAME)
            return Judged(Outcome.UNKNOWN, decision, f"not recorded: {', '.join(sorted(missing))}")
        if decision.is_allowed is record.is_allowed:
            return Judged(Outcome.SAME, decision)
        today, unknown = self._ask(self._in_force, record)
        if not unknown and today.is_allowed is decision.is_allowed:
            return Judged(Outcome.ALREADY, decision)
        return Judged(Outcome.GAINED if decision.is_allowed else Outcome.LOST, decision)

    def _ask(self, engine: Engine, record: Recorded) -> tuple[Decision, frozenset[str]]:
        """Return the decision by what was recorded, and the names of the facts that count and were not."""
        context = Context(now=record.time)
        if record.method is None or record.path is None:
            door = engine.door(record.target, TCP)
            decision = engine.decide_tcp(caller=record.caller, target=record.target, context=context)
        else:
            door = engine.find(record.target, record.method, record.path)
            decision = engine.decide(
                caller=record.caller,
                target=record.target,
                method=record.method,
                path=record.path,
                context=context,
            )
        return decision, self._missing(engine, door, record.caller)

    def _missing(self, engine: Engine, door: Door | None, caller: str) -> frozenset[str]:
        name = engine.name_of(caller)
        if door is None or name is None:
            return frozenset()
        case = door.cases_of(engine.snapshot, name).enforced
        if case.settled_with_facts() is not None:
            return frozenset()
        if case.probe is None and case.allow is None and not case.allow_if:
            return frozenset()  # nothing opens it, whatever a deny rule would find
        rules = (*case.deny_if, *case.allow_if)
        read = {name for rule in rules if rule.condition is not None for name in rule.condition.variables}
        missing = {name for name in read if not name.startswith(_RECORDED)}
        return frozenset(missing | ({"the user"} if case.asks_for_user else set()))

    def _is_equal(self, record: Recorded) -> bool:
        """Tell whether the call was decided in force, at a door that the candidate has too, equal by value."""
        sides = self._in_force, self._candidate
        short = record.snapshot or ""
        if len(short) < len("0123456789abcdef") or not sides[0].snapshot.hash.startswith(short):
            return False
        services = [side.snapshot.services.get(record.target) for side in sides]
        if services[0] is None or services[1] is None or record.caller in self._unsteady:
            return False
        if record.method is None or record.path is None:
            doors = [side.door(record.target, TCP) for side in sides]
        else:
            doors = [side.find(record.target, record.method, record.path) for side in sides]
        if doors[0] is None or doors[1] is None:
            return False
        same_shadow = self._equality.watched_by(0, record.target) == self._equality.watched_by(
            1, record.target
        )
        return (
            same_shadow
            and doors[0].name == doors[1].name
            and self._equality.of_services(services[0], services[1])
            and self._equality.of_doors(record.target, doors[0].name)
        )
