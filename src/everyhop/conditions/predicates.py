# SPDX-License-Identifier: Apache-2.0
"""What is left of a condition when everything but some attributes is known: a small tree that can go into a query.

A predicate is true, false or an error, as a condition is, and the three go together as in CEL: an attribute that is
not known is an error, ``!error`` is an error, ``false && error`` is false, ``true || error`` is true.  That is also
SQL's logic with NULL in the place of the error, which is why a predicate can be lowered without changing its meaning.
What has no node of its own is an :class:`Opaque`, which only CEL can answer.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal as Choice

from everyhop.conditions.model import Truth, ValueType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from everyhop.conditions._cel import Program

    Scalar = bool | int | float | str | datetime

Sign = Choice["==", "!=", "<", "<=", ">", ">="]
Place = Choice["start", "end", "anywhere"]


@dataclass(frozen=True, slots=True)
class Attribute:
    """What is not known yet: a variable by its dotted name, its type, and its value where it is absent (None: none)."""

    name: str
    type: ValueType
    default: object = None


@dataclass(frozen=True, slots=True)
class Constant:
    """A value; never None."""

    value: Scalar


Operand = Attribute | Constant


@dataclass(frozen=True, slots=True)
class Fixed:
    """An answer that does not depend on any attribute."""

    truth: Truth


@dataclass(frozen=True, slots=True)
class And:
    """Every part."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Some part."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite; of an error, an error."""

    part: Predicate


@dataclass(frozen=True, slots=True)
class Choose:
    """``condition ? then : other``; an error where the condition is one."""

    condition: Predicate
    then: Predicate
    other: Predicate


@dataclass(frozen=True, slots=True)
class Holds:
    """The value of an attribute that is true or false."""

    attribute: Attribute


@dataclass(frozen=True, slots=True)
class Compare:
    """A comparison of two values of one type; texts compare by code points."""

    sign: Sign
    left: Operand
    right: Operand


@dataclass(frozen=True, slots=True)
class In:
    """Whether a value is among others; an error where any of them, on either side, is not known."""

    element: Operand
    items: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Whether an attribute that is text has another text at a place."""

    attribute: Attribute
    place: Place
    text: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """A part of a condition that only CEL can evaluate: its text, what is known, what it reads besides."""

    text: str
    reads: tuple[Attribute, ...]
    known: Mapping[str, object] = field(repr=False, compare=False)
    program: Program = field(repr=False, compare=False)


Predicate = Fixed | And | Or | Not | Choose | Holds | Compare | In | Part | Opaque

TRUE: Final = Fixed(Truth.TRUE)
FALSE: Final = Fixed(Truth.FALSE)
ERROR: Final = Fixed(Truth.ERROR)

_SIGNS: Final[Mapping[str, Callable[[object, object], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,  # type: ignore[dict-item]  # both sides have one ordered type, checked with the condition
    "<=": operator.le,  # type: ignore[dict-item]  # the same
    ">": operator.gt,  # type: ignore[dict-item]  # the same
    ">=": operator.ge,  # type: ignore[dict-item]  # the same
}
_OPPOSITE: Final = {Truth.TRUE: Truth.FALSE, Truth.FALSE: Truth.TRUE, Truth.ERROR: Truth.ERROR}


def all_of(parts: tuple[Predicate, ...]) -> Predicate:
    """Return the conjunction in a short form: flat, without repetitions, decided where it is."""
    return _joined(parts, And, neutral=TRUE, decisive=FALSE)


def any_of(parts: tuple[Predicate, ...]) -> Predicate:
    """Return the disjunction in the same form."""
    return _joined(parts, Or, neutral=FALSE, decisive=TRUE)


def opposite_of(part: Predicate) -> Predicate:
    """Return the negation; of a negation, what it negates."""
    if isinstance(part, Fixed):
        return Fixed(_OPPOSITE[part.truth])
    return part.part if isinstance(part, Not) else Not(part)


def _joined(
    parts: tuple[Predicate, ...], kind: type[And | Or], *, neutral: Predicate, decisive: Predicate
) -> Predicate:
    kept: dict[Predicate, None] = {}
    for part in parts:
        for one in part.parts if isinstance(part, And | Or) and isinstance(part, kind) else (part,):
            if one == decisive:
                return decisive
            if one != neutral:
                kept[one] = None
    return neutral if not kept else next(iter(kept)) if len(kept) == 1 else kind(tuple(kept))


def children(predicate: Predicate) -> tuple[Predicate, ...]:
    """Return the predicates directly below."""
    match predicate:
        case And(parts=parts) | Or(parts=parts):
            return parts
        case Not(part=part):
            return (part,)
        case Choose(condition=condition, then=then, other=other):
            return (condition, then, other)
        case _:
            return ()


def walk(predicate: Predicate) -> Iterator[Predicate]:
    """Yield the predicate and all below it."""
    pending: list[Predicate] = [predicate]
    while pending:
        current = pending.pop()
        yield current
        pending.extend(reversed(children(current)))


def can_be(truth: Truth, predicate: Predicate) -> bool:
    """Tell whether some values could give TRUE (or FALSE); True where it is not plain that none can."""
    match predicate:
        case Fixed(truth=fixed):
            return fixed is truth
        case And(parts=parts):
            each = [can_be(truth, part) for part in parts]
            return all(each) if truth is Truth.TRUE else any(each)
        case Or(parts=parts):
            each = [can_be(truth, part) for part in parts]
            return any(each) if truth is Truth.TRUE else all(each)
        case Not(part=part):
            return can_be(_OPPOSITE[truth], part)
        case Choose(condition=condition, then=then, other=other):
            return (can_be(Truth.TRUE, condition) and can_be(truth, then)) or (
                can_be(Truth.FALSE, condition) and can_be(truth, other)
            )
        case _:
            return True


def evaluate(predicate: Predicate, values: Mapping[str, object]) -> Truth:
    """Return what a predicate says of values (dotted name -> converted value); an absent one is not known."""
    match predicate:
        case Fixed(truth=truth):
            return truth
        case And(parts=parts):
            found = {evaluate(part, values) for part in parts}
            return _first(found, Truth.FALSE, Truth.ERROR) or Truth.TRUE
        case Or(parts=parts):
            found = {evaluate(part, values) for part in parts}
            return _first(found, Truth.TRUE, Truth.ERROR) or Truth.FALSE
        case Not(part=part):
            return _OPPOSITE[evaluate(part, values)]
        case Choose(condition=condition, then=then, other=other):
            asked = evaluate(condition, values)
            if asked is Truth.ERROR:
                return Truth.ERROR
            return evaluate(then if asked is Truth.TRUE else other, values)
        case Opaque():
            return predicate.program.run({**predicate.known, **_given(predicate.reads, values)}).truth
        case _:
            return _simple(predicate, values)


def _simple(predicate: Holds | Compare | In | Part, values: Mapping[str, object]) -> Truth:
    """The same for what compares values: an error where one of them is not known."""
    match predicate:
        case Holds(attribute=attribute):
            value = _value(attribute, values)
            return Truth.ERROR if value is None else _truth(is_true=value is True)
        case Compare(sign=sign, left=left, right=right):
            first, second = _value(left, values), _value(right, values)
            if first is None or second is None:
                return Truth.ERROR
            return _truth(is_true=_SIGNS[sign](first, second))
        case In(element=element, items=items):
            wanted, held = _value(element, values), [_value(item, values) for item in items]
            return Truth.ERROR if wanted is None or None in held else _truth(is_true=wanted in held)
        case Part(attribute=attribute, place=place, text=text):
            whole = _value(attribute, values)
            return _truth(is_true=_has(whole, place, text)) if isinstance(whole, str) else Truth.ERROR


def _has(whole: str, place: Place, text: str) -> bool:
    if place == "anywhere":
        return text in whole
    return whole.startswith(text) if place == "start" else whole.endswith(text)


def _value(operand: Operand, values: Mapping[str, object]) -> object:
    if isinstance(operand, Constant):
        return operand.value
    found = values.get(operand.name)
    return operand.default if found is None else found


def _given(reads: tuple[Attribute, ...], values: Mapping[str, object]) -> dict[str, object]:
    return {one.name: value for one in reads if (value := _value(one, values)) is not None}


def _truth(*, is_true: bool) -> Truth:
    return Truth.TRUE if is_true else Truth.FALSE


def _first(found: set[Truth], *wanted: Truth) -> Truth | None:
    return next((truth for truth in wanted if truth in found), None)
