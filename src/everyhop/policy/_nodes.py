# SPDX-License-Identifier: Apache-2.0
"""A document as nodes with positions: text, lists and mappings, nothing else.

Every scalar is text, so YAML 1.1's guesses (``no``, ``on``, ``0o17``, dates) cannot change what a policy
means.  Nodes come from YAML (:mod:`everyhop.policy._yaml`) or from the canonical JSON of a snapshot.
"""

from __future__ import annotations

from typing import NamedTuple

from everyhop.core.problems import Span


class Text(NamedTuple):
    """A scalar; ``plain`` tells an unquoted one, so that an absent value can be told from ``""``."""

    value: str
    file: str
    line: int
    column: int
    plain: bool = False

    @property
    def span(self) -> Span:
        """Return the position."""
        return Span(file=self.file, line=self.line, column=self.column)

    @property
    def is_absent(self) -> bool:
        """Tell whether nothing was written where a value belongs (``key:``)."""
        return self.plain and not self.value


class Items(NamedTuple):
    """A list."""

    items: tuple[Node, ...]
    file: str
    line: int
    column: int

    @property
    def span(self) -> Span:
        """Return the position."""
        return Span(file=self.file, line=self.line, column=self.column)


class Table(NamedTuple):
    """A mapping, its keys in the order written and unique."""

    entries: tuple[tuple[Text, Node], ...]
    file: str
    line: int
    column: int

    @property
    def span(self) -> Span:
        """Return the position."""
        return Span(file=self.file, line=self.line, column=self.column)


Node = Text | Items | Table


def kind_of(node: Node) -> str:
    """Name what a node is, for messages."""
    if isinstance(node, Items):
        return "a list"
    if isinstance(node, Table):
        return "a mapping"
    return "nothing" if node.is_absent else f"the text {node.value[:60]!r}"
