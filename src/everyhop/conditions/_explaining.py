# SPDX-License-Identifier: Apache-2.0
"""Why a condition came out as it did: its clauses, each run alone on the same values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from everyhop.conditions import ast
from everyhop.conditions._cel import load
from everyhop.conditions._uses import keys_of, variables_of
from everyhop.conditions.model import Clause, Outcome, Truth
from everyhop.conditions.rendering import name_of, quote, render
from everyhop.wire.cel import CheckedExpr

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from everyhop.conditions._cel import Program
    from everyhop.conditions.model import Vocabulary
    from everyhop.wire import cel

_MAX_SHOWN: Final = 120
_OPPOSITE: Final = {Truth.TRUE: Truth.FALSE, Truth.FALSE: Truth.TRUE, Truth.ERROR: Truth.ERROR}


def split(tree: ast.Node) -> tuple[tuple[ast.Node, bool], ...]:
    """Return the clauses from left to right, each with whether it counts negated.

    ``!`` is carried inwards: ``!(a || b)`` asks for ``!a`` and ``!b``.
    """
    found: list[tuple[ast.Node, bool]] = []
    pending = [(tree, False)]
    while pending:
        node, negated = pending.pop()
        if isinstance(node, ast.Call) and node.function in {ast.AND, ast.OR, ast.NOT}:
            flipped = negated != (node.function == ast.NOT)
            pending.extend((argument, flipped) for argument in reversed(node.args))
        else:
            found.append((node, negated))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Part:
    text: str
    negated: bool
    node: ast.Node
    program: Program
    variables: frozenset[str]


class Explainer:
    """Runs the clauses of one condition; they are cut out of its checked form when first asked for."""

    def __init__(self, tree: ast.Node, checked: bytes, vocabulary: Vocabulary) -> None:
        self._tree = tree
        self._checked = checked
        self._vocabulary = vocabulary

    @cached_property
    def _parts(self) -> tuple[_Part, ...]:
        message = CheckedExpr.FromString(self._checked)
        by_id = {expr.id: expr for expr in _connected(message.expr)}
        parts = []
        for node, negated in split(self._tree):
            alone = CheckedExpr.FromString(self._checked)
            alone.expr.CopyFrom(by_id[node.id])
            parts.append(
                _Part(
                    text=_negate(node) if negated else render(node),
                    negated=negated,
                    node=node,
                    program=load(alone, self._vocabulary, keys_of(node)),
                    variables=variables_of(node),
                )
            )
        return tuple(parts)

    def clauses(self, data: Mapping[str, Any], bad: Mapping[str, str]) -> tuple[Clause, ...]:
        """Return each clause with its own truth; ``bad`` holds the variables whose values were refused."""
        return tuple(self._clause(part, data, bad) for part in self._parts)

    def _clause(self, part: _Part, data: Mapping[str, Any], bad: Mapping[str, str]) -> Clause:
        refused = sorted(bad.keys() & part.variables)
        outcome = Outcome(Truth.ERROR, bad[refused[0]]) if refused else part.program.run(data)
        truth = _OPPOSITE[outcome.truth] if part.negated else outcome.truth
        return Clause(part.text, truth, dict(_inputs(part.node, data)), outcome.error)


def _connected(expr: cel.Expr) -> Iterator[cel.Expr]:
    """Yield an expression and all that hangs below it by ``&&``, ``||`` and ``!``."""
    pending = [expr]
    while pending:
        current = pending.pop()
        yield current
        if current.call_expr.function in {ast.AND, ast.OR, ast.NOT}:
            pending.extend(current.call_expr.args)


def _negate(node: ast.Node) -> str:
    opposite = {"_==_": "_!=_", "_!=_": "_==_"}
    if isinstance(node, ast.Call) and (function := opposite.get(node.function)):
        return render(
            ast.Call(
                function=function,
                args=node.args,
                is_member=False,
                type=node.type,
                offset=node.offset,
                id=node.id,
            )
        )
    return render(
        ast.Call(function=ast.NOT, args=(node,), is_member=False, type="bool", offset=node.offset, id=node.id)
    )


def _inputs(node: ast.Node, data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for part in ast.walk(node):
        if isinstance(part, ast.Variable) and part.name in data:
            yield part.name, show(data[part.name])
        elif isinstance(part, ast.MapKey) and part.key in data.get(part.variable, ()):
            yield name_of(part), show(data[part.variable][part.key])


def show(value: Any) -> str:
    """Return a value for people: one printable line of bounded length, in the notation of conditions."""
    match value:
        case bool():
            text = "true" if value else "false"
        case str():
            text = quote(value[:_MAX_SHOWN])
        case list():
            text = "[" + ", ".join(quote(str(element)[:_MAX_SHOWN]) for element in value[:_MAX_SHOWN]) + "]"
        case dict():
            entries = list(value.items())[:_MAX_SHOWN]
            text = (
                "{" + ", ".join(f"{quote(k[:_MAX_SHOWN])}: {quote(v[:_MAX_SHOWN])}" for k, v in entries) + "}"
            )
        case int() | float():
            text = repr(value)
        case _:
            text = value.isoformat().replace("+00:00", "Z")
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
