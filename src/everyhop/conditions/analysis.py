# SPDX-License-Identifier: Apache-2.0
"""The values at which a condition may change its mind.

``boundaries`` reads the literals of a condition and gives, for each thing that it reads, the values on both sides of each:
enough to make test cases of, and to look for a difference between two conditions.  They are samples: where a condition
compares two variables in ways that no rule here knows, or by a pattern, the point where it turns may not be among them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from everyhop.conditions import _samples as samples, ast
from everyhop.conditions._cel import constant_value
from everyhop.conditions.model import ValueType
from everyhop.conditions.rendering import name_of, quote, render

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from everyhop.conditions.condition import Condition
    from everyhop.conditions.model import Vocabulary

MAX_VALUES: Final = 64
"""Values that are given for one name."""

_COMPARISONS: Final = frozenset({"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"})
_DEFAULTS: Final[dict[ValueType, tuple[object, ...]]] = {
    ValueType.BOOL: (False, True),
    ValueType.INT: (0, 1),
    ValueType.DOUBLE: (0.0, 1.0),
    ValueType.STRING: ("a", "b"),
    ValueType.STRINGS: ((), ("a",), ("a", "b")),
    ValueType.TIMESTAMP: (samples.NOON, samples.NOON + timedelta(hours=12)),
    ValueType.STRING_MAP: ({}, {"a": "a"}),
}
_KEY_DEFAULTS: Final = (None, "a", "b")

Found = tuple[str, tuple[object, ...]]


def boundaries(condition: Condition) -> Mapping[str, tuple[object, ...]]:
    """Return the interesting values of each variable, and of each ``map['key']`` where None stands for an absent key.

    Deterministic; at most 64 values a name; each name that the condition reads is there.  Lists are tuples.
    """
    found: dict[str, dict[str, object]] = {}

    def add(name: str, values: tuple[object, ...]) -> None:
        kept = found.setdefault(name, {})
        for value in values:
            if len(kept) < MAX_VALUES:
                kept.setdefault(repr(value), value)

    words = condition.vocabulary
    for name, values in _tree(condition.tree, words):
        add(name, values)
    for node in ast.walk(condition.tree):
        if isinstance(node, ast.Variable):
            add(node.name, _DEFAULTS[words.variables[node.name]])
        elif isinstance(node, ast.MapKey | ast.HasKey):
            add(name_of(node), _KEY_DEFAULTS)
    return MappingProxyType({name: tuple(kept.values()) for name, kept in sorted(found.items())})


def values_of(condition: Condition, chosen: Mapping[str, object]) -> dict[str, object]:
    """Return the values for an evaluation from one choice for each name of ``boundaries``."""
    values: dict[str, object] = {name: value for name, value in chosen.items() if name in condition.variables}
    for variable, keys in condition.keys.items():
        entries = dict(values.get(variable) or {})  # type: ignore[call-overload]  # a map variable's sample is a map
        for key in sorted(keys):
            if (value := chosen.get(f"{variable}[{quote(key)}]")) is not None:
                entries[key] = value
        values[variable] = entries
    return values


def _tree(tree: ast.Node, words: Vocabulary) -> Iterator[Found]:
    """Yield names with values, from all of a tree; the insides of a loop speak of its list."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Loop):
            yield from _loop(node, words)
            continue
        if isinstance(node, ast.Call):
            yield from _call(node, words)
        pending.extend(reversed(ast.children(node)))


def _loop(loop: ast.Loop, words: Vocabulary) -> Iterator[Found]:
    elements: list[object] = []
    for part in (loop.body,) if loop.where is None else (loop.where, loop.body):
        for name, values in _tree(part, words):
            if name == loop.local:
                elements += values
            else:
                yield name, values
    if isinstance(loop.over, ast.Variable) and elements:
        unique = tuple(dict.fromkeys(elements))
        yield loop.over.name, ((), *((element,) for element in unique), unique)


def _call(call: ast.Call, words: Vocabulary) -> Iterator[Found]:
    function, args = call.function, call.args
    if function in _COMPARISONS:
        yield from _compared(args[0], args[1], words)
        yield from _compared(args[1], args[0], words)
    elif function == ast.IN:
        yield from _membership(args[0], args[1])
    elif function in {"has_role", "has_any", "has_all"}:
        if (name := _name(args[0])) and (wanted := _strings(args[1])):
            yield name, samples.around_list(wanted)
    elif function == "in_cidr":
        if (name := _name(args[0])) and isinstance(args[1], ast.Literal):
            yield name, samples.around_network(str(args[1].value))
    elif function in {"startsWith", "starts_with_any", "endsWith", "contains", "matches"} and (
        name := _name(args[0])
    ):
        for text in _strings(args[1]):
            yield name, (*samples.around_text(text), f"~{text}", f"~{text}~", "")


def _compared(left: ast.Node, right: ast.Node, words: Vocabulary) -> Iterator[Found]:
    """Yield what a comparison of ``left`` with a constant, or of two things that are read, makes interesting."""
    value = _constant(right, words)
    if value is None:
        return
    if name := _name(left):
        yield name, _around(value)
    elif isinstance(left, ast.Call):
        yield from _derived(left, value, words)


def _derived(call: ast.Call, value: object, words: Vocabulary) -> Iterator[Found]:
    """The same for what is computed: a size, a part of a moment, the time between two moments."""
    args, name = call.args, _name(call.args[0])
    if call.function == "size" and name and isinstance(value, int):
        make = {"string": samples.text_of, "list(string)": samples.list_of}.get(args[0].type, samples.map_of)
        yield name, samples.sizes(value, make)
    elif call.function.startswith("get") and name and args[0].type == "timestamp" and isinstance(value, int):
        zone = str(args[1].value) if len(args) > 1 and isinstance(args[1], ast.Literal) else "UTC"
        yield name, samples.around_clock(call.function, value, zone)
    elif call.function == "_-_" and isinstance(value, timedelta):
        yield from _apart(args[0], args[1], value, words)
    elif call.function in {"_+_", "_-_"} and isinstance(value, datetime) and name:
        shift = _constant(args[1], words)
        if isinstance(shift, timedelta):
            yield name, samples.around_moment(value - shift if call.function == "_+_" else value + shift)


def _apart(later: ast.Node, earlier: ast.Node, apart: timedelta, words: Vocabulary) -> Iterator[Found]:
    """The same for two moments that are a time apart; where both are read, the later one is taken for fixed."""
    start, end = _name(earlier), _name(later)
    known_start, known_end = _constant(earlier, words), _constant(later, words)
    if end and isinstance(known_start, datetime):
        yield end, samples.around_moment(known_start + apart)
    elif start:
        if end:
            yield end, (samples.NOON,)
        fixed = known_end if isinstance(known_end, datetime) else samples.NOON
        yield start, samples.around_moment(fixed - apart)


def _membership(element: ast.Node, container: ast.Node) -> Iterator[Found]:
    name = _name(element)
    if name and isinstance(container, ast.ListOf):
        members = tuple(item.value for item in container.items if isinstance(item, ast.Literal))
        for member in members:
            yield name, (member,)
        if members:
            last = max(members, key=lambda member: (str(type(member)), member))
            yield name, _around(last)
    elif (holder := _name(container)) and isinstance(element, ast.Literal):
        yield holder, samples.around_list((str(element.value),))


def _around(value: object) -> tuple[object, ...]:
    match value:
        case bool():
            return (False, True)
        case int():
            return samples.around_int(value)
        case float():
            return samples.around_double(value)
        case str():
            return samples.around_text(value)
        case datetime():
            return samples.around_moment(value)
        case _:
            return ()


def _name(node: ast.Node) -> str | None:
    """Return the name of what is read: a variable, a literal key of a map, the element of the loop."""
    match node:
        case ast.Variable(name=name) | ast.Local(name=name):
            return name
        case ast.MapKey():
            return name_of(node)
        case _:
            return None


def _strings(node: ast.Node) -> tuple[str, ...]:
    literals = node.items if isinstance(node, ast.ListOf) else (node,)
    return tuple(str(literal.value) for literal in literals if isinstance(literal, ast.Literal))


def _constant(node: ast.Node, words: Vocabulary) -> object:
    """Return the value of a part that reads nothing, or None."""
    if isinstance(node, ast.Literal):
        return node.value
    if isinstance(node, ast.Call) and all(
        isinstance(part, ast.Literal | ast.Call) for part in ast.walk(node)
    ):
        return constant_value(render(node), words)
    return None
