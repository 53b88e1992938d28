# SPDX-License-Identifier: Apache-2.0
"""Read nodes as what the language expects at their place, noting each mistake with its position."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from everyhop.policy import _grammar as g
from everyhop.policy._nodes import Items, Node, Table, Text, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from everyhop.policy._problems import Problems


def read_fields(
    node: Node, known: Sequence[str], where: str, problems: Problems
) -> Mapping[str, tuple[Text, Node]]:
    """Return key node and value node by key; unknown keys and missing values are noted and left out.

    ``where`` names the place for people, e.g. ``service 'orders'``.
    """
    if not isinstance(node, Table):
        problems.add("type", node.span, f"{where}: expected a mapping, found {kind_of(node)}")
        return {}
    fields: dict[str, tuple[Text, Node]] = {}
    for key, value in node.entries:
        if key.value not in known:
            _note_unknown(key, known, where, problems)
        elif isinstance(value, Text) and value.is_absent:
            problems.add(
                "type",
                value.span,
                f"{where}: {key.value!r} has no value",
                "remove the key or give it a value",
            )
        else:
            fields[key.value] = (key, value)
    return fields


def is_written(key: str, node: Node) -> bool:
    """Tell whether a mapping has the key, with a good value or not; True for what is no mapping (noted already)."""
    return not isinstance(node, Table) or any(name.value == key for name, _ in node.entries)


def _note_unknown(key: Text, known: Sequence[str], where: str, problems: Problems) -> None:
    if key.value in g.LATER_KEYS:
        message = f"{where}: {key.value!r} is not supported yet in this version"
        problems.add("not-supported-yet", key.span, message, "remove it; it would not be enforced")
        return
    suggestion = problems.guess(key.value, known) or "known here: " + ", ".join(known)
    problems.add("unknown-key", key.span, f"{where}: unknown key {key.value[:60]!r}", suggestion)


def has_keys(
    fields: Mapping[str, tuple[Text, Node]],
    keys: tuple[str, ...],
    node: Node,
    position: str,
    problems: Problems,
) -> bool:
    """Tell whether all keys were read; one that is not written at all is noted."""
    missing = [key for key in keys if key not in fields and not is_written(key, node)]
    if missing:
        message = f"{position}: {' and '.join(map(repr, missing))} missing"
        problems.add("missing-key", node.span, message)
    return all(key in fields for key in keys)


def read_name(node: Node, services: Mapping[str, object], where: str, problems: Problems) -> str | None:
    """Return the name of a declared service, or None after noting that it is none."""
    name = read_text(node, where, problems)
    if name is not None and name not in services:
        suggestion = problems.guess(name, services)
        problems.add("unknown-service", node.span, f"{where}: unknown service {name[:80]!r}", suggestion)
        return None
    return name


def read_text(node: Node, where: str, problems: Problems) -> str | None:
    """Return a scalar's text, or None after noting that it is no scalar or empty."""
    if isinstance(node, Text) and node.value:
        return node.value
    problems.add("type", node.span, f"{where}: expected text, found {kind_of(node)}")
    return None


def read_match(node: Node, pattern: str, where: str, expected: str, problems: Problems) -> str | None:
    """Return a scalar that matches ``pattern`` as a whole; ``expected`` describes it for people."""
    text = read_text(node, where, problems)
    if text is not None and not re.fullmatch(pattern, text, re.ASCII):
        problems.add("value", node.span, f"{where}: {text[:60]!r} is not {expected}")
        return None
    return text


def read_number(node: Node, low: int, high: int, where: str, problems: Problems) -> int | None:
    """Return a decimal number without sign, leading zero or separators, between the bounds (inclusive)."""
    text = read_match(node, g.DECIMAL, where, f"a number from {low} to {high}", problems)
    if text is None:
        return None
    if not low <= int(text) <= high:
        problems.add("value", node.span, f"{where}: {text} is not between {low} and {high}")
        return None
    return int(text)


def read_items(node: Node, where: str, problems: Problems) -> tuple[Node, ...]:
    """Return the members of a non-empty list; empty after noting that there are none."""
    if not isinstance(node, Items):
        problems.add("type", node.span, f"{where}: expected a list, found {kind_of(node)}")
        return ()
    if not node.items:
        problems.add("empty", node.span, f"{where}: the list is empty", "remove the key")
    return node.items
