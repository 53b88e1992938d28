# SPDX-License-Identifier: Apache-2.0
"""The difference between two policies: every call whose answer changes, found by asking both engines.

Doors that are equal by value are passed over; at the others, one caller of each class is asked at one path of each kind,
under the facts at which conditions may turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.authz.difference.callers import CallerClass, Population, named_at
from everyhop.authz.difference.equality import Equality, may_open
from everyhop.authz.difference.exploring import Explorer
from everyhop.authz.difference.model import Change, Direction, Plan, RouteChange, TermChange, Unexplored
from everyhop.authz.difference.paths import MAX_STEPS, Pair, pairs_of
from everyhop.authz.difference.terms import operation_terms, trust_terms, user_term
from everyhop.authz.engine import Engine
from everyhop.core.errors import Conflict
from everyhop.policy.access import doors as doors_of
from everyhop.policy.model import Mode

if TYPE_CHECKING:
    from everyhop.authz.engine import Door
    from everyhop.policy.model import Service, Snapshot

MAX_EVALUATIONS: Final = 150_000
"""Requests that one comparison decides under both policies; what is left is named as not explored."""

MAX_UNEXPLORED: Final = 200


def compare(old: Snapshot, new: Snapshot) -> Plan:
    """Return what would change for callers if ``new`` took the place of ``old``.

    Every example in it was decided by both engines.  Raises Conflict where the trust domains differ: then nobody keeps
    an identity, and there is nothing to compare.
    """
    if old.trust_domain != new.trust_domain:
        raise Conflict(f"the policies are of two trust domains: {old.trust_domain} and {new.trust_domain}")
    return _Comparison(Engine(old), Engine(new)).run()


class _Comparison:
    def __init__(self, old: Engine, new: Engine) -> None:
        self._sides = old, new
        self._equality = Equality(old, new)
        self._explorer = Explorer(old, new)
        self._population = Population(old.snapshot, new.snapshot)
        self._changes: list[Change] = []
        self._routes: list[RouteChange] = []
        self._terms: list[TermChange] = []
        self._unexplored: list[Unexplored] = []
        self._compared = self._explored = self._evaluated = 0

    def run(self) -> Plan:
        old, new = (side.snapshot for side in self._sides)
        for target in sorted({*old.services, *new.services}):
            self._service(target, old.services.get(target), new.services.get(target))
        self._terms += trust_terms(old, new)
        return Plan(
            before=old.hash,
            after=new.hash,
            changes=tuple(sorted(self._changes, key=lambda change: change.direction is Direction.LOST)),
            routes=tuple(self._routes),
            terms=tuple(self._terms),
            unexplored=tuple(self._unexplored),
            compared=self._compared,
            explored=self._explored,
            evaluated=self._evaluated,
        )

    def _service(self, target: str, old: Service | None, new: Service | None) -> None:
        shadow = self._equality.same_shadow or (
            self._equality.watched_by(0, target) == self._equality.watched_by(1, target)
        )
        self._operation_terms(target, old, new)
        if old is not None and new is not None and self._equality.of_services(old, new) and shadow:
            self._equal_service(new)
            return
        pairs, is_complete = pairs_of(*self._sides, target)
        if not is_complete:
            self._not_explored(target, "*", "*", f"more than {MAX_STEPS} kinds of paths")
        for pair in pairs:
            self._route(pair)
            self._pair(pair, steady=True)

    def _equal_service(self, service: Service) -> None:
        """Look at those doors only that differ, and at callers of whom the policies know different things."""
        changed: dict[str, bool] = {}
        for name in doors_of(service):
            self._compared += 1
            old, new = (side.door(service.name, name) for side in self._sides)
            if old is None or new is None:
                continue
            if not self._equality.of_doors(old, new):
                changed[name] = True
            elif self._population.unsteady and self._concerns_unsteady(old, new):
                changed[name] = False
        if changed:
            pairs, is_complete = pairs_of(*self._sides, service.name)
            if not is_complete:
                self._not_explored(service.name, "*", "*", f"more than {MAX_STEPS} kinds of paths")
            for pair in pairs:
                after = pair.names[1]
                if after is not None and after in changed:
                    self._pair(pair, steady=changed[after])

    def _concerns_unsteady(self, *doors: Door) -> bool:
        named = self._population.ids(*(named_at(door, ()) for door in doors))
        return any(known.spiffe_id in named for known in self._population.unsteady) or any(
            may_open(door.access, is_probe=door.is_probe) or self._is_watched(door.target.name)
            for door in doors
        )

    def _is_watched(self, target: str) -> bool:
        return any(
            watched or edges for watched, edges in (self._equality.watched_by(n, target) for n in (0, 1))
        )

    def _route(self, pair: Pair) -> None:
        before, after = pair.names
        if before != after and pair.method is not None and pair.path is not None:
            self._routes.append(
                RouteChange(
                    target=pair.target, method=pair.method, path=pair.path, before=before, after=after
                )
            )

    def _pair(self, pair: Pair, *, steady: bool) -> None:
        self._explored += 1
        edges = [self._equality.watched_by(side, pair.target)[1] for side in (0, 1)]
        named = self._population.ids(named_at(pair.old, edges[0]), named_at(pair.new, edges[1]))
        classes, cut = self._population.classes(named, self._reads(pair), steady=steady)
        if cut is not None:
            self._not_explored(pair.target, _label(pair), "callers", cut)
        for who in classes:
            self._ask(pair, who)

    def _reads(self, pair: Pair) -> frozenset[str]:
        """Return what the conditions at a pair of doors read of a caller."""
        return frozenset(
            name
            for door in (pair.old, pair.new)
            if door is not None
            for rule in door.access.further
            if rule.condition is not None and rule.mode is Mode.ENFORCE
            for name in rule.condition.variables
            if name.startswith("caller.")
        )

    def _ask(self, pair: Pair, who: CallerClass) -> None:
        if self._evaluated >= MAX_EVALUATIONS:
            self._not_explored(
                pair.target,
                _label(pair),
                str(who.callers),
                f"{MAX_EVALUATIONS} requests were decided before it",
            )
            return
        found = self._explorer.explore(pair, who.ask)
        self._evaluated += found.tried
        if found.cut is not None:
            self._not_explored(pair.target, _label(pair), str(who.callers), found.cut)
        before, after = pair.names
        for flip in found.flips:
            self._changes.append(
                Change(
                    direction=flip.direction,
                    callers=who.callers,
                    target=pair.target,
                    before=before,
                    after=after,
                    users=flip.users,
                    depends=flip.depends,
                    example=flip.example,
                )
            )
        term = user_term(self._sides, pair, who)
        if term is not None:
            self._terms.append(term)

    def _operation_terms(self, target: str, old: Service | None, new: Service | None) -> None:
        if old is None or new is None or old.operations == new.operations:
            return
        by_name = {operation.name: operation for operation in old.operations}
        by_route = {operation.route: operation for operation in old.operations}
        for operation in new.operations:
            before = by_name.get(operation.name) or by_route.get(operation.route)
            if before is not None:
                self._terms += operation_terms(target, before, operation)

    def _not_explored(self, target: str, door: str, callers: str, why: str) -> None:
        if len(self._unexplored) < MAX_UNEXPLORED:
            self._unexplored.append(Unexplored(target=target, door=door, callers=callers, why=why))


def _label(pair: Pair) -> str:
    return pair.names[1] or pair.names[0] or "(no operation)"
