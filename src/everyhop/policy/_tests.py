# SPDX-License-Identifier: Apache-2.0
"""The ``tests`` part: calls, with the facts that they are made under, and the answers they must get."""

from __future__ import annotations

import ipaddress
import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from everyhop.conditions import ValueType
from everyhop.core.errors import InputError
from everyhop.policy import _grammar as g
from everyhop.policy._attributes import read_attributes, read_value
from everyhop.policy._fields import has_keys, read_fields, read_match, read_name, read_text
from everyhop.policy._nodes import Items, Node, Table, Text, kind_of
from everyhop.policy.facts import MULTI_FACTOR, Context, Resource, User
from everyhop.policy.model import OUTSIDE, PolicyTest, RuleEffect
from everyhop.spiffe.ids import SpiffeId

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from everyhop.policy._directory import DirectoryReader
    from everyhop.policy._problems import Problems
    from everyhop.policy._services import Draft
    from everyhop.policy.facts import Value
    from everyhop.policy.vocabulary import Attribute, Attributes

_Fields = dict[str, tuple[Text, Node]]
SOMEONE = "someone"
"""The id of a test's user who is given none."""


class TestReader:
    """Reads tests against the services and attributes that are declared in the whole policy."""

    __test__ = False  # not a test case of pytest

    def __init__(
        self,
        services: Mapping[str, Draft],
        attributes: Attributes,
        directory: DirectoryReader,
        problems: Problems,
    ) -> None:
        self._services = services
        self._attributes = attributes
        self._directory = directory
        self._problems = problems

    def test(self, node: Node, index: int) -> PolicyTest | None:
        """Read one entry of ``tests``; None after noting what is wrong."""
        position = f"tests[{index}]"
        fields = dict(read_fields(node, g.TEST_KEYS, position, self._problems))
        if not has_keys(fields, ("from", "to", "expect"), node, position, self._problems):
            return None
        if ("call" in fields) == ("tcp" in fields):
            self._problems.add("value", node.span, f"{position}: give either call or tcp: true")
            return None
        method = path = None
        if "call" in fields:
            call = self._call(fields["call"][1], position)
            if call is None:
                return None
            method, path = call
        else:
            expected = "true (leave the key out otherwise)"
            read_match(fields["tcp"][1], "true", f"{position}: tcp", expected, self._problems)
        caller = self._caller(fields["from"][1], position)
        target = read_name(fields["to"][1], self._services, f"{position}: to", self._problems)
        where = f"{position}: expect"
        expect = read_match(fields["expect"][1], "allow|deny", where, "allow or deny", self._problems)
        context = self._context(fields, position)
        if caller is None or target is None or expect is None:
            return None
        return PolicyTest(
            caller=caller,
            target=target,
            method=method,
            path=path,
            expect=RuleEffect(expect),
            context=context,
            span=node.span,
        )

    def _call(self, node: Node, position: str) -> tuple[str, str] | None:
        text = read_text(node, f"{position}: call", self._problems)
        if text is None:
            return None
        method, space, path = text.partition(" ")
        is_method = re.fullmatch(g.METHOD_NAME, method, re.ASCII)
        if not space or not path or not is_method or len(text) > g.MAX_CALL:
            message = f"{position}: call: {text[:60]!r} is not METHOD /path"
            self._problems.add("value", node.span, message, "for example GET /orders/7")
            return None
        return method, path

    def _caller(self, node: Node, position: str) -> str | None:
        """Return a declared service, ``outside``, or the text of a SPIFFE ID (to show that it is refused)."""
        if isinstance(node, Text) and node.value == OUTSIDE:
            return OUTSIDE
        if isinstance(node, Text) and node.value.startswith("spiffe://"):
            try:
                return str(SpiffeId.parse(node.value))
            except InputError as error:
                self._problems.add("value", node.span, f"{position}: from: {error.message}", error.hint)
                return None
        return read_name(node, self._services, f"{position}: from", self._problems)

    # -- the facts

    def facts(self, node: Node) -> Context:
        """Read facts that stand by themselves, with the keys that they have in a test."""
        return self._context(dict(read_fields(node, g.FACT_KEYS, "facts", self._problems)), "facts")

    def _context(self, fields: _Fields, position: str) -> Context:
        facts = {key: fields[key][1] for key in g.FACT_KEYS if key in fields}
        return Context(
            now=self._moment(facts["at"], f"{position}: at") if "at" in facts else None,
            user=self._user(facts["user"], f"{position}: user") if "user" in facts else None,
            device=self._device(facts["device"], f"{position}: device")
            if "device" in facts
            else MappingProxyType({}),
            headers=self._headers(facts["headers"], f"{position}: headers")
            if "headers" in facts
            else MappingProxyType({}),
            source_ip=self._address(facts["source_ip"], f"{position}: source_ip")
            if "source_ip" in facts
            else None,
            resource=self._resource(facts["resource"], f"{position}: resource")
            if "resource" in facts
            else None,
        )

    def _moment(self, node: Node, where: str) -> datetime | None:
        found = read_value(node, ValueType.TIMESTAMP, where, self._problems)
        return found if not isinstance(found, (bool, int, float, str, tuple)) else None

    def _user(self, node: Node, where: str) -> User:
        declared = self._attributes.of("user")
        fields, attributes = self._split(node, g.TEST_USER_KEYS, declared, where)
        texts = {key: self._text(fields, key, where) for key in ("id", "issuer", "acr")}
        return User(
            id=texts["id"] or SOMEONE,
            issuer=texts["issuer"],
            acr=texts["acr"],
            roles=self._directory.read_roles(fields["roles"], f"{where}: roles") if "roles" in fields else (),
            amr=self._amr(fields, where),
            auth_time=self._moment(fields["auth_time"], f"{where}: auth_time")
            if "auth_time" in fields
            else None,
            attributes=attributes,
        )

    def _amr(self, fields: Mapping[str, Node], where: str) -> tuple[str, ...] | None:
        if "mfa" in fields:
            if "amr" in fields:
                self._problems.add("conflict", fields["mfa"].span, f"{where}: give either mfa or amr")
            value = read_value(fields["mfa"], ValueType.BOOL, f"{where}: mfa", self._problems)
            return (MULTI_FACTOR,) if value is True else ()
        if "amr" not in fields:
            return None
        found = read_value(fields["amr"], ValueType.STRINGS, f"{where}: amr", self._problems)
        return found if isinstance(found, tuple) else None

    def _device(self, node: Node, where: str) -> Mapping[str, Value]:
        return read_attributes(node, self._attributes.of("device"), where, self._problems)

    def _resource(self, node: Node, where: str) -> Resource:
        fields, attributes = self._split(node, g.TEST_RESOURCE_KEYS, self._attributes.of("resource"), where)
        return Resource(
            type=self._text(fields, "type", where),
            id=self._text(fields, "id", where),
            attributes=attributes,
        )

    def _headers(self, node: Node, where: str) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for name, (_, value) in read_fields(node, self._attributes.headers, where, self._problems).items():
            if isinstance(value, Items):
                texts = read_value(value, ValueType.STRINGS, f"{where}: {name}", self._problems)
                found[name] = texts if isinstance(texts, tuple) else ()
            else:
                text = read_value(value, ValueType.STRING, f"{where}: {name}", self._problems)
                found[name] = () if text is None else (str(text),)
        return MappingProxyType(found)

    def _address(self, node: Node, where: str) -> str | None:
        text = read_text(node, where, self._problems)
        if text is None:
            return None
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            self._problems.add("value", node.span, f"{where}: {text[:60]!r} is no IP address")
            return None

    def _text(self, fields: Mapping[str, Node], key: str, where: str) -> str | None:
        if key not in fields:
            return None
        return read_match(fields[key], g.SUBJECT, f"{where}: {key}", "one line of text", self._problems)

    def _split(
        self, node: Node, keys: tuple[str, ...], declared: Mapping[str, Attribute], where: str
    ) -> tuple[dict[str, Node], Mapping[str, Value]]:
        """Return the fields that every such thing has, and the attributes that stand beside them."""
        if not isinstance(node, Table):
            self._problems.add("type", node.span, f"{where}: expected a mapping, found {kind_of(node)}")
            return {}, MappingProxyType({})
        known = read_fields(node, (*keys, *declared), where, self._problems)
        values: dict[str, Value] = {}
        for name, (_, item) in known.items():
            if name in keys:
                continue
            value = read_value(item, declared[name].type, f"{where}: {name}", self._problems)
            if value is not None:
                values[name] = value
        fields = {name: item for name, (_, item) in known.items() if name in keys}
        return fields, MappingProxyType(dict(sorted(values.items())))
