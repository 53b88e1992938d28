# SPDX-License-Identifier: Apache-2.0
"""From a tree back to text: one normal form, with the brackets that it needs and no others."""

from __future__ import annotations

from typing import Final

from everyhop.conditions import ast

_TERNARY: Final = 0
_UNARY: Final = 6
_MEMBER: Final = 7
_BINARY: Final = {
    ast.OR: ("||", 1),
    ast.AND: ("&&", 2),
    "_==_": ("==", 3),
    "_!=_": ("!=", 3),
    "_<_": ("<", 3),
    "_<=_": ("<=", 3),
    "_>_": (">", 3),
    "_>=_": (">=", 3),
    ast.IN: ("in", 3),
    "_+_": ("+", 4),
    "_-_": ("-", 4),
    "_*_": ("*", 5),
    "_/_": ("/", 5),
    "_%_": ("%", 5),
}
_PREFIX: Final = {ast.NOT: "!", "-_": "-"}
_ESCAPES: Final = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def render(node: ast.Node) -> str:
    """Return the text of a tree; compiled again it gives an equal tree."""
    return _render(node)[0]


def quote(text: str) -> str:
    """Return a CEL string literal; only printable characters, so that it can be shown anywhere."""
    return (
        "'" + "".join(_ESCAPES.get(c) or (c if c.isprintable() else f"\\U{ord(c):08x}") for c in text) + "'"
    )


def name_of(node: ast.MapKey | ast.HasKey) -> str:
    """Return ``map['key']``."""
    return f"{node.variable}[{quote(node.key)}]"


def _render(node: ast.Node) -> tuple[str, int]:
    """Return the text and how tightly it holds together."""
    match node:
        case ast.Literal(value=value):
            return _literal(value)
        case ast.Variable(name=name) | ast.Local(name=name):
            return name, _MEMBER
        case ast.MapKey():
            return name_of(node), _MEMBER
        case ast.HasKey(variable=variable, key=key):
            return f"{quote(key)} in {variable}", 3
        case ast.ListOf(items=items):
            return f"[{_list(items)}]", _MEMBER
        case ast.Loop(macro=macro, local=local, over=over, body=body, where=where):
            parts = (body,) if where is None else (where, body)
            return f"{_within(over, _MEMBER)}.{macro}({local}, {_list(parts)})", _MEMBER
        case _:
            return _call(node)


def _call(node: ast.Call) -> tuple[str, int]:
    function, args = node.function, node.args
    if function in _BINARY:
        sign, strength = _BINARY[function]
        # The binary operators group to the left; && and || were balanced by the parser, where grouping means nothing.
        right = strength if function in {ast.AND, ast.OR} else strength + 1
        return f"{_within(args[0], strength)} {sign} {_within(args[1], right)}", strength
    if function in _PREFIX:
        return _PREFIX[function] + _within(args[0], _MEMBER), _UNARY
    if function == ast.TERNARY:
        first, second, third = (_within(args[0], 1), _within(args[1], 1), _within(args[2], _TERNARY))
        return f"{first} ? {second} : {third}", _TERNARY
    if function == ast.INDEX:
        return f"{_within(args[0], _MEMBER)}[{render(args[1])}]", _MEMBER
    if node.is_member:
        return f"{_within(args[0], _MEMBER)}.{function}({_list(args[1:])})", _MEMBER
    return f"{function}({_list(args)})", _MEMBER


def _list(nodes: tuple[ast.Node, ...]) -> str:
    return ", ".join(render(node) for node in nodes)


def _within(node: ast.Node, strength: int) -> str:
    text, own = _render(node)
    return text if own >= strength else f"({text})"


def _literal(value: bool | float | str) -> tuple[str, int]:  # noqa: FBT001  # a constant is what it is
    if isinstance(value, bool):
        return ("true" if value else "false"), _MEMBER
    if isinstance(value, str):
        return quote(value), _MEMBER
    return repr(value), _MEMBER if value >= 0 else _UNARY
