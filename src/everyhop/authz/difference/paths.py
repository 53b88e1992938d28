# SPDX-License-Identifier: Apache-2.0
"""Which operation a path comes to under two policies: one example for each pair that some path has.

The paths of a service fall into few kinds: at each segment only the literals of the two sides, and anything else, make a
difference.  So walking both sides' templates together finds every pair of operations that any path can have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.policy.model import SegmentKind
from everyhop.policy.routes import guarded_characters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.authz.engine import Door, Engine
    from everyhop.policy.model import Route, Service

MAX_STEPS: Final = 20_000
"""Prefixes that are looked at for one service and method."""

_SAMPLES: Final = ("1", "2", "a1", "b2", "x-1", "x-2")
_NOWHERE: Final = "/everyhop-no-such-path"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A request that comes to ``old`` under one policy and to ``new`` under the other; no method means tcp."""

    target: str
    old: Door | None
    new: Door | None
    method: str | None
    path: str | None

    @property
    def names(self) -> tuple[str | None, str | None]:
        """Return the names of both doors."""
        return (None if self.old is None else self.old.name, None if self.new is None else self.new.name)


def routes_of(service: Service | None) -> tuple[Route, ...]:
    """Return the routes of operations and probes."""
    return (
        ()
        if service is None
        else tuple(operation.route for operation in (*service.operations, *service.probes))
    )


def pairs_of(old: Engine, new: Engine, target: str) -> tuple[tuple[Pair, ...], bool]:
    """Return one pair for each kind of request to a service, and whether all paths were covered."""
    sides = old.snapshot.services.get(target), new.snapshot.services.get(target)
    found: dict[tuple[str, str | None, str | None], Pair] = {}
    is_complete = True
    routes = routes_of(sides[0]), routes_of(sides[1])
    for method in sorted({route.method for side in routes for route in side}):
        walk = _Walk(
            tuple(tuple(route for route in side if route.method == method) for side in routes),
            encoded=_encoded(*routes),
        )
        for path in walk.paths():
            pair = Pair(
                target=target,
                old=old.find(target, method, path),
                new=new.find(target, method, path),
                method=method,
                path=path,
            )
            found.setdefault((method, *pair.names), pair)
        is_complete = is_complete and not walk.is_cut
    pairs = [pair for pair in found.values() if pair.names != (None, None)]
    tcp = tuple(side.door(target, "tcp") for side in (old, new))
    if any(door is not None and door.operation is None for door in tcp):
        was, will = (None if door is None or door.operation is not None else door for door in tcp)
        pairs.append(Pair(target=target, old=was, new=will, method=None, path=None))
    if not all(side is not None and side.tcp is not None for side in sides):
        pairs.append(_nowhere(old, new, target))
    return tuple(pairs), is_complete


def pair_at(old: Engine, new: Engine, target: str, name: str) -> Pair | None:
    """Return the pair of one door that both sides have at the same route, or None where its path is not found at once."""
    doors = old.door(target, name), new.door(target, name)
    if doors[0] is None or doors[1] is None:
        return None
    operation = doors[1].operation
    if operation is None:
        return Pair(target=target, old=doors[0], new=doors[1], method=None, path=None)
    literals = {
        part.text
        for route in routes_of(new.snapshot.services[target])
        for part in route.segments
        if part.kind is SegmentKind.LITERAL
    }
    fresh = next((text for text in _SAMPLES if text not in literals), None)
    if fresh is None:
        return None
    parts = (p.text if p.kind is SegmentKind.LITERAL else fresh for p in operation.route.segments)
    method, path = operation.route.method, "/" + "/".join(parts)
    if (old.find(target, method, path), new.find(target, method, path)) != doors:
        return None
    return Pair(target=target, old=doors[0], new=doors[1], method=method, path=path)


def _nowhere(old: Engine, new: Engine, target: str) -> Pair:
    """Return a request that no operation of either side takes: methods are many, so there always is one."""
    routes = *routes_of(old.snapshot.services.get(target)), *routes_of(new.snapshot.services.get(target))
    used = {route.method for route in routes}
    method = next((m for m in ("GET", "POST", "REPORT", "SEARCH", "LOCK") if m not in used), "TRACE")
    return Pair(target=target, old=None, new=None, method=method, path=_NOWHERE)


def _encoded(old: tuple[Route, ...], new: tuple[Route, ...]) -> tuple[str, ...]:
    """Return segments that are clean on one side only: what one guards, percent-encoded."""
    return tuple(f"1%{ord(c):02X}" for c in sorted(guarded_characters(old) ^ guarded_characters(new)))


class _Walk:
    """All kinds of paths of two sets of routes of one method, the shorter ones first along each branch."""

    def __init__(self, sides: tuple[tuple[Route, ...], ...], *, encoded: tuple[str, ...]) -> None:
        self._routes = tuple(route for side in sides for route in side)
        self._encoded = encoded
        self._steps = 0
        self.is_cut = False

    def paths(self) -> Iterator[str]:
        """Yield the paths."""
        yield from self._from((), self._routes)

    def _from(self, prefix: tuple[str, ...], live: tuple[Route, ...]) -> Iterator[str]:
        depth = len(prefix)
        literals = {
            route.segments[depth].text
            for route in live
            if depth < len(route.segments) and route.segments[depth].kind is SegmentKind.LITERAL
        }
        fresh = next(text for text in (*_SAMPLES, *_further(literals)) if text not in literals)
        for segment in (*sorted(literals - {""}), fresh, *self._encoded):
            self._steps += 1
            if self._steps > MAX_STEPS:
                self.is_cut = True
                return
            here = (*prefix, segment)
            yield "/" + "/".join(here)
            going = tuple(route for route in live if _goes_on(route, depth, segment))
            if going:
                yield from self._from(here, going)
        yield "/" + "/".join((*prefix, ""))


def _further(literals: set[str]) -> Iterator[str]:
    """Yield texts until one is no literal: there is always one more than there are literals."""
    yield from (f"x-{n}" for n in range(3, len(literals) + 4))


def _goes_on(route: Route, depth: int, segment: str) -> bool:
    """Tell whether a longer path could still match; beyond ``{name...}`` two more segments show all there is."""
    segments = route.segments
    if segments[-1].kind is SegmentKind.REST and depth >= len(segments) - 1:
        return depth <= len(segments)
    if depth >= len(segments) - 1:
        return False
    part = segments[depth]
    return part.kind is SegmentKind.PARAMETER or part.text == segment
