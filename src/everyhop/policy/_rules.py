# SPDX-License-Identifier: Apache-2.0
"""The ``allow``, ``deny`` and ``shadow`` parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.policy import _grammar as g
from everyhop.policy._fields import has_keys, read_fields, read_match, read_name, read_text
from everyhop.policy._nodes import Items, Node, Text, kind_of
from everyhop.policy.model import ANY, OUTSIDE, Edge, Mode, Rule, RuleEffect, UserMode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.conditions import Condition
    from everyhop.core.problems import Span
    from everyhop.policy._conditions import ConditionReader
    from everyhop.policy._problems import Problems
    from everyhop.policy._services import Draft

_Fields = dict[str, tuple[Text, Node]]


def read_mode(node: Node, where: str, problems: Problems) -> Mode:
    """Return the mode of a rule or of a policy."""
    text = read_match(node, "enforce|shadow", where, "enforce or shadow", problems)
    return Mode.ENFORCE if text is None else Mode(text)


class RuleReader:
    """Reads rules against the services that are declared in the whole policy."""

    def __init__(
        self, services: Mapping[str, Draft], conditions: ConditionReader, problems: Problems
    ) -> None:
        self._services = services
        self._conditions = conditions
        self._problems = problems
        self._ids: dict[str, Span] = {}
        self._operations_anywhere = frozenset(o for s in services.values() for o in s.operation_names)

    def rule(self, node: Node, effect: RuleEffect, index: int) -> Rule | None:
        """Read one entry of ``allow`` or ``deny``; None after noting what is wrong."""
        position = f"{effect}[{index}]"
        fields = dict(read_fields(node, g.RULE_KEYS, position, self._problems))
        if not has_keys(fields, ("from", "to"), node, position, self._problems):
            return None
        callers = self._names(fields["from"][1], f"{position}: from", is_caller=True)
        targets = self._names(fields["to"][1], f"{position}: to")
        self._check_canaries(effect, fields["to"][0], callers, targets, position)
        operations = self._operations(fields, node, effect, targets, position)
        user = self._user(fields, effect, targets, position)
        condition = self._condition(fields, position)
        if condition is not None:
            self._conditions.check(
                condition,
                fields["when"][0],
                position,
                effect=effect,
                user=user,
                targets=targets,
                operations=operations,
            )
        return Rule(
            id=self._id(fields, position),
            effect=effect,
            callers=callers,
            targets=targets,
            operations=operations,
            reason=self._reason(fields, position),
            user=user,
            when=None if condition is None else condition.text,
            mode=self._mode(fields, position),
            condition=condition,
            span=node.span,
        )

    def _check_canaries(
        self,
        effect: RuleEffect,
        key: Text,
        callers: frozenset[str] | None,
        targets: frozenset[str] | None,
        position: str,
    ) -> None:
        """Refuse to open a canary, or to let one call: any use of it has to be an alarm."""
        for names, does in ((targets, "open a canary"), (callers, "let a canary call")):
            found = sorted(n for n in names or () if n in self._services and self._services[n].is_canary)
            if found and effect is RuleEffect.ALLOW:
                message = f"{position}: no rule may {does}, and {found[0]!r} is one"
                self._problems.add("canary", key.span, message, "remove it from the rule")

    def edge(self, node: Node, index: int) -> Edge | None:
        """Read one entry of ``shadow``; None after noting what is wrong."""
        position = f"shadow[{index}]"
        fields = dict(read_fields(node, g.EDGE_KEYS, position, self._problems))
        if not has_keys(fields, ("from", "to"), node, position, self._problems):
            return None
        callers = self._names(fields["from"][1], f"{position}: from")
        targets = self._names(fields["to"][1], f"{position}: to")
        return Edge(callers=callers, targets=targets, span=node.span)

    def _condition(self, fields: _Fields, position: str) -> Condition | None:
        return self._conditions.read(fields["when"][1], position) if "when" in fields else None

    def _mode(self, fields: _Fields, position: str) -> Mode:
        if "mode" not in fields:
            return Mode.ENFORCE
        return read_mode(fields["mode"][1], f"{position}: mode", self._problems)

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
            alone = read_name(node, self._services, where, self._problems)
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
            name = OUTSIDE if is_outside else read_name(item, self._services, where, self._problems)
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
