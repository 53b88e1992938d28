# SPDX-License-Identifier: Apache-2.0
"""Conditions taken apart into the smallest truths, to tell which sample values are alike.

Two values of one name are alike when every part of every condition that reads that name alone says the same of both, and no
part reads it together with another name.  Of values that are alike, one is enough; so a product over many names stays
small and misses nothing that the samples could show.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from everyhop.conditions import ast, compile_condition
from everyhop.conditions.analysis import boundaries, values_of
from everyhop.conditions.rendering import name_of, render
from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from everyhop.conditions import Condition

_CONNECTIVES: Final = frozenset({ast.AND, ast.OR, ast.NOT})
_ORDER: Final = frozenset({"_<_", "_<=_", "_>_", "_>=_"})


@dataclass(frozen=True, slots=True)
class Atom:
    """A part without ``&&``, ``||`` or ``!`` around it: the names that it reads, and itself as a condition."""

    names: frozenset[str]
    condition: Condition | None


@lru_cache(maxsize=4096)
def atoms_of(condition: Condition) -> tuple[Atom, ...]:
    """Return the parts of a condition, from left to right."""
    return tuple(Atom(names_of(node), _compiled(render(node), condition)) for node in _parts(condition.tree))


@lru_cache(maxsize=4096)
def samples_of(condition: Condition) -> Mapping[str, tuple[object, ...]]:
    """Return the values at which a condition may turn, by name; computed once."""
    return boundaries(condition)


@lru_cache(maxsize=4096)
def is_sampled(condition: Condition) -> bool:
    """Tell whether the values at which it turns cannot all be known: a pattern, or two names in one comparison."""
    for node in ast.walk(condition.tree):
        if isinstance(node, ast.Call):
            if node.function == "matches":
                return True
            if node.function in _ORDER and all(names_of(arg) for arg in node.args):
                return True
    return False


def names_of(node: ast.Node) -> frozenset[str]:
    """Return the names that are read below a node, a key of a map by itself."""
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Variable):
            found.add(part.name)
        elif isinstance(part, ast.MapKey | ast.HasKey):
            found.add(name_of(part))
    return frozenset(found)


def unlike(name: str, values: Sequence[object], atoms: Iterable[Atom]) -> list[object]:
    """Return the values of a name without those that are like an earlier one."""
    about = [atom for atom in atoms if name in atom.names]
    if any(len(atom.names) > 1 or atom.condition is None for atom in about):
        return list(values)
    kept: dict[tuple[str, ...], object] = {}
    for value in values:
        said = tuple(
            str(atom.condition.evaluate(values_of(atom.condition, {name: value})).truth)
            for atom in about
            if atom.condition is not None
        )
        kept.setdefault(said, value)
    return list(kept.values())


def truths(atoms: Iterable[Atom], chosen: Mapping[str, object]) -> int:
    """Return how many parts hold for a choice of values."""
    return sum(
        atom.condition is not None
        and atom.condition.evaluate(values_of(atom.condition, chosen)).truth == "true"
        for atom in atoms
    )


def _parts(node: ast.Node) -> list[ast.Node]:
    if isinstance(node, ast.Call) and node.function in _CONNECTIVES:
        return [part for arg in node.args for part in _parts(arg)]
    return [node]


def _compiled(text: str, condition: Condition) -> Condition | None:
    try:
        return compile_condition(text, condition.vocabulary)
    except InputError:  # a part that is no condition by itself is only left out of this
        return None
