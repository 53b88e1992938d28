# SPDX-License-Identifier: Apache-2.0
"""The syntax tree of a checked condition: a few typed nodes, made from CEL's CheckedExpr.

What is here is all that the profile can express, so a reader (a lowering to SQL or to Envoy, an analysis)
which knows each node class knows every condition.  Operators keep CEL's function names (``_&&_``, ``_==_``,
``@in``, ...); the target of a member call is the first of its ``args``.  Macros come back as ``Loop``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal as Choice

if TYPE_CHECKING:
    from collections.abc import Iterator

AND: Final = "_&&_"
OR: Final = "_||_"
NOT: Final = "!_"
TERNARY: Final = "_?_:_"
INDEX: Final = "_[_]"
IN: Final = "@in"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """``type`` is ``bool``, ``int``, ``double``, ``string``, ``timestamp``, ``duration``, ``list(T)`` or
    ``map(string, string)``, else the name of a type that the profile refuses; ``offset`` is the place in the
    text, in code points (of an operator for a binary one, of the bracket for a call); ``id`` is CEL's.
    """  # noqa: D205  # it opens with the names it explains

    type: str
    offset: int
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Literal(_Node):
    """A constant."""

    value: bool | int | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable(_Node):
    """A variable of the vocabulary, by its dotted name."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Local(_Node):
    """The element of the loop around it."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MapKey(_Node):
    """The value under a literal key of a map variable; an error of the evaluation when the key is absent."""

    variable: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HasKey(_Node):
    """Whether a map variable holds a literal key: ``has(m.key)`` (the macro) and ``'key' in m``, which mean the same."""

    variable: str
    key: str
    is_macro: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf(_Node):
    """A list that is written out."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(_Node):
    """An operator or function; with ``is_member`` it was written ``args[0].function(args[1:])``."""

    function: str
    args: tuple[Node, ...]
    is_member: bool


Macro = Choice["exists", "all", "exists_one", "map", "filter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop(_Node):
    """A macro: ``over.macro(local, body)``, or ``over.map(local, where, body)``.

    ``body`` is the predicate, for ``map`` the element's new value; ``where`` only stands in the second form.
    """

    macro: Macro
    local: str
    over: Node
    body: Node
    where: Node | None = None


Node = Literal | Variable | Local | MapKey | HasKey | ListOf | Call | Loop


def children(node: Node) -> tuple[Node, ...]:
    """Return the nodes directly below, in the order of the text."""
    match node:
        case ListOf(items=items):
            return items
        case Call(args=args):
            return args
        case Loop(over=over, body=body, where=where):
            return (over, body) if where is None else (over, where, body)
        case _:
            return ()


def walk(node: Node) -> Iterator[Node]:
    """Yield the node and all below it, parents first, in the order of the text."""
    pending = [node]
    while pending:
        current = pending.pop()
        yield current
        pending.extend(reversed(children(current)))
