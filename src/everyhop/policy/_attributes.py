# SPDX-License-Identifier: Apache-2.0
"""The ``attributes`` part, and values of declared attributes wherever they are written."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from everyhop.conditions import ValueType
from everyhop.policy import _grammar as g
from everyhop.policy._fields import read_fields, read_items, read_match, read_text
from everyhop.policy._nodes import Items, Node, Table, Text, kind_of
from everyhop.policy.vocabulary import BUILT_IN, KINDS, Attribute, Attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from everyhop.policy._problems import Problems
    from everyhop.policy.facts import Value

_PREFIXES = {"service": ("caller", "target")}


class AttributeReader:
    """Reads declarations, over all files of a policy; ``attributes`` is what came out."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._kinds: dict[str, dict[str, Attribute]] = {kind: {} for kind in KINDS}
        self._headers: list[str] = []

    @property
    def attributes(self) -> Attributes:
        """Return all that was declared."""
        kinds = {kind: MappingProxyType(dict(sorted(found.items()))) for kind, found in self._kinds.items()}
        return Attributes(by_kind=MappingProxyType(kinds), headers=tuple(sorted(self._headers)))

    def read(self, node: Node) -> None:
        """Read the part of one file."""
        for key, (_, value) in read_fields(node, g.ATTRIBUTES_KEYS, "attributes", self._problems).items():
            if key == "request":
                self._request(value)
            else:
                self._kind(key, value)

    def _kind(self, kind: str, node: Node) -> None:
        where = f"attributes: {kind}"
        if not isinstance(node, Table) or not node.entries:
            self._problems.add("type", node.span, f"{where}: expected a mapping of names to types")
            return
        for key, value in node.entries:
            name = key.value
            if not re.fullmatch(g.ATTRIBUTE_NAME, name, re.ASCII):
                hint = "lower-case letters, digits and '_', a letter first, at most 64"
                self._problems.add("name", key.span, f"{where}: {name[:60]!r} cannot name an attribute", hint)
            elif any(f"{prefix}.{name}" in BUILT_IN for prefix in _PREFIXES.get(kind, (kind,))):
                self._problems.add("name", key.span, f"{where}: {name!r} has a meaning already")
            elif name in self._kinds[kind]:
                first = f"first at {self._kinds[kind][name].span}"
                self._problems.add("duplicate", key.span, f"{where}: {name!r} is declared twice", first)
            elif attribute := self._attribute(value, f"{where}: {name}", key):
                self._kinds[kind][name] = attribute

    def _attribute(self, node: Node, where: str, key: Text) -> Attribute | None:
        default_node: Node | None = None
        if isinstance(node, Table):
            fields = read_fields(node, ("type", "default"), where, self._problems)
            if "type" not in fields:
                self._problems.add("missing-key", node.span, f"{where}: 'type' missing")
                return None
            node, default_node = fields["type"][1], fields.get("default", (None, None))[1]
        expected = "one of " + ", ".join(g.ATTRIBUTE_TYPES)
        text = read_match(node, "|".join(g.ATTRIBUTE_TYPES), where, expected, self._problems)
        if text is None:
            return None
        kind = ValueType(text)
        default = None
        if default_node is not None:
            default = read_value(default_node, kind, f"{where}: default", self._problems)
        return Attribute(type=kind, default=default, span=key.span)

    def _request(self, node: Node) -> None:
        where = "attributes: request"
        fields = read_fields(node, ("headers",), where, self._problems)
        if "headers" not in fields:
            return
        for item in read_items(fields["headers"][1], f"{where}: headers", self._problems):
            expected = "the lower-case name of a header"
            name = read_match(item, g.HEADER_NAME, f"{where}: headers", expected, self._problems)
            if name is None:
                continue
            if name in g.RESERVED_HEADERS or name.startswith(g.RESERVED_HEADER_PREFIXES):
                message = f"{where}: headers: {name!r} is not for conditions"
                hint = "credentials, routing and identity headers have names of their own"
                self._problems.add("name", item.span, message, hint)
            elif name in self._headers:
                self._problems.add("duplicate", item.span, f"{where}: headers: {name!r} is here twice")
            else:
                self._headers.append(name)


def read_value(node: Node, kind: ValueType, where: str, problems: Problems) -> Value | None:
    """Return a value of a declared type, or None after noting that it is none."""
    if kind is ValueType.STRINGS:
        return _read_strings(node, where, problems)
    if kind is ValueType.STRING:
        if isinstance(node, Text) and not node.is_absent and len(node.value) <= g.MAX_ATTRIBUTE_TEXT:
            return node.value
        problems.add("type", node.span, f"{where}: expected text, found {kind_of(node)}")
        return None
    text = read_text(node, where, problems)
    if text is None:
        return None
    try:
        return _SCALARS[kind](text)
    except ValueError:
        problems.add("value", node.span, f"{where}: {text[:60]!r} is not {_EXPECTED[kind]}")
        return None


def read_attributes(
    node: Node, declared: Mapping[str, Attribute], where: str, problems: Problems
) -> Mapping[str, Value]:
    """Return a mapping of declared attributes with their values, without those noted as wrong."""
    found: dict[str, Value] = {}
    for name, (_, value) in read_fields(node, tuple(declared), where, problems).items():
        read = read_value(value, declared[name].type, f"{where}: {name}", problems)
        if read is not None:
            found[name] = read
    return MappingProxyType(dict(sorted(found.items())))


def _read_strings(node: Node, where: str, problems: Problems) -> tuple[str, ...] | None:
    if not isinstance(node, Items):
        problems.add("type", node.span, f"{where}: expected a list of texts, found {kind_of(node)}")
        return None
    texts = []
    for item in node.items:
        text = read_value(item, ValueType.STRING, where, problems)
        if text is None:
            return None
        texts.append(str(text))
    return tuple(texts)


def _bool(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(text)
    return text == "true"


def _int(text: str) -> int:
    if not re.fullmatch(r"-?(?:0|[1-9][0-9]{0,18})", text, re.ASCII) or not -(2**63) <= int(text) < 2**63:
        raise ValueError(text)
    return int(text)


def _double(text: str) -> float:
    if not re.fullmatch(
        r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?(?:[eE][+-]?[0-9]{1,3})?", text, re.ASCII
    ):
        raise ValueError(text)
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def read_moment(text: str) -> datetime:
    """Return an RFC 3339 time with a zone, in UTC; raises ValueError."""
    if not re.fullmatch(g.MOMENT, text, re.ASCII):
        raise ValueError(text)
    return datetime.fromisoformat(text).astimezone(UTC)


_SCALARS: Mapping[ValueType, Callable[[str], Value]] = {
    ValueType.BOOL: _bool,
    ValueType.INT: _int,
    ValueType.DOUBLE: _double,
    ValueType.TIMESTAMP: read_moment,
}
_EXPECTED = {
    ValueType.BOOL: "true or false",
    ValueType.INT: "a whole number of 64 bits",
    ValueType.DOUBLE: "a number",
    ValueType.TIMESTAMP: "a time such as 2026-01-02T03:04:05Z",
}
