# SPDX-License-Identifier: Apache-2.0
"""What of CEL a condition may use, checked on our own tree when the condition is read.

The checks keep three promises: an evaluation takes a bounded time whatever the request holds, a literal that
cannot work is refused before anything is enforced, and every condition can be analysed and lowered to other
engines, because nothing is in it that ``ast`` has no node for.
"""

from __future__ import annotations

import math
import re
import zoneinfo
from typing import TYPE_CHECKING, Final

from everyhop.conditions import ast
from everyhop.conditions._cel import constant_error
from everyhop.conditions._helpers import HELPERS
from everyhop.conditions._positions import macros_named_has
from everyhop.conditions.limits import MAX_LOOPS, MAX_NODES, MAX_PATTERN
from everyhop.conditions.model import ValueType
from everyhop.conditions.rendering import quote, render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.conditions.model import Vocabulary

Mistake = tuple[int, str]
"""An offset in the text, and what is wrong there."""

GETTERS: Final = frozenset(
    [
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getFullYear",
        "getHours",
        "getMilliseconds",
        "getMinutes",
        "getMonth",
        "getSeconds",
    ]
)
"""Functions of a moment that take a time zone, and of a duration (without one)."""

_LOGIC: Final = frozenset({ast.AND, ast.OR, ast.NOT})
_COMPARISONS: Final = frozenset({"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"})
_ARITHMETIC: Final = frozenset({"_+_", "_-_", "_*_", "_/_", "_%_", "-_"})
_CONVERSIONS: Final = frozenset({"double", "duration", "int", "string", "timestamp"})
_TEXT: Final = frozenset({"contains", "endsWith", "matches", "size", "startsWith"})
FUNCTIONS: Final = frozenset({*_CONVERSIONS, *_TEXT, *GETTERS, *HELPERS})
"""Everything that is called by name."""

_PARTS_OF_TEXT: Final = frozenset({"contains", "endsWith", "startsWith"})
_SCALARS: Final = frozenset({"bool", "int", "double", "string", "timestamp", "duration"})
_LISTS: Final = frozenset(f"list({scalar})" for scalar in _SCALARS)
_MAP: Final = "map(string, string)"
_ZONE: Final = re.compile(
    r"(?!posix/|right/|localtime$)[A-Za-z][A-Za-z0-9_+-]{0,31}(?:/[A-Za-z0-9_+-]{1,32}){0,3}", re.ASCII
)
_OFFSET: Final = re.compile(r"[+-](?:0\d|1[0-4]):[0-5]\d", re.ASCII)


def mistakes(tree: ast.Node, text: str, vocabulary: Vocabulary) -> Iterator[Mistake]:
    """Yield everything in a checked tree that the profile refuses."""
    nodes = list(ast.walk(tree))
    if len(nodes) > MAX_NODES:
        yield 0, f"the condition has {len(nodes)} parts; at most {MAX_NODES} are allowed"
        return
    loops = [node for node in nodes if isinstance(node, ast.Loop)]
    if len(loops) > MAX_LOOPS:
        yield loops[MAX_LOOPS].offset, f"more than {MAX_LOOPS} loops in one condition"
    if tree.type != "bool":
        yield tree.offset, f"a condition is true or false; this is of type {tree.type}"
    yield from _misread_has(nodes, text)
    for node in nodes:
        yield from _node_mistakes(node, vocabulary)


def _node_mistakes(node: ast.Node, vocabulary: Vocabulary) -> Iterator[Mistake]:
    match node:
        case ast.Variable(name=name, offset=offset) if name not in vocabulary.variables:
            yield offset, f"{name!r} is not a variable"
        case ast.MapKey(variable=name) | ast.HasKey(variable=name):
            if vocabulary.variables.get(name) is not ValueType.STRING_MAP:
                yield node.offset, f"{name!r} is not a map"
        case ast.Literal(value=float(value)) if not math.isfinite(value):
            yield node.offset, "this number is too large"
        case ast.ListOf(items=()):
            yield node.offset, "a list that is written out needs at least one element"
        case ast.ListOf(type=kind) if kind not in _LISTS:
            yield node.offset, "the elements of a list are all of one simple type"
        case ast.Loop():
            yield from _loop_mistakes(node, vocabulary)
        case ast.Call():
            yield from _call_mistakes(node, vocabulary)
        case _:
            return


def _call_mistakes(node: ast.Call, vocabulary: Vocabulary) -> Iterator[Mistake]:
    function, kinds = node.function, [argument.type for argument in node.args]
    if function in _COMPARISONS or function == ast.TERNARY:
        if not _SCALARS.issuperset(kinds):
            yield (
                node.offset,
                "only simple values can be compared or chosen; use 'in', has_any() or has_all()",
            )
    elif function == ast.INDEX:
        if kinds[0] != _MAP:
            yield node.offset, "an element of a list cannot be taken by its number; use 'in' or a loop"
    elif function in _ARITHMETIC:
        if not _SCALARS.issuperset(kinds):
            yield node.offset, "lists cannot be added"
    elif function in FUNCTIONS:
        yield from _function_mistakes(node, vocabulary)
        return
    elif function not in _LOGIC and function != ast.IN:
        yield node.offset, f"{function}() is not part of the condition language"
        return
    if function not in _LOGIC:
        yield from _constant_mistakes(node, vocabulary)


def _function_mistakes(node: ast.Call, vocabulary: Vocabulary) -> Iterator[Mistake]:
    """Check what must be written out, and that it works."""
    if node.function in HELPERS:
        yield from HELPERS[node.function].check(node)
        return
    last = node.args[-1]
    if node.function in GETTERS and len(node.args) > 1:
        if not isinstance(last, ast.Literal):
            yield last.offset, "a time zone must be written out"
        elif not _is_zone(str(last.value), vocabulary):
            yield last.offset, f"there is no time zone {str(last.value)[:40]!r}"
    elif node.function == "matches":
        if not isinstance(last, ast.Literal):
            yield last.offset, "a pattern must be written out"
        elif len(str(last.value)) > MAX_PATTERN:
            yield last.offset, f"the pattern is longer than {MAX_PATTERN} characters"
        elif error := constant_error(f"''.matches({quote(str(last.value))})", vocabulary):
            yield last.offset, error
    elif node.function in _PARTS_OF_TEXT and isinstance(last, ast.Literal) and not last.value:
        yield last.offset, f"{node.function}('') is true for every text"
    else:
        yield from _constant_mistakes(node, vocabulary)


def _constant_mistakes(node: ast.Call, vocabulary: Vocabulary) -> Iterator[Mistake]:
    """Refuse a call of literals alone that can only fail, such as ``timestamp('soon')`` or ``1 / 0``."""
    parts = ast.walk(node)
    if all(isinstance(part, ast.Literal | ast.ListOf | ast.Call) for part in parts) and (
        error := constant_error(render(node), vocabulary)
    ):
        yield node.offset, f"this always fails: {error}"


def _loop_mistakes(loop: ast.Loop, vocabulary: Vocabulary) -> Iterator[Mistake]:
    over, roots = loop.over, {name.partition(".")[0] for name in vocabulary.variables}
    if not (
        (isinstance(over, ast.Variable) and vocabulary.variables.get(over.name) is ValueType.STRINGS)
        or (isinstance(over, ast.ListOf) and all(isinstance(item, ast.Literal) for item in over.items))
    ):
        yield over.offset, "a loop runs over a list variable, or over a list of literals"
    if loop.local in roots or loop.local in FUNCTIONS:
        yield loop.offset, f"the loop's variable {loop.local!r} hides another name"
    for part in ast.walk(loop):
        if isinstance(part, ast.Call) and part.function in _ARITHMETIC:
            yield part.offset, "nothing can be added or computed inside a loop"


def _misread_has(nodes: list[ast.Node], text: str) -> Iterator[Mistake]:
    """Refuse ``has(variable)``: CEL reads it as the variable's value, not as its presence."""
    written = macros_named_has(text)
    if len(written) != sum(isinstance(node, ast.HasKey) and node.is_macro for node in nodes):
        yield (written or [0])[0], "has() asks for a key of a map; a variable cannot be asked for"


def _is_zone(name: str, vocabulary: Vocabulary) -> bool:
    """Tell whether both Python and CEL know the zone; CEL alone would also read files and strange offsets."""
    if not _OFFSET.fullmatch(name):
        if not _ZONE.fullmatch(name):
            return False
        try:
            zoneinfo.ZoneInfo(name)
        except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
            return False
    probe = f"timestamp('2026-01-01T00:00:00Z').getHours({quote(name)}) >= 0"
    return constant_error(probe, vocabulary) is None
