# SPDX-License-Identifier: Apache-2.0
"""Which cases Envoy decides by itself: those of which it can evaluate every rule.

A case is a caller at a door.  It is decided in one place: by Envoy's policy filter, or by the agent, to which the
filter leaves it.  Both give the same effect, reason and rule.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from everyhop.authz.table import OperationEntry, ServiceTable, Verdict
from everyhop.core.decision import Effect, Reason
from everyhop.dataplane.conditions import Lowering, NotLoweredError, Place
from everyhop.dataplane.predicates import expressions, really_false, really_true
from everyhop.policy.model import OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.authz.cases import Cases
    from everyhop.dataplane.predicates import Predicate
    from everyhop.policy.model import Operation, Rule, Service, Snapshot

MAX_EXPRESSIONS: Final = 512
"""Different expressions at one door, over all callers.  Envoy compiles each, for about 20 KiB; beyond, the agent decides."""

MAX_OF_SERVICE: Final = 4096
"""The same, over all doors of a service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One rule with what holds exactly where its condition is true, and where it is false."""

    rule: Rule
    is_true: Predicate
    is_false: Predicate

    @property
    def expressions(self) -> int:
        """Return how many expressions it costs."""
        return expressions(self.is_true) + expressions(self.is_false)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """A case for Envoy: the deny rules in their order, then what opens the door, then the allow rules in theirs."""

    denying: tuple[Step, ...]
    probe: str | None
    allow: Rule | None
    allowing: tuple[Step, ...]

    @property
    def expressions(self) -> int:
        """Return how many expressions it costs."""
        return sum(step.expressions for step in (*self.denying, *self.allowing))

    @property
    def key(self) -> tuple[object, ...]:
        """Return what is equal for cases that one matcher decides: they are of the same steps."""
        steps = (tuple(map(id, self.denying)), tuple(map(id, self.allowing)))
        return (*steps, self.probe, None if self.allow is None else self.allow.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedVerdict(Verdict):
    """A verdict that depends on facts which Envoy knows; it asks nobody."""

    steps: Steps


class Placing:
    """Places the cases of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot: Final = snapshot
        self._lowering: Final = Lowering(snapshot)
        self._kept: dict[tuple[str, str, str, str], Step | NotLoweredError] = {}

    def table(self, table: ServiceTable) -> ServiceTable:
        """Return the table of a service with the verdicts of Envoy's cases as :class:`PlacedVerdict`."""
        if not any(_ask(entry) for entry in table.entries) and not _asks(table.tcp_verdicts):
            return table
        room = MAX_OF_SERVICE
        entries = []
        for entry in table.entries:
            placed, cost = self._entry(table.service, entry, room)
            entries.append(placed)
            room -= cost
        tcp = table.tcp_verdicts
        if tcp is not None:
            tcp, _ = self._verdicts(table.service, None, tcp, room)
        return replace(table, entries=tuple(entries), tcp_verdicts=tcp)

    def steps(self, place: Place, cases: Cases) -> Steps:
        """Return a case for Envoy; raises NotLoweredError where the agent has to decide."""
        if cases.is_watched or cases.watched is not None:
            raise NotLoweredError("what is only watched is decided twice, by the agent")
        case = cases.enforced
        if case.probe is None and case.asks_for_user:
            raise NotLoweredError("a rule is about users, whom the agent verifies")
        is_open = case.probe is not None or case.allow is not None
        return Steps(
            denying=tuple(self.step(rule, place) for rule in case.deny_if),
            probe=case.probe,
            allow=case.allow,
            allowing=() if is_open else tuple(self.step(rule, place) for rule in case.allow_if),
        )

    def step(self, rule: Rule, place: Place) -> Step:
        """Return one rule for Envoy; raises NotLoweredError."""
        condition = rule.condition
        if condition is None:
            raise NotLoweredError("it has no condition")
        caller = "*"
        if any(name.startswith("caller.") for name in condition.variables):
            caller = OUTSIDE if place.caller is None else place.caller.name
        key = rule.id, place.target.name, place.door, caller
        kept = self._kept.get(key)
        if kept is None:
            try:
                tree = self._lowering.condition(condition, place)
                kept = Step(rule=rule, is_true=really_true(tree), is_false=really_false(tree))
            except NotLoweredError as error:
                kept = error
            self._kept[key] = kept
        if isinstance(kept, NotLoweredError):
            raise NotLoweredError(kept.why, kept.node)
        return kept

    def _entry(self, target: Service, entry: OperationEntry, room: int) -> tuple[OperationEntry, int]:
        if not _ask(entry):
            return entry, 0
        asked = {**entry.verdicts, OUTSIDE: entry.outside}
        verdicts, cost = self._verdicts(target, entry.operation, asked, room)
        outside = verdicts.pop(OUTSIDE)
        return replace(entry, verdicts=verdicts, outside=outside), cost

    def _verdicts(
        self, target: Service, operation: Operation | None, verdicts: Mapping[str, Verdict], room: int
    ) -> tuple[dict[str, Verdict], int]:
        """Return the verdicts of a door, Envoy's cases placed, and what they cost; none is where they are too many."""
        found: dict[str, Verdict] = dict(verdicts)
        costs: dict[tuple[object, ...], int] = {}
        for caller, verdict in verdicts.items():
            if not verdict.asks or verdict.cases is None:
                continue
            place = Place(caller=self._snapshot.service_of(caller), target=target, operation=operation)
            try:
                steps = self.steps(place, verdict.cases)
            except NotLoweredError:
                continue
            costs[steps.key] = steps.expressions
            found[caller] = PlacedVerdict(
                effect=Effect.ALLOW, reason=Reason.ALLOWED, rule=None, cases=verdict.cases, steps=steps
            )
        cost = sum(costs.values())
        return (found, cost) if cost <= min(room, MAX_EXPRESSIONS) else (dict(verdicts), 0)


def _ask(entry: OperationEntry) -> bool:
    return entry.outside.asks or _asks(entry.verdicts)


def _asks(verdicts: Mapping[str, Verdict] | None) -> bool:
    return verdicts is not None and any(verdict.asks for verdict in verdicts.values())
