# SPDX-License-Identifier: Apache-2.0
"""Partial evaluation: a condition and what is known so far become a predicate over what is not.

Whatever reads no unknown variable is evaluated by CEL itself, so it means what it means anywhere else; a part that
does and has no simple form stays as it is (:class:`~everyhop.conditions.predicates.Opaque`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast

from everyhop.conditions import ast, predicates as p
from everyhop.conditions._cel import Program, RefusedError, UnevaluableError, compile_text
from everyhop.conditions._uses import variables_of
from everyhop.conditions.model import Truth, ValueType
from everyhop.conditions.rendering import render

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.conditions.condition import Condition
    from everyhop.conditions.model import Vocabulary

MAX_SPREAD: Final = 64
"""Elements of a list over which a loop is written out; a longer one stays a loop, which only CEL can run."""

_SIGNS: Final[Mapping[str, p.Sign]] = {
    "_==_": "==",
    "_!=_": "!=",
    "_<_": "<",
    "_<=_": "<=",
    "_>_": ">",
    "_>=_": ">=",
}
_PLACES: Final[Mapping[str, p.Place]] = {"startsWith": "start", "endsWith": "end", "contains": "anywhere"}


class _NotSimpleError(Exception):
    """A part that has no node of its own."""


class _FailsError(Exception):
    """A part whose value is an error, whatever the unknown values are."""


def reduce(
    condition: Condition, values: Mapping[str, object], unknown: Mapping[str, p.Attribute]
) -> p.Predicate:
    """Return what a condition says once ``values`` (dotted name -> value) are known and ``unknown`` are not.

    For all values of the unknown variables that are of their types, the predicate gives what the condition gives.  A
    value in ``values`` that is not of its type is an error of the whole condition; so is one of the unknown later,
    which whoever evaluates the predicate checks with :func:`converted`.
    """
    data = condition.convert({name: value for name, value in values.items() if name not in unknown})
    if data is None:
        return p.ERROR
    return _Reducer(condition.vocabulary, data, unknown).predicate(condition.tree)


def converted(
    condition: Condition, values: Mapping[str, object], unknown: Mapping[str, p.Attribute]
) -> dict[str, object] | None:
    """Return the values of the unknown variables as the predicate is to see them.

    None where one is there and is not of its type: the condition as a whole is an error then.
    """
    given = {
        name: value for name, one in unknown.items() if (value := values.get(name, one.default)) is not None
    }
    return condition.convert(given)


@lru_cache(maxsize=2048)
def _program(text: str, vocabulary: Vocabulary) -> Program:
    return compile_text(text, vocabulary)[0]


@dataclass(frozen=True, slots=True)
class _Reducer:
    vocabulary: Vocabulary
    data: Mapping[str, object]
    unknown: Mapping[str, p.Attribute]

    def predicate(self, node: ast.Node) -> p.Predicate:
        """Return the predicate of a part that is true or false."""
        if not self._reads(node):
            return p.Fixed(_program(render(node), self.vocabulary).run(self.data).truth)
        try:
            return self._of(node)
        except _FailsError:
            return p.ERROR
        except _NotSimpleError:
            return self._opaque(node)

    def _of(self, node: ast.Node) -> p.Predicate:
        match node:
            case ast.Variable(name=name):
                return p.Holds(self.unknown[name])
            case ast.Call(function=ast.AND, args=args):
                return p.all_of(tuple(map(self.predicate, args)))
            case ast.Call(function=ast.OR, args=args):
                return p.any_of(tuple(map(self.predicate, args)))
            case ast.Call(function=ast.NOT, args=(one,)):
                return p.opposite_of(self.predicate(one))
            case ast.Call(function=ast.TERNARY, args=args):
                return _chosen(*map(self.predicate, args))
            case ast.Call(function=function, args=(left, right)):
                return self._binary(function, left, right)
            case ast.Loop():
                return self._loop(node)
            case _:
                raise _NotSimpleError

    def _binary(self, function: str, left: ast.Node, right: ast.Node) -> p.Predicate:
        if (sign := _SIGNS.get(function)) is not None:
            return p.Compare(sign, *self._operands(left, right))
        if function == ast.IN:
            return p.In(self._operand(left), self._items(right))
        if function == "has_role":
            return p.In(self._operand(right), self._items(left))
        if (place := _PLACES.get(function)) is not None:
            return self._part(left, place, right)
        if function == "starts_with_any":
            prefixes = self._items(right)
            if any(isinstance(one, p.Constant) and not one.value for one in prefixes):
                raise _FailsError  # the helper refuses an empty prefix
            parts = tuple(self._part_of(self._operand(left), "start", prefix) for prefix in prefixes)
            if parts:
                return p.any_of(parts)
        raise _NotSimpleError

    def _operands(self, left: ast.Node, right: ast.Node) -> tuple[p.Operand, p.Operand]:
        return self._operand(left), self._operand(right)

    def _operand(self, node: ast.Node) -> p.Operand:
        """Return an attribute or a known value; raise where it is neither, or is an error."""
        if isinstance(node, ast.Variable) and node.name in self.unknown:
            attribute = self.unknown[node.name]
            if attribute.type in {ValueType.STRINGS, ValueType.STRING_MAP}:
                raise _NotSimpleError
            return attribute
        if self._reads(node):
            raise _NotSimpleError
        return p.Constant(self._known(node))

    def _known(self, node: ast.Node) -> p.Scalar:
        if isinstance(node, ast.Literal):
            return node.value
        try:
            value = _program(render(node), self.vocabulary).value(self.data)
        except UnevaluableError:
            raise _FailsError from None
        if isinstance(value, datetime):
            # Python's moments have microseconds and CEL's nanoseconds: what is not the same moment is not taken for it.
            same = f"({render(node)}) == timestamp('{value.isoformat().replace('+00:00', 'Z')}')"
            if _program(same, self.vocabulary).run(self.data).truth is not Truth.TRUE:
                raise _NotSimpleError
            return value
        if type(value) not in {bool, int, float, str} or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            raise _NotSimpleError
        return cast("p.Scalar", value)

    def _items(self, node: ast.Node) -> tuple[p.Operand, ...]:
        """Return the members of a list that is written out, or of a known list variable."""
        if isinstance(node, ast.ListOf):
            return tuple(map(self._operand, node.items))
        if isinstance(node, ast.Variable) and node.name not in self.unknown:
            held = self.data.get(node.name)
            if held is None:
                raise _FailsError
            if isinstance(held, list):
                return tuple(map(p.Constant, held))
        raise _NotSimpleError

    def _part(self, whole: ast.Node, place: p.Place, part: ast.Node) -> p.Predicate:
        return self._part_of(self._operand(whole), place, self._operand(part))

    def _part_of(self, whole: p.Operand, place: p.Place, part: p.Operand) -> p.Predicate:
        if isinstance(whole, p.Attribute) and isinstance(part, p.Constant) and isinstance(part.value, str):
            return p.Part(whole, place, part.value)
        raise _NotSimpleError

    def _loop(self, loop: ast.Loop) -> p.Predicate:
        """Write out ``exists`` and ``all`` over a list that is known."""
        if loop.macro not in {"exists", "all"}:
            raise _NotSimpleError
        items = self._items(loop.over)
        if len(items) > MAX_SPREAD:
            raise _NotSimpleError
        bodies = []
        for item in items:
            if not isinstance(item, p.Constant) or isinstance(item.value, datetime):
                raise _NotSimpleError
            try:
                bodies.append(self.predicate(_with(loop.body, loop.local, item.value)))
            except RefusedError:
                raise _NotSimpleError from None
        return p.any_of(tuple(bodies)) if loop.macro == "exists" else p.all_of(tuple(bodies))

    def _opaque(self, node: ast.Node) -> p.Predicate:
        text = render(node)
        reads = tuple(self.unknown[name] for name in sorted(self._reads(node)))
        return p.Opaque(text, reads, self.data, _program(text, self.vocabulary))

    def _reads(self, node: ast.Node) -> frozenset[str]:
        return variables_of(node) & self.unknown.keys()


def _chosen(condition: p.Predicate, then: p.Predicate, other: p.Predicate) -> p.Predicate:
    if isinstance(condition, p.Fixed):
        if condition.truth is Truth.ERROR:
            return p.ERROR
        return then if condition.truth is Truth.TRUE else other
    return p.Choose(condition, then, other)


def _with(node: ast.Node, local: str, value: bool | float | str) -> ast.Node:  # noqa: FBT001  # a constant
    """Return the body of a loop for one element."""
    match node:
        case ast.Local(name=name) if name == local:
            return ast.Literal(type=node.type, offset=node.offset, id=node.id, value=value)
        case ast.ListOf(items=items):
            return replace(node, items=tuple(_with(item, local, value) for item in items))
        case ast.Call(args=args):
            return replace(node, args=tuple(_with(one, local, value) for one in args))
        case _:
            return node
