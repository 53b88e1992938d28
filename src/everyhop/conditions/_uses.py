# SPDX-License-Identifier: Apache-2.0
"""What a condition reads: its variables, the keys of its maps, and how each value has to be converted for it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from everyhop.conditions import ast
from everyhop.conditions._values import Slot
from everyhop.conditions.model import ValueType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.conditions.model import Vocabulary


def variables_of(tree: ast.Node) -> frozenset[str]:
    """Return the dotted names of all variables that are read."""
    return frozenset(name for node in ast.walk(tree) if (name := _variable(node)) is not None)


def keys_of(tree: ast.Node) -> Mapping[str, frozenset[str]]:
    """Return, for each map, the literal keys that are read or asked for."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.MapKey | ast.HasKey):
            found.setdefault(node.variable, set()).add(node.key)
    return MappingProxyType({name: frozenset(keys) for name, keys in sorted(found.items())})


def dynamic_maps_of(tree: ast.Node, vocabulary: Vocabulary) -> frozenset[str]:
    """Return the maps of which every entry matters: a computed key, or the size."""
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Variable) and vocabulary.variables[node.name] is ValueType.STRING_MAP
    )


def slots_of(tree: ast.Node, vocabulary: Vocabulary) -> tuple[Slot, ...]:
    """Return how to convert the value of each variable that is read, by name."""
    keys, dynamic = keys_of(tree), dynamic_maps_of(tree, vocabulary)
    looped = {
        node.name
        for loop in ast.walk(tree)
        if isinstance(loop, ast.Loop)
        for node in ast.walk(loop)
        if isinstance(node, ast.Variable)
    }
    return tuple(
        Slot(
            name=name,
            type=vocabulary.variables[name],
            keys=None if name in dynamic else keys.get(name),
            is_looped=name in looped,
        )
        for name in sorted(variables_of(tree))
    )


def _variable(node: ast.Node) -> str | None:
    if isinstance(node, ast.Variable):
        return node.name
    if isinstance(node, ast.MapKey | ast.HasKey):
        return node.variable
    return None
