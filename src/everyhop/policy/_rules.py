# SPDX-License-Identifier: Apache-2.0
"""The ``allow``, ``deny`` and ``tests`` parts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from everyhop.core.errors import InputError
from everyhop.policy import _grammar as g
from everyhop.policy._fields import is_written, read_fields, read_match, read_text
from everyhop.policy._nodes import Items, Node, Text, kind_of
from everyhop.policy.model import ANY, OUTSIDE, PolicyTest, Rule, RuleEffect, UserMode
from everyhop.spiffe.ids import SpiffeId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.core.problems import Span
    from everyhop.policy._problems import Problems
    from everyhop.policy._services import Draft

_Fields = dict[str, tuple[Text, Node]]


class RuleReader:
    """Reads rules and tests against the services that are declared in the whole policy."""

    def __init__(self, services: Mapping[str, Draft], problems: Problems) -> None:
        self._services = services
        self._problems = problems
        self._ids: dict[str, Span] = {}
        self._operations_anywhere = frozenset(o for s in services.values() for o in s.operation_names)

    def rule(self, node: Node, effect: RuleEffect, index: int) -> Rule | None:
        """Read one entry of ``allow`` or ``deny``; None after noting what is wrong."""
        position = f"{effect}[{index}]"
        fields = dict(read_fields(node, g.RULE_KEYS, position, self._problems))
        if not self._has(fields, ("from", "to"), node, position):
            return None
        callers = self._names(fields["from"][1], f"{position}: from", is_caller=True)
        targets = self._names(fields["to"][1], f"{position}: to")
        return Rule(
            id=self._id(fields, position),
            effect=effect,
            callers=callers,
            targets=targets,
            operations=self._operations(fields, node, effect, targets, position),
            reason=self._reason(fields, position),
            user=self._user(fields, effect, targets, position),
            span=node.span,
        )

    def test(self, node: Node, index: int) -> PolicyTest | None:
        """Read one entry of ``tests``; None after noting what is wrong."""
        position = f"tests[{index}]"
        fields = dict(read_fields(node, g.TEST_KEYS, position, self._problems))
        if not self._has(fields, ("from", "to", "expect"), node, position):
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
            read_match(
                fields["tcp"][1],
                "true",
                f"{position}: tcp",
                "true (leave the key out otherwise)",
                self._problems,
            )
        caller = self._test_caller(fields["from"][1], position)
        target = self._name(fields["to"][1], f"{position}: to")
        expect = read_match(
            fields["expect"][1], "allow|deny", f"{position}: expect", "allow or deny", self._problems
        )
        if caller is None or target is None or expect is None:
            return None
        return PolicyTest(
            caller=caller, target=target, method=method, path=path, expect=RuleEffect(expect), span=node.span
        )

    def _has(self, fields: _Fields, keys: tuple[str, ...], node: Node, position: str) -> bool:
        missing = [key for key in keys if key not in fields and not is_written(key, node)]
        if missing:
            self._problems.add(
                "missing-key", node.span, f"{position}: {' and '.join(map(repr, missing))} missing"
            )
        return all(key in fields for key in keys)

    def _id(self, fields: _Fields, position: str) -> str:
        if "id" not in fields:
            return position
        node = fields["id"][1]
        expected = "an id: lower-case letters, digits, '_', '.' and '-', a letter first, at most 64"
        text = read_match(node, g.RULE_ID, f"{position}: id", expected, self._problems)
        if text is None:
            return position
        if text in self._ids:
            first = f"first at {self._ids[text]}"
            self._problems.add("duplicate", node.span, f"{position}: the id {text!r} is used twice", first)
        self._ids.setdefault(text, node.span)
        return text

    def _reason(self, fields: _Fields, position: str) -> str | None:
        if "reason" not in fields:
            return None
        node = fields["reason"][1]
        text = read_text(node, f"{position}: reason", self._problems)
        if text is None:
            return None
        text = text.strip()
        if not text or not text.isprintable() or len(text) > g.MAX_REASON:
            message = f"{position}: a reason is one line of at most {g.MAX_REASON} printable characters"
            self._problems.add("value", node.span, message)
        return text

    def _name(self, node: Node, where: str) -> str | None:
        name = read_text(node, where, self._problems)
        if name is not None and name not in self._services:
            suggestion = self._problems.guess(name, self._services)
            self._problems.add(
                "unknown-service", node.span, f"{where}: unknown service {name[:80]!r}", suggestion
            )
            return None
        return name

    def _user(
        self, fields: _Fields, effect: RuleEffect, targets: frozenset[str] | None, position: str
    ) -> UserMode:
        if "user" not in fields:
            return UserMode.NONE
        key, node = fields["user"]
        expected = "one of none, optional and required"
        text = read_match(node, "none|optional|required", f"{position}: user", expected, self._problems)
        if effect is RuleEffect.DENY:
            hint = "say it at the rule that allows the call"
            self._problems.add("conflict", key.span, f"{position}: a deny rule has no 'user'", hint)
        elif any(self._services[name].is_tcp for name in targets or ()):
            message = f"{position}: bytes of a tcp service carry no user"
            self._problems.add("conflict", key.span, message)
        return UserMode.NONE if text is None else UserMode(text)

    def _names(self, node: Node, where: str, *, is_caller: bool = False) -> frozenset[str] | None:
        """Return the services named (the known ones of them), or None for ``any``."""
        if isinstance(node, Text):
            if node.value == ANY:
                return None
            if is_caller and node.value == OUTSIDE:
                return frozenset({OUTSIDE})
            alone = self._name(node, where)
            return frozenset() if alone is None else frozenset({alone})
        if not isinstance(node, Items) or not node.items:
            found = "an empty list" if isinstance(node, Items) else kind_of(node)
            self._problems.add(
                "type", node.span, f"{where}: expected a service, a list of services or any, found {found}"
            )
            return frozenset()
        names: set[str] = set()
        for item in node.items:
            if isinstance(item, Text) and item.value == ANY:
                self._problems.add(
                    "value", item.span, f"{where}: 'any' stands alone", "write it without a list"
                )
                continue
            is_outside = is_caller and isinstance(item, Text) and item.value == OUTSIDE
            name = OUTSIDE if is_outside else self._name(item, where)
            if name in names:
                self._problems.add("duplicate", item.span, f"{where}: {name!r} is here twice")
            elif name is not None:
                names.add(name)
        return frozenset(names)

    def _operations(
        self, fields: _Fields, node: Node, effect: RuleEffect, targets: frozenset[str] | None, position: str
    ) -> frozenset[str] | None:
        """Return the operations named, or None for all; checks that each target has them."""
        tcp = sorted(name for name in targets or () if self._services[name].is_tcp)
        http = sorted(name for name in targets or () if not self._services[name].is_tcp)
        if "operations" not in fields:
            if effect is RuleEffect.ALLOW and (targets is None or http):
                who = f"service {http[0]!r}" if http else "'any'"
                hint = f"a list of names, or {g.ALL}"
                self._problems.add(
                    "missing-key", node.span, f"{position}: 'operations' missing for {who}", hint
                )
            return None
        key, value = fields["operations"]
        if tcp:
            message = f"{position}: {tcp[0]!r} is a tcp service and has no operations"
            self._problems.add(
                "conflict", key.span, message, "give it a rule of its own without 'operations'"
            )
            return None
        if isinstance(value, Text) and value.value == g.ALL:
            if effect is RuleEffect.ALLOW:
                self._check_all(key, http, position)
            return None
        return self._operation_names(value, targets, http, position)

    def _check_all(self, key: Text, http: list[str], position: str) -> None:
        for name in http:
            if not self._services[name].operation_names:
                message = f"{position}: service {name!r} has no operations to allow"
                self._problems.add("unknown-operation", key.span, message)

    def _operation_names(
        self, node: Node, targets: frozenset[str] | None, http: list[str], position: str
    ) -> frozenset[str]:
        if not isinstance(node, Items) or not node.items:
            found = "an empty list" if isinstance(node, Items) else kind_of(node)
            message = f"{position}: operations: expected a list of names or {g.ALL}, found {found}"
            hint = f"[{node.value[:60]}]" if isinstance(node, Text) and node.value else None
            self._problems.add("type", node.span, message, hint)
            return frozenset()
        names: set[str] = set()
        for item in node.items:
            name = read_text(item, f"{position}: operations", self._problems)
            if name is None:
                continue
            if name in names:
                self._problems.add("duplicate", item.span, f"{position}: operations: {name!r} is here twice")
            names.add(name)
            self._check_operation(name, item, targets, http, position)
        return frozenset(names)

    def _check_operation(
        self, name: str, item: Node, targets: frozenset[str] | None, http: list[str], position: str
    ) -> None:
        if targets is None:
            if name not in self._operations_anywhere:
                suggestion = self._problems.guess(name, self._operations_anywhere)
                message = f"{position}: no service has an operation {name[:80]!r}"
                self._problems.add("unknown-operation", item.span, message, suggestion)
            return
        for service in http:
            known = self._services[service].operation_names
            if name not in known:
                suggestion = self._problems.guess(name, known)
                message = f"{position}: service {service!r} has no operation {name[:80]!r}"
                self._problems.add("unknown-operation", item.span, message, suggestion)

    def _call(self, node: Node, position: str) -> tuple[str, str] | None:
        text = read_text(node, f"{position}: call", self._problems)
        if text is None:
            return None
        method, space, path = text.partition(" ")
        if (
            not space
            or not path
            or not re.fullmatch(g.METHOD_NAME, method, re.ASCII)
            or len(text) > g.MAX_CALL
        ):
            message = f"{position}: call: {text[:60]!r} is not METHOD /path"
            self._problems.add("value", node.span, message, "for example GET /orders/7")
            return None
        return method, path

    def _test_caller(self, node: Node, position: str) -> str | None:
        """Return a declared service, ``outside``, or the text of a SPIFFE ID (to show that it is refused)."""
        if isinstance(node, Text) and node.value == OUTSIDE:
            return OUTSIDE
        if isinstance(node, Text) and node.value.startswith("spiffe://"):
            try:
                return str(SpiffeId.parse(node.value))
            except InputError as error:
                self._problems.add("value", node.span, f"{position}: from: {error.message}", error.hint)
                return None
        return self._name(node, f"{position}: from")
