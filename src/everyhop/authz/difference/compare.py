# SPDX-License-Identifier: Apache-2.0
"""The difference between two policies: every call whose answer changes, found by asking both engines.

Doors that are equal by value are passed over; at the others, one caller of each class is asked at one path of each kind,
under the facts at which conditions may turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.authz.difference.callers import CallerClass, Population, named_at
from everyhop.authz.difference.equality import Equality, may_open
from everyhop.authz.difference.exploring import Explorer
from everyhop.authz.difference.lazily import LazyEngine
from everyhop.authz.difference.model import Change, Direction, Plan, RouteChange, TermChange, Unexplored
from everyhop.authz.difference.paths import MAX_STEPS, Pair, pair_at, pairs_of
from everyhop.authz.difference.terms import operation_terms, trust_terms, user_term
from everyhop.core.errors import Conflict
from everyhop.policy.access import doors as doors_of
from everyhop.policy.model import Mode

if TYPE_CHECKING:
    from everyhop.authz.engine import Engine
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
    if old.hash == new.hash:
        none: tuple[Any, ...] = ()
        return Plan(
            before=old.hash,
            after=new.hash,
            changes=none,
            routes=none,
            terms=none,
            unexplored=none,
            compared=0,
            explored=0,
            evaluated=0,
        )
    return _Comparison(LazyEngine(old), LazyEngine(new)).run()


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
        self._unsteady = {known.spiffe_id for known in self._population.unsteady}
        self._concerned: dict[tuple[int, int], bool] = {}
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
        is_watched = any(any(self._equality.watched_by(side, service.name)) for side in (0, 1))
        probes = frozenset(probe.name for probe in service.probes)
        changed: dict[str, bool] = {}
        for name in doors_of(service):
            self._compared += 1
            if not self._equality.of_doors(service.name, name):
                changed[name] = True
            elif self._population.unsteady and (
                is_watched or self._concerns_unsteady(service.name, name, is_probe=name in probes)
            ):
                changed[name] = False
        found = {name: pair_at(*self._sides, service.name, name) for name in changed}
        if None in found.values():
            pairs, is_complete = pairs_of(*self._sides, service.name)
            if not is_complete:
                self._not_explored(service.name, "*", "*", f"more than {MAX_STEPS} kinds of paths")
            found |= {pair.names[1]: pair for pair in pairs if pair.names[1] in found}
        for name, steady in changed.items():
            pair = found[name]
            if pair is None:
                self._not_explored(service.name, name, "*", "no path was found that comes to it")
            else:
                self._pair(pair, steady=steady)
        if is_watched and self._population.unsteady:
            for pair in pairs_of(*self._sides, service.name)[0]:
                if pair.names == (None, None):
                    self._pair(pair, steady=False)

    def _concerns_unsteady(self, target: str, name: str, *, is_probe: bool) -> bool:
        """Tell whether a caller of whom the policies know different things could get different answers at a door."""
        if is_probe:
            return True
        accesses = [side.index.of(target, name) for side in self._sides]
        key = id(accesses[0]), id(accesses[1])
        found = self._concerned.get(key)
        if found is None:
            named = self._population.ids(*(named_at(access, ()) for access in accesses))
            found = not named.isdisjoint(self._unsteady) or any(may_open(access) for access in accesses)
            self._concerned[key] = found
        return found

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
        accesses = [None if door is None else door.access for door in (pair.old, pair.new)]
        named = self._population.ids(*map(named_at, accesses, edges))
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
