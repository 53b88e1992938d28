# SPDX-License-Identifier: Apache-2.0
"""YAML text to nodes, from parser events, with limits on size, depth and count.

Events are read in a loop and not composed by the library: its composer recurses in C, so deep nesting in a
hostile file could end the process, and it resolves aliases before anyone can refuse them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from everyhop.core.collector import collector_paused
from everyhop.core.problems import Span
from everyhop.policy._nodes import Items, Node, Table, Text
from everyhop.policy._problems import Problems

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
MAX_DEPTH: Final = 12  # the deepest valid policy has 7
MAX_NODES: Final = 1_000_000

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
# Control characters, line separators that editors and parsers count differently, and the marks that reorder
# text on screen, so that a reviewer reads something else than the parser ("Trojan Source").
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]"
)
_ROUTE_IN_FLOW = re.compile(r"[\[{].*\b[A-Z]+ /\S*\{")


def read_yaml(name: str, content: bytes, problems: Problems) -> Node | None:
    """Return the one document of a file, or None after noting why not.

    ``content`` is UTF-8 (a leading byte-order mark is ignored), at most 4 MiB, at most 12 levels deep.
    """
    text = _decode(name, content, problems)
    if text is None:
        return None
    builder = _Builder(name, problems)
    try:
        with collector_paused():
            is_whole = _feed(builder, text)
    except yaml.YAMLError as error:
        _note_syntax(name, text, error, problems)
        return None
    return builder.result() if is_whole else None


def _feed(builder: _Builder, text: str) -> bool:
    """Give the events of a text to the builder; False when it wants no more of them."""
    loader = _LOADER(text)
    take, next_event = builder.take, loader.get_event
    try:
        while (event := next_event()) is not None:
            if not take(event):
                return False
    finally:
        loader.dispose()
    return True


def _decode(name: str, content: bytes, problems: Problems) -> str | None:
    if len(content) > MAX_FILE_BYTES:
        problems.add(
            "too-large",
            Span(file=name, line=1, column=1),
            f"a policy file has at most {MAX_FILE_BYTES} bytes",
        )
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace")
        problems.add("not-utf8", _place(name, before, len(before)), "this is not UTF-8 text")
        return None
    bad = _FORBIDDEN.search(text)
    if bad:
        message = f"the character U+{ord(bad.group()):04X} is not allowed in a policy"
        problems.add("bad-character", _place(name, text, bad.start()), message)
        return None
    return text


def _place(name: str, text: str, index: int) -> Span:
    start = text.rfind("\n", 0, index) + 1
    return Span(file=name, line=text.count("\n", 0, index) + 1, column=index - start + 1)


def _note_syntax(name: str, text: str, error: yaml.YAMLError, problems: Problems) -> None:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line, column = (mark.line, mark.column) if mark else (0, 0)
    message = str(getattr(error, "problem", None) or "this is not YAML")
    lines = text.splitlines()
    here = lines[line] if line < len(lines) else ""
    hint = None
    if here[column : column + 1] == "\t":
        message, hint = "a tab cannot indent YAML", "use spaces"
    elif _ROUTE_IN_FLOW.search(here):
        hint = 'inside [ ] or { } a route with {…} needs quotes: "GET /orders/{id}"'
    problems.add("syntax", Span(file=name, line=line + 1, column=column + 1), message, hint)


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not been read yet."""

    line: int
    column: int
    is_table: bool
    items: list[Node] = field(default_factory=list)
    entries: list[tuple[Text, Node]] = field(default_factory=list)
    keys: dict[str, Text] = field(default_factory=dict)
    key: Text | None = None


class _Builder:
    """Builds nodes from events, and refuses what the policy language leaves out of YAML."""

    def __init__(self, name: str, problems: Problems) -> None:
        self._name = name
        self._problems = problems
        self._stack: list[_Open] = []
        self._root: Node | None = None
        self._documents = 0
        self._count = 0
        self._is_sound = True
        self._is_full = problems.is_full

    def result(self) -> Node | None:
        """Return the document, or None when something was refused."""
        if self._documents == 0:
            self._refuse("empty", Span(file=self._name, line=1, column=1), "the file holds no policy")
        return self._root if self._is_sound else None

    def take(self, event: Any) -> bool:
        """Take the next event; False ends the reading, because a limit is exceeded."""
        # A large policy is a million events, nine of ten of them scalars, hence this order, and no span without need.
        kind = type(event)
        if kind is yaml.ScalarEvent:
            if event.anchor is not None or event.tag is not None:
                self._check_decoration(event)
            mark = event.start_mark
            return self._add(
                Text(event.value, self._name, mark.line + 1, mark.column + 1, bool(event.implicit[0]))
            )
        if kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            if event.anchor is not None or event.tag is not None:
                self._check_decoration(event)
            return self._open(event, is_table=kind is yaml.MappingStartEvent)
        if kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            return self._close()
        if kind is yaml.DocumentStartEvent:
            return self._start_document(event)
        if kind is yaml.AliasEvent:
            span = self._span(event)
            self._refuse("alias", span, "aliases are not allowed", "write the value out")
            return self._add(Text("", span.file, span.line, span.column))
        return True

    def _span(self, event: Any) -> Span:
        mark = event.start_mark
        return Span(file=self._name, line=mark.line + 1, column=mark.column + 1)

    def _start_document(self, event: yaml.DocumentStartEvent) -> bool:
        span = self._span(event)
        self._documents += 1
        if event.version or event.tags:
            self._refuse(
                "directive", span, "YAML directives are not allowed", "remove the line that starts with %"
            )
        if self._documents > 1:
            self._refuse(
                "documents", span, "a file holds one document", "put the second into a file of its own"
            )
            return False
        return True

    def _check_decoration(self, event: Any) -> None:
        span = self._span(event)
        if event.anchor is not None:
            self._refuse("anchor", span, "anchors are not allowed", f"remove &{str(event.anchor)[:40]}")
        if event.tag is not None:
            self._refuse(
                "tag", span, "tags are not allowed", "every value is plain text, a list or a mapping"
            )

    def _open(self, event: Any, *, is_table: bool) -> bool:
        if len(self._stack) >= MAX_DEPTH:
            self._refuse("too-deep", self._span(event), f"a policy nests at most {MAX_DEPTH} levels")
            return False
        mark = event.start_mark
        self._stack.append(_Open(mark.line + 1, mark.column + 1, is_table))
        return True

    def _close(self) -> bool:
        top = self._stack.pop()
        if top.is_table:
            return self._add(Table(tuple(top.entries), self._name, top.line, top.column))
        return self._add(Items(tuple(top.items), self._name, top.line, top.column))

    def _add(self, node: Node) -> bool:
        self._count += 1
        if self._count > MAX_NODES:
            self._refuse("too-large", node.span, f"a policy file holds at most {MAX_NODES} values")
            return False
        if not self._stack:
            self._root = node
            return True
        top = self._stack[-1]
        if not top.is_table:
            top.items.append(node)
        elif top.key is None:
            top.key = self._key(top, node)
        else:
            if top.keys.get(top.key.value) is top.key:
                top.entries.append((top.key, node))
            top.key = None
        return not self._is_full

    def _key(self, top: _Open, node: Node) -> Text:
        if not isinstance(node, Text):
            self._refuse("key", node.span, "a key is plain text, not a list or mapping")
            return Text("", self._name, node.line, node.column)
        if node.value == "<<":
            self._refuse("merge", node.span, "merge keys are not allowed", "write the values out")
            return node
        first = top.keys.setdefault(node.value, node)
        if first is not node:
            self._refuse(
                "duplicate-key",
                node.span,
                f"the key {node.value[:60]!r} is here twice",
                f"first in line {first.line}",
            )
        return node

    def _refuse(self, code: str, span: Span, message: str, suggestion: str | None = None) -> None:
        # After these the rest of the file can still be judged; after the others a part of it is missing.
        if code not in {"anchor", "tag", "directive", "duplicate-key"}:
            self._is_sound = False
        self._problems.add(code, span, message, suggestion)
        self._is_full = self._problems.is_full
