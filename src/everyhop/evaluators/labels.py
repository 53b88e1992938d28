# SPDX-License-Identifier: Apache-2.0
"""Label selectors of Kubernetes (``LabelSelector``), read as the API server accepts them.

What it rejects is an InputError here: an operator that is none, ``In`` and ``NotIn`` without values, the others with some.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

from everyhop.core.errors import InputError
from everyhop.evaluators.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")


class Operator(StrEnum):
    """What an expression asks of a label."""

    IN = "In"
    NOT_IN = "NotIn"  # holds where the label is missing too
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class Expression:
    """One condition on one label."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Tell whether labels satisfy it."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.DOES_NOT_EXIST:
                return self.key not in labels


@dataclass(frozen=True, slots=True)
class Selector:
    """Conditions that all have to hold; none select everything."""

    equal: tuple[tuple[str, str], ...] = ()
    expressions: tuple[Expression, ...] = ()

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Tell whether labels satisfy every condition."""
        for key, value in self.equal:
            if labels.get(key) != value:
                return False
        return all(one.holds(labels) for one in self.expressions)

    def keys(self) -> tuple[str, ...]:
        """Return the labels that it asks about."""
        return (*(key for key, _ in self.equal), *(one.key for one in self.expressions))

    def renamed(self, rename: Callable[[str], str]) -> Selector:
        """Return it with other names for the labels."""
        return Selector(
            tuple((rename(key), value) for key, value in self.equal),
            tuple(Expression(rename(one.key), one.operator, one.values) for one in self.expressions),
        )

    def and_equal(self, key: str, value: str) -> Selector:
        """Return it with one condition more."""
        return Selector((*self.equal, (key, value)), self.expressions)

    def and_exists(self, key: str) -> Selector:
        """Return it with one condition more."""
        return Selector(self.equal, (*self.expressions, Expression(key, Operator.EXISTS)))


ALL = Selector()


class Selected(Generic[T]):
    """Things by the selectors that choose them: a question looks at those only whose first condition its labels meet."""

    __slots__ = ("_by_label", "_count", "_others")

    def __init__(self) -> None:
        self._by_label: dict[tuple[str, str], list[tuple[int, Selector, T]]] = {}
        self._others: list[tuple[int, Selector, T]] = []
        self._count = 0

    def add(self, selector: Selector, thing: T) -> None:
        """Add one thing."""
        rare = self._by_label.setdefault(selector.equal[0], []) if selector.equal else self._others
        rare.append((self._count, selector, thing))
        self._count += 1

    def of(self, labels: Mapping[str, str]) -> tuple[T, ...]:
        """Return what is chosen by labels, in the order in which it was added."""
        found = [
            one for pair in labels.items() for one in self._by_label.get(pair, ()) if one[1].selects(labels)
        ]
        found += [one for one in self._others if one[1].selects(labels)]
        return tuple(thing for _, _, thing in sorted(found, key=lambda one: one[0]))


def read_selector(value: object, where: str) -> Selector:
    """Read a selector; raises InputError for what the API server rejects and for unknown members."""
    with Fields(value, where) as fields:
        equal = fields.inner("matchLabels")
        pairs = {} if equal is None else {key: equal.text(key) for key in equal}
        expressions = fields.each("matchExpressions", _read_expression) or ()
    missing = [key for key, text in pairs.items() if text is None]
    if missing:
        raise InputError(f"{where}.matchLabels: {missing[0]!r} has no value")
    return Selector(
        tuple(sorted((key, text) for key, text in pairs.items() if text is not None)), expressions
    )


def _read_expression(fields: Fields) -> Expression:
    key = fields.needed_text("key")
    operator = fields.one_of("operator", *Operator)
    values = fields.texts("values") or ()
    if operator is None:
        raise InputError(f"{fields.where}: operator is missing")
    if bool(values) != (operator in {Operator.IN, Operator.NOT_IN}):
        raise InputError(f"{fields.where}: {operator} has {'values' if values else 'no values'}")
    return Expression(key, Operator(operator), frozenset(values))
