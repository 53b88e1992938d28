# SPDX-License-Identifier: Apache-2.0
"""Matching in linear time: a tree becomes a list of instructions, and states of these are found as texts ask for them.

Two questions are asked of an expression, and they differ.  :class:`FullMatch` is RE2's: is there any way to match the whole text?
:class:`FirstMatch` is Linkerd's (linkerd/http/route/src/http/match/path.rs): does the match that Rust's ``find`` prefers, the
leftmost with the first alternative that succeeds, happen to span the whole text?  ``/a|/ab`` fully matches ``/ab``, and its
first match there is ``/a``.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Final

from everyhop.core.errors import InputError
from everyhop.evaluators.regex.parsing import (
    Alternate,
    Begin,
    Capture,
    Chars,
    Concat,
    End,
    Repeat,
    is_nullable,
    parse,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from everyhop.evaluators.regex.parsing import Node, Ranges

MAX_INSTRUCTIONS: Final = 20_000
_MAX_STATES: Final = 2_000
_CHAR, _SPLIT, _MATCH, _BEGIN, _END = range(5)


class _Program:
    """Instructions: what each does, its one or two successors (the first preferred), its ranges."""

    def __init__(self, node: Node) -> None:
        self.does: list[int] = []
        self.then: list[tuple[int, ...]] = []
        self.ranges: list[Ranges] = []
        self.start = self._node(node, self._add(_MATCH))

    def _add(self, does: int, *then: int, ranges: Ranges = ()) -> int:
        if len(self.does) >= MAX_INSTRUCTIONS:
            raise InputError("a regular expression becomes too large")
        self.does.append(does)
        self.then.append(then)
        self.ranges.append(ranges)
        return len(self.does) - 1

    def _node(self, node: Node, after: int) -> int:
        """Add a node before ``after`` and return where it starts."""
        match node:
            case Chars():
                return self._add(_CHAR, after, ranges=node.ranges)
            case Begin():
                return self._add(_BEGIN, after)
            case End():
                return self._add(_END, after)
            case Capture():
                return self._node(node.node, after)
            case Concat():
                for part in reversed(node.parts):
                    after = self._node(part, after)
                return after
            case Alternate():
                starts = [self._node(one, after) for one in node.options]
                last = starts.pop()
                while starts:
                    last = self._add(_SPLIT, starts.pop(), last)
                return last
            case Repeat():
                return self._repeat(node, after)

    def _repeat(self, node: Repeat, after: int) -> int:
        if node.high is None:
            loop = self._add(_SPLIT)
            body = self._node(node.node, loop)
            self.then[loop] = (body, after) if node.is_greedy else (after, body)
            start = loop
        else:
            start = after
            for _ in range(node.high - node.low):
                body = self._node(node.node, start)
                start = self._add(_SPLIT, *((body, after) if node.is_greedy else (after, body)))
        for _ in range(node.low):
            start = self._node(node.node, start)
        return start


def _loops_on_nothing(node: Node) -> bool:
    match node:
        case Concat():
            return any(_loops_on_nothing(one) for one in node.parts)
        case Alternate():
            return any(_loops_on_nothing(one) for one in node.options)
        case Capture():
            return _loops_on_nothing(node.node)
        case Repeat():
            return (node.high is None and is_nullable(node.node)) or _loops_on_nothing(node.node)
        case _:
            return False


class _State:
    """The places in a program at one point of a text, the preferred first."""

    __slots__ = ("accepts", "next", "places")

    def __init__(self, places: tuple[int, ...], *, accepts: bool) -> None:
        self.places = places
        self.accepts = accepts  # if the text ends here
        self.next: dict[str, _State] = {}


class FullMatch:
    """An expression that has to match a whole text, as RE2's FullMatch does."""

    cuts: ClassVar[bool] = False  # whether what is less preferred than a match is forgotten

    def __init__(self, text: str) -> None:
        self.text = text
        tree = parse(text)
        if self.cuts and _loops_on_nothing(tree):
            raise InputError(
                f"the regular expression {text[:80]!r} repeats what can be nothing: engines differ over that"
            )
        self._program = _Program(tree)
        self._states: dict[tuple[int, ...], _State] = {}
        start = (self._program.start,)
        self._start = _State(self._closure(start, at_start=True), accepts=self._accepts(start, at_start=True))

    def __call__(self, text: str) -> bool:
        """Tell whether a text matches."""
        state = self._start
        for sign in text:
            found = state.next.get(sign)
            if found is None:
                found = state.next[sign] = self._step(state, sign)
            state = found
            if not state.places:
                return False
        return state.accepts

    def _step(self, state: _State, sign: str) -> _State:
        code, program = ord(sign), self._program
        after = [
            program.then[place][0]
            for place in state.places
            if program.does[place] == _CHAR and _is_in(program.ranges[place], code)
        ]
        places = self._closure(after)
        found = self._states.get(places)
        if found is None:
            if len(self._states) >= _MAX_STATES:
                self._states.clear()
                self._start.next.clear()
            found = self._states[places] = _State(places, accepts=self._accepts(places))
        return found

    def _accepts(self, places: Iterable[int], *, at_start: bool = False) -> bool:
        return any(
            self._program.does[one] == _MATCH for one in self._closure(places, at_start=at_start, at_end=True)
        )

    def _closure(
        self, places: Iterable[int], *, at_start: bool = False, at_end: bool = False
    ) -> tuple[int, ...]:
        """Follow what takes no character, in the order of preference."""
        program, seen, found = self._program, set[int](), list[int]()
        todo = list(places)[::-1]
        while todo:
            place = todo.pop()
            if place in seen:
                continue
            seen.add(place)
            does = program.does[place]
            if does == _SPLIT or (does == _BEGIN and at_start) or (does == _END and at_end):
                todo.extend(reversed(program.then[place]))
                continue
            if does == _BEGIN:
                continue
            found.append(place)
            if does == _MATCH and self.cuts:
                break
        return tuple(found)


class FirstMatch(FullMatch):
    """An expression whose preferred leftmost match has to be the whole text, as Linkerd asks of Rust's ``find``."""

    cuts: ClassVar[bool] = True


@lru_cache(maxsize=65536)
def _bounds(ranges: Ranges) -> tuple[list[int], list[int]]:
    return [low for low, _ in ranges], [high for _, high in ranges]


def _is_in(ranges: Ranges, code: int) -> bool:
    lows, highs = _bounds(ranges)
    index = bisect_right(lows, code) - 1
    return index >= 0 and code <= highs[index]
