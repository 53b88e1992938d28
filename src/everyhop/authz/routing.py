# SPDX-License-Identifier: Apache-2.0
"""From method and clean path to the one operation they belong to, by hash and segment trie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from everyhop.policy.model import SegmentKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.policy.model import Route

V = TypeVar("V")


class _Node(Generic[V]):
    __slots__ = ("ends", "literals", "parameter", "rests")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[V]] = {}
        self.parameter: _Node[V] | None = None
        self.ends: dict[str, V] = {}
        self.rests: dict[str, V] = {}


class RouteTrie(Generic[V]):
    """Routes by segment.  Of several that match, the most specific for the method is found.

    That is the order of :func:`everyhop.policy.routes.specificity`: segment by segment from the left, a literal
    before a parameter before the rest.  A look-up visits at most the nodes of the trie along the path's
    segments, whatever the length of the path.
    """

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root: _Node[V] = _Node()

    def add(self, route: Route, value: V) -> None:
        """Add a route; its shape is not in the trie yet (the parser sees to that)."""
        node = self._root
        for segment in route.segments:
            if segment.kind is SegmentKind.REST:
                node.rests[route.method] = value
                return
            if segment.kind is SegmentKind.PARAMETER:
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(segment.text, _Node())
        node.ends[route.method] = value

    def find(self, method: str, segments: Sequence[str]) -> V | None:
        """Return the value of the most specific matching route, or None."""
        return _find(self._root, method, segments, 0)


def _find(node: _Node[V], method: str, segments: Sequence[str], index: int) -> V | None:
    if index == len(segments):
        return node.ends.get(method)
    segment = segments[index]
    child = node.literals.get(segment)
    if child is not None:
        found = _find(child, method, segments, index + 1)
        if found is not None:
            return found
    if node.parameter is not None and segment:
        found = _find(node.parameter, method, segments, index + 1)
        if found is not None:
            return found
    return node.rests.get(method)
