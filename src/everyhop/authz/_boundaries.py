# SPDX-License-Identifier: Apache-2.0
"""Search the boundary values of a condition for a combination under which it is true."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Final

from everyhop.conditions import Truth
from everyhop.conditions.analysis import boundaries, values_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from everyhop.conditions import Clause, Condition

MAX_TRIED: Final = 2048
_ROUNDS: Final = 3

Choice = dict[str, object]


def try_for_truth(condition: Condition) -> tuple[bool, int]:
    """Return whether some combination of boundary values makes a condition true, and how many were tried."""
    tried = 0

    def judge(choice: Choice) -> tuple[Truth, tuple[Clause, ...]]:
        nonlocal tried
        tried += 1
        values = values_of(condition, choice)
        truth = condition.evaluate(values).truth
        return truth, () if truth is Truth.TRUE else condition.explain(values)

    names = boundaries(condition)
    return search(names, judge)[1] is Truth.TRUE, tried


def search(
    names: Mapping[str, tuple[object, ...]], judge: Callable[[Choice], tuple[Truth, tuple[Clause, ...]]]
) -> tuple[Choice, Truth]:
    """Return the best choice of one value for each name, and what it gives: true as soon as one is.

    All combinations are tried where they are few; otherwise one name after the other is set to the value under which most
    clauses are true.
    """
    start: Choice = {name: values[0] for name, values in names.items()}
    if math.prod(len(values) for values in names.values()) <= MAX_TRIED:
        best = start, Truth.FALSE
        for values in itertools.product(*names.values()):
            choice = dict(zip(names, values, strict=True))
            if judge(choice)[0] is Truth.TRUE:
                return choice, Truth.TRUE
        return best
    return _climb(start, names, judge)


def _climb(
    start: Choice,
    names: Mapping[str, tuple[object, ...]],
    judge: Callable[[Choice], tuple[Truth, tuple[Clause, ...]]],
) -> tuple[Choice, Truth]:
    best, score = start, _score(judge(start))
    for _ in range(_ROUNDS):
        before = score
        for name, values in names.items():
            for value in values:
                choice = {**best, name: value}
                found = _score(judge(choice))
                if found > score:
                    best, score = choice, found
                if score == math.inf:
                    return best, Truth.TRUE
        if score == before:
            break
    return best, Truth.FALSE


def _score(judged: tuple[Truth, tuple[Clause, ...]]) -> float:
    truth, clauses = judged
    return math.inf if truth is Truth.TRUE else sum(clause.truth is Truth.TRUE for clause in clauses)
