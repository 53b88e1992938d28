# SPDX-License-Identifier: Apache-2.0
"""How large RE2's program for an expression is: what Envoy measures against ``re2.max_program_size.error_level`` (100 unless told).

Cilium hands regular expressions of its policies to Envoy without a look at that limit, and one which is over it takes the policy of
the whole endpoint away (cilium#41314, #48773).  The figure follows RE2's steps: alternatives are factored, repetitions written out,
the graph of instructions flattened into lists; it was compared with what a real Envoy 1.40.0 reports
(tests/integration/evaluators/test_envoy_expressions.py).  Other releases of RE2 differ by a few instructions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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
    joined,
    parse,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from everyhop.evaluators.regex.parsing import Node, Ranges

MAX_COUNTED: Final = 20_000
_LAST: Final = 0xFF  # Envoy compiles for bytes
_EMPTY: Final = Concat(())
_ANCHOR_DEPTH: Final = 4
_SIMPLE: Final = frozenset({(0, None), (1, None), (0, 1)})


def program_size(text: str) -> int:
    """Return the number of instructions; raises InputError for what is no expression or counts beyond any limit."""
    parts = list(_parts(_parsed(parse(text))))
    begins = 0
    while begins < len(parts) and isinstance(parts[begins], Begin):
        begins += 1
    stripped = begins
    while begins and stripped < len(parts) and _is_literal(parts[stripped], like=parts[begins]):
        stripped += 1
    if (
        begins and stripped > begins
    ):  # a literal prefix is compared by itself, and only what follows is a program
        node: Node = Concat(tuple(parts[stripped:]))
        is_anchored = False
    else:
        node, is_anchored = _without_anchor(Concat(tuple(parts)), Begin, 0, _ANCHOR_DEPTH)
    node, _ = _without_anchor(node, End, -1, _ANCHOR_DEPTH)
    return _Graph(_written_out(node), is_anchored=is_anchored).size()


def _parts(node: Node) -> Sequence[Node]:
    return node.parts if isinstance(node, Concat) else (node,)


def _is_literal(node: Node, like: Node | None = None) -> bool:
    """Tell whether a node is one character, in one case or in both, as its neighbour ``like`` is."""
    if not isinstance(node, Chars) or (isinstance(like, Chars) and like.folds != node.folds):
        return False
    codes = [code for low, high in node.ranges for code in (low, high) if low == high]
    if len(node.ranges) == 1:
        return bool(codes)
    return len(codes) == 4 and codes[0] + 32 == codes[2] and chr(codes[0]).isupper()  # noqa: PLR2004  # two ranges of one


def _without_anchor(node: Node, kind: type[Begin | End], side: int, depth: int) -> tuple[Node, bool]:
    if depth == 0:
        return node, False
    if isinstance(node, kind):
        return _EMPTY, True
    if isinstance(node, Capture):
        inner, found = _without_anchor(node.node, kind, side, depth - 1)
        return (Capture(inner), True) if found else (node, False)
    if isinstance(node, Concat) and node.parts:
        inner, found = _without_anchor(node.parts[side], kind, side, depth - 1)
        if found:
            rest = node.parts[1:] if side == 0 else node.parts[:-1]
            return Concat((inner, *rest) if side == 0 else (*rest, inner)), True
    return node, False


def _parsed(node: Node) -> Node:
    """Return the tree that RE2's parser makes of it: alternatives factored, repetitions of repetitions made one."""
    match node:
        case Concat():
            return _concat([_parsed(one) for one in node.parts])
        case Alternate():
            return _factored([_parsed(one) for one in node.options])
        case Capture():
            return Capture(_parsed(node.node))
        case Repeat():
            return _squashed(Repeat(_parsed(node.node), node.low, node.high, node.is_greedy))
        case _:
            return node


def _concat(nodes: Sequence[Node]) -> Node:
    parts = tuple(part for one in nodes for part in _parts(one))
    return parts[0] if len(parts) == 1 else Concat(parts)


def _squashed(node: Repeat) -> Node:
    inner = node.node
    if (
        isinstance(inner, Repeat)
        and inner.is_greedy == node.is_greedy
        and (node.low, node.high) in _SIMPLE
        and (inner.low, inner.high) in _SIMPLE
    ):
        # A star, plus or question mark of one of these is again one of them: a star, unless both are the same.
        if (inner.low, inner.high) == (node.low, node.high):
            return inner
        return Repeat(inner.node, 0, None, node.is_greedy)
    return node


def _written_out(node: Node) -> Node:
    """Return it with stars, pluses and question marks alone."""
    match node:
        case Concat():
            return Concat(tuple(_written_out(one) for one in node.parts))
        case Alternate():
            return Alternate(tuple(_written_out(one) for one in node.options))
        case Capture():
            return Capture(_written_out(node.node))
        case Repeat():
            return _repeated(_written_out(node.node), node)
        case _:
            return node


def _repeated(node: Node, how: Repeat) -> Node:
    low, high, is_greedy = how.low, how.high, how.is_greedy
    if (low, high) == (0, None) and is_nullable(node):
        return Repeat(Repeat(node, 1, None, is_greedy), 0, 1, is_greedy)
    if (low, high) in _SIMPLE:
        return Repeat(node, low, high, is_greedy)
    if high is None:
        return Concat((*[node] * (low - 1), Repeat(node, 1, None, is_greedy)))
    tail: Node = _EMPTY
    for _ in range(high - low):
        tail = Repeat(Concat((node, tail)), 0, 1, is_greedy)
    return Concat((*[node] * low, tail))


def _factored(options: list[Node]) -> Node:
    """Draw out what neighbours begin with, and make one set of single characters, as RE2's parser does."""
    if len(options) == 1:
        return options[0]
    options = _drawn_out(options, _leading_literals)
    options = _drawn_out(options, _leading_piece)
    merged: list[Node] = []
    for one in options:
        last = merged[-1] if merged else None
        if isinstance(one, Chars) and isinstance(last, Chars):
            merged[-1] = Chars(joined([*last.ranges, *one.ranges]))
        elif not (one == _EMPTY and last == _EMPTY):
            merged.append(one)
    return merged[0] if len(merged) == 1 else Alternate(tuple(merged))


def _leading_literals(node: Node) -> tuple[Node, ...]:
    found: list[Node] = []
    for part in _parts(node):
        if not _is_literal(part, like=found[0] if found else None):
            break
        found.append(part)
    return tuple(found)


def _leading_piece(node: Node) -> tuple[Node, ...]:
    parts = _parts(node)
    return tuple(parts[:1]) if parts and isinstance(parts[0], Chars | Begin | End) else ()


def _drawn_out(options: list[Node], lead: Callable[[Node], tuple[Node, ...]]) -> list[Node]:
    found: list[Node] = []
    run: list[Node] = []
    common: tuple[Node, ...] = ()

    def close() -> None:
        if len(run) > 1:
            rest = [_concat(_parts(one)[len(common) :]) for one in run]
            found.append(Concat((*common, _factored(rest))))
        else:
            found.extend(run)

    for one in options:
        shared = _shared(common, lead(one))
        if run and shared:
            run.append(one)
            common = shared
            continue
        close()
        run, common = [one], lead(one)
    close()
    return found


def _shared(one: tuple[Node, ...], other: tuple[Node, ...]) -> tuple[Node, ...]:
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return one[:length]


class _Graph:
    """The instructions: those that take something have one successor, forks have two."""

    def __init__(self, node: Node, *, is_anchored: bool) -> None:
        self._forks: list[bool] = []
        self._then: list[list[int]] = []
        match_ = self._add(is_fork=False)
        self._start = self._node(node, match_)
        self._loop = self._start
        if not is_anchored:  # anything may stand before: a loop over every byte
            self._loop = self._add(is_fork=True)
            self._then[self._loop] = [self._start, self._add(self._loop, is_fork=False)]

    def _add(self, *then: int, is_fork: bool) -> int:
        if len(self._then) >= MAX_COUNTED:
            raise InputError("a regular expression becomes too large to be counted")
        self._forks.append(is_fork)
        self._then.append(list(then))
        return len(self._then) - 1

    def _node(self, node: Node, after: int) -> int:
        match node:
            case Chars():
                return self._chars(node.ranges, after)
            case Begin() | End():
                return self._add(after, is_fork=False)
            case Capture():
                return self._add(self._node(node.node, self._add(after, is_fork=False)), is_fork=False)
            case Concat():
                for part in reversed(node.parts):
                    after = self._node(part, after)
                return after
            case Alternate():
                last = self._node(node.options[-1], after)
                for one in reversed(node.options[:-1]):
                    last = self._add(self._node(one, after), last, is_fork=True)
                return last
            case Repeat():
                return self._repeat(node, after)

    def _repeat(self, node: Repeat, after: int) -> int:
        if node.high == 1:
            return self._add(self._node(node.node, after), after, is_fork=True)
        loop = self._add(is_fork=True)
        body = self._node(node.node, loop)
        self._then[loop] = [body, after]
        return loop if node.low == 0 else body

    def _chars(self, ranges: Ranges, after: int) -> int:
        count = _count(ranges)
        last = self._add(after, is_fork=False)
        for _ in range(count - 1):
            last = self._add(self._add(after, is_fork=False), last, is_fork=True)
        return last

    def size(self) -> int:
        """Count the instructions after flattening: each list holds what its root reaches through forks alone."""
        reached = self._reachable()
        roots = {self._start, self._loop}
        roots.update(then for one in reached if not self._forks[one] for then in self._then[one])
        while True:
            owner: dict[int, int] = {}
            extra = set()
            for root in roots:
                for one in self._tree(root, roots):
                    if owner.setdefault(one, root) != root:
                        extra.add(one)
            if not extra:
                break
            roots |= extra
        return 1 + sum(self._leaves(root, roots) for root in roots)

    def _reachable(self) -> set[int]:
        seen, todo = set[int](), [self._start, self._loop]
        while todo:
            one = todo.pop()
            if one not in seen:
                seen.add(one)
                todo.extend(self._then[one])
        return seen

    def _tree(self, root: int, roots: set[int]) -> set[int]:
        seen, todo = set[int](), [root]
        while todo:
            one = todo.pop()
            if one in seen or (one != root and one in roots):
                continue
            seen.add(one)
            if self._forks[one]:
                todo.extend(self._then[one])
        return seen

    def _leaves(self, root: int, roots: set[int]) -> int:
        seen, todo, found = set[int](), [root], 0
        while todo:
            one = todo.pop()
            if one in seen:
                continue
            seen.add(one)
            if one != root and one in roots:
                found += 1  # a jump to another list
            elif self._forks[one]:
                todo.extend(self._then[one])
            else:
                found += 1
        return found


def _count(ranges: Ranges) -> int:
    """Return how many ranges of bytes a set takes; where both cases of every letter are in it, one range serves both."""
    clipped = [(low, min(high, _LAST)) for low, high in ranges if low <= _LAST]
    upper = {code + 32 for low, high in clipped for code in range(max(low, 65), min(high, 90) + 1)}
    lower = {code for low, high in clipped for code in range(max(low, 97), min(high, 122) + 1)}
    folds = upper == lower
    return sum(1 for low, high in clipped if not (folds and low >= 65 and high <= 90)) or 1  # noqa: PLR2004  # A to Z
