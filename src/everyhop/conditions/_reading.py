# SPDX-License-Identifier: Apache-2.0
"""From CEL's CheckedExpr to the nodes of ``ast``.

CEL expands macros into comprehensions and keeps no note of it here, so the five expansions that cel-cpp makes
are told apart by their shapes.  Nobody can write a comprehension by hand: there is no syntax for one, nor for a
name with ``@`` such as its accumulator has, so the shapes need no defence against look-alikes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypedDict

from everyhop.conditions import ast

if TYPE_CHECKING:
    from everyhop.wire import cel

_PRIMITIVES: Final = {1: "bool", 2: "int", 3: "uint", 4: "double", 5: "string", 6: "bytes"}
_WELL_KNOWN: Final = {2: "timestamp", 3: "duration"}
_ACCUMULATOR: Final = "@result"


class UnreadableError(Exception):
    """A tree that holds what no node stands for; ``offset`` is the place in the text."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


class _Common(TypedDict):
    type: str
    offset: int
    id: int


def read(checked: cel.CheckedExpr) -> ast.Node:
    """Return the tree of a checked expression; raises UnreadableError for what the nodes cannot express."""
    return _Reader(checked).node(checked.expr, None)


def type_name(kind: cel.Type) -> str:
    """Return the name of a CEL type; ``?`` for one that the profile has no name for."""
    match kind.WhichOneof("type_kind"):
        case "primitive":
            return _PRIMITIVES.get(kind.primitive, "?")
        case "well_known":
            return _WELL_KNOWN.get(kind.well_known, "?")
        case "list_type":
            return f"list({type_name(kind.list_type.elem_type)})"
        case "map_type":
            return f"map({type_name(kind.map_type.key_type)}, {type_name(kind.map_type.value_type)})"
        case _:
            return "?"


class _Reader:
    """Reads the expressions of one CheckedExpr, with its types and positions at hand."""

    def __init__(self, checked: cel.CheckedExpr) -> None:
        self._types = checked.type_map
        self._positions = checked.source_info.positions

    def node(self, expr: cel.Expr, local: str | None) -> ast.Node:
        """Return the node of one expression; ``local`` is the variable of the loop around it."""
        common: _Common = {
            "type": type_name(self._types[expr.id]) if expr.id in self._types else "?",
            "offset": self._positions.get(expr.id, 0),
            "id": expr.id,
        }
        match expr.WhichOneof("expr_kind"):
            case "const_expr":
                return self._constant(expr.const_expr, common)
            case "ident_expr":
                name = expr.ident_expr.name.removeprefix(".")
                return ast.Local(name=name, **common) if name == local else ast.Variable(name=name, **common)
            case "select_expr":
                return self._select(expr.select_expr, common)
            case "list_expr" if not expr.list_expr.optional_indices:
                items = tuple(self.node(item, local) for item in expr.list_expr.elements)
                return ast.ListOf(items=items, **common)
            case "call_expr":
                return self._call(expr.call_expr, common, local)
            case "comprehension_expr":
                return self._loop(expr.comprehension_expr, common, local)
            case "struct_expr":
                raise UnreadableError("maps and messages cannot be written out", common["offset"])
            case _:
                raise UnreadableError("this form is not part of the condition language", common["offset"])

    def _constant(self, constant: cel.Constant, common: _Common) -> ast.Literal:
        kind = constant.WhichOneof("constant_kind")
        if kind in {"bool_value", "int64_value", "double_value", "string_value"}:
            return ast.Literal(value=getattr(constant, kind), **common)
        written = {"null_value": "null", "uint64_value": "an unsigned number", "bytes_value": "bytes"}
        raise UnreadableError(f"{written.get(kind or '', 'this')} cannot be written", common["offset"])

    def _select(self, select: cel.Expr.Select, common: _Common) -> ast.MapKey | ast.HasKey:
        if select.operand.WhichOneof("expr_kind") != "ident_expr":
            raise UnreadableError("a key can only be read from a variable", common["offset"])
        name = select.operand.ident_expr.name.removeprefix(".")
        if select.test_only:
            return ast.HasKey(variable=name, key=select.field, is_macro=True, **common)
        return ast.MapKey(variable=name, key=select.field, **common)

    def _call(
        self, call: cel.Expr.Call, common: _Common, local: str | None
    ) -> ast.Call | ast.MapKey | ast.HasKey:
        is_member = call.HasField("target")
        parts = (call.target, *call.args) if is_member else tuple(call.args)
        args = tuple(self.node(part, local) for part in parts)
        match call.function, args:
            case ast.INDEX, (ast.Variable(name=name, type=kind), ast.Literal(value=str(key))) if _is_map(
                kind
            ):
                return ast.MapKey(variable=name, key=key, **common)
            case ast.IN, (ast.Literal(value=str(key)), ast.Variable(name=name, type=kind)) if _is_map(kind):
                return ast.HasKey(variable=name, key=key, is_macro=False, **common)
            case _:
                return ast.Call(function=call.function, args=args, is_member=is_member, **common)

    def _loop(self, loop: cel.Expr.Comprehension, common: _Common, local: str | None) -> ast.Loop:
        if local is not None:
            raise UnreadableError("a loop cannot stand inside another", common["offset"])
        if loop.iter_var2 or loop.accu_var != _ACCUMULATOR:
            raise UnreadableError("this form of loop is not part of the condition language", common["offset"])
        macro, where, body = _macro(loop)
        return ast.Loop(
            macro=macro,
            local=loop.iter_var,
            over=self.node(loop.iter_range, None),
            body=self.node(body, loop.iter_var),
            where=None if where is None else self.node(where, loop.iter_var),
            **common,
        )


def _is_map(kind: str) -> bool:
    return kind.startswith("map(")


def _macro(loop: cel.Expr.Comprehension) -> tuple[ast.Macro, cel.Expr | None, cel.Expr]:
    """Return the macro that was expanded to this, with the ``where`` of a map and the body."""
    start, step = loop.accu_init, loop.loop_step.call_expr
    match start.const_expr.WhichOneof("constant_kind"):
        case "int64_value":
            return "exists_one", None, step.args[0]
        case "bool_value":
            return ("all" if start.const_expr.bool_value else "exists"), None, step.args[1]
    where = None
    if step.function == ast.TERNARY:
        where, step = step.args[0], step.args[1].call_expr
    element = step.args[1].list_expr.elements[0]
    if where is not None and element.ident_expr.name == loop.iter_var:
        return "filter", None, where
    return "map", where, element
