# SPDX-License-Identifier: Apache-2.0
"""Conditions of rules: compiled against the policy's names, and checked against the rule that they stand in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.conditions import ConditionError, compile_condition
from everyhop.core.problems import Span
from everyhop.policy import _grammar as g
from everyhop.policy._fields import read_text
from everyhop.policy.model import RuleEffect, SegmentKind, UserMode
from everyhop.policy.vocabulary import HEADERS, PATH_PARAMETERS, vocabulary_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from everyhop.conditions import Condition, Vocabulary
    from everyhop.policy._nodes import Node, Text
    from everyhop.policy._problems import Problems
    from everyhop.policy._services import Draft
    from everyhop.policy.model import Operation
    from everyhop.policy.vocabulary import Attributes


class ConditionReader:
    """Reads conditions; the same text is compiled once."""

    def __init__(self, services: Mapping[str, Draft], attributes: Attributes, problems: Problems) -> None:
        self._services = services
        self._attributes = attributes
        self._problems = problems
        self._vocabulary: Vocabulary | None = None
        self._compiled: dict[str, Condition] = {}

    def read(self, node: Node, position: str) -> Condition | None:
        """Return the condition, or None after noting what is wrong with it."""
        text = read_text(node, f"{position}: when", self._problems)
        if text is None:
            return None
        text = text.strip()
        if not text or len(text) > g.MAX_CONDITION:
            message = f"{position}: when: a condition has 1 to {g.MAX_CONDITION} characters"
            self._problems.add("value", node.span, message)
            return None
        found = self._compiled.get(text)
        if found is None:
            if self._vocabulary is None:
                self._vocabulary = vocabulary_of(self._attributes)
            try:
                found = self._compiled[text] = compile_condition(text, self._vocabulary)
            except ConditionError as error:
                for problem in error.problems:
                    span = _place(node, text, problem.line, problem.column)
                    self._problems.add(
                        "condition", span, f"{position}: when: {problem.message}", problem.suggestion
                    )
                return None
        return found

    def check(
        self,
        condition: Condition,
        key: Text,
        position: str,
        *,
        effect: RuleEffect,
        user: UserMode,
        targets: frozenset[str] | None,
        operations: frozenset[str] | None,
    ) -> None:
        """Note what a condition reads that calls of its rule never have."""
        users = sorted(name for name in condition.variables if name.startswith("user."))
        if effect is RuleEffect.ALLOW and user is UserMode.NONE and users:
            message = f"{position}: when: {users[0]} is read, but the rule is not for users"
            self._problems.add("conflict", key.span, message, "add user: required, or user: optional")
        if any(self._services[name].is_tcp for name in targets or ()):
            request = sorted(n for n in condition.variables if n.partition(".")[0] in {"request", "resource"})
            request = [name for name in request if name != "request.source_ip"]
            if request:
                message = f"{position}: when: bytes of a tcp service have no {request[0]}"
                self._problems.add("conflict", key.span, message)
        unknown = sorted(condition.keys.get(HEADERS, frozenset()) - set(self._attributes.headers))
        for name in unknown:
            message = f"{position}: when: the header {name[:60]!r} is not among those declared for conditions"
            hint = self._problems.guess(name, self._attributes.headers)
            hint = hint or "add it to attributes: {request: {headers: [...]}}"
            self._problems.add("condition", key.span, message, hint)
        for name in sorted(condition.keys.get(PATH_PARAMETERS, frozenset())):
            for service, operation in self._doors(targets, operations):
                known = [s.text for s in operation.route.segments if s.kind is not SegmentKind.LITERAL]
                if name not in known:
                    message = (
                        f"{position}: when: {service}.{operation.name} ({operation.route}) has no path "
                        f"parameter {name[:60]!r}"
                    )
                    self._problems.add("condition", key.span, message, self._problems.guess(name, known))
                    break

    def _doors(
        self, targets: frozenset[str] | None, operations: frozenset[str] | None
    ) -> Iterator[tuple[str, Operation]]:
        names: Iterable[str] = sorted(self._services) if targets is None else sorted(targets)
        for name in names:
            for operation in self._services[name].operations:
                if operations is None or operation.name in operations:
                    yield name, operation


def _place(node: Node, text: str, line: int, column: int) -> Span:
    """Return where a place in a condition is in the policy file; exact while the text stands on one line there."""
    if "\n" in text or line != 1:
        return node.span
    quoted = 0 if getattr(node, "plain", False) else 1
    return Span(file=node.file, line=node.line, column=node.column + quoted + column - 1)
