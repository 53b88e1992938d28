# SPDX-License-Identifier: Apache-2.0
"""The ``roles`` part: what people may do, as grants of ``service.operation``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from everyhop.policy import _grammar as g
from everyhop.policy._fields import read_fields, read_items, read_match, read_text
from everyhop.policy._nodes import Items, Node, Table, kind_of
from everyhop.policy.model import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.policy._nodes import Text
    from everyhop.policy._problems import Problems
    from everyhop.policy._services import Draft


class RoleReader:
    """Reads roles over all files of a policy, against the services that it declares."""

    def __init__(self, services: Mapping[str, Draft], problems: Problems) -> None:
        self._services = services
        self._problems = problems
        self._roles: dict[str, Role] = {}
        self._includes: list[tuple[str, str, Node]] = []

    def read(self, node: Node) -> None:
        """Read the part of one file."""
        if not isinstance(node, Table) or not node.entries:
            message = f"roles: expected a mapping of names to roles, found {kind_of(node)}"
            self._problems.add("type", node.span, message)
            return
        for key, value in node.entries:
            name = key.value
            if not re.fullmatch(g.ROLE_NAME, name, re.ASCII):
                hint = "letters, digits and . _ : / @ -, a letter or digit first, at most 128"
                self._problems.add("name", key.span, f"roles: {name[:60]!r} cannot name a role", hint)
            elif name in self._roles:
                first = f"first at {self._roles[name].span}"
                self._problems.add("duplicate", key.span, f"roles: {name!r} is declared twice", first)
            else:
                self._roles[name] = self._role(key, value)

    def finish(self) -> dict[str, Role]:
        """Check what roles say of each other; return them by name."""
        for owner, included, node in self._includes:
            if included not in self._roles:
                suggestion = self._problems.guess(included, self._roles)
                message = f"role {owner!r}: includes: unknown role {included[:80]!r}"
                self._problems.add("unknown-role", node.span, message, suggestion)
        self._check_cycles()
        return dict(sorted(self._roles.items()))

    def _role(self, key: Text, node: Node) -> Role:
        where = f"role {key.value!r}"
        if isinstance(node, Items):
            grants = self._grants(node, where)
            return Role(
                name=key.value, grants=grants, includes=frozenset(), groups=frozenset(), span=key.span
            )
        fields = read_fields(node, g.ROLE_KEYS, where, self._problems)
        if isinstance(node, Table) and not fields and not node.entries:
            hint = "a list of SERVICE.OPERATION, or {includes: [...], grants: [...], groups: [...]}"
            self._problems.add("empty", node.span, f"{where}: grants nothing", hint)
        includes = self._names(fields, "includes", g.ROLE_NAME, "the name of a role", where)
        for name, item in includes.items():
            self._includes.append((key.value, name, item))
        groups = self._names(fields, "groups", g.GROUP_NAME, "the name of a group", where)
        return Role(
            name=key.value,
            grants=self._grants(fields["grants"][1], where) if "grants" in fields else frozenset(),
            includes=frozenset(includes),
            groups=frozenset(groups),
            span=key.span,
        )

    def _names(
        self, fields: Mapping[str, tuple[Text, Node]], key: str, pattern: str, expected: str, where: str
    ) -> dict[str, Node]:
        found: dict[str, Node] = {}
        if key not in fields:
            return found
        for item in read_items(fields[key][1], f"{where}: {key}", self._problems):
            name = read_match(item, pattern, f"{where}: {key}", expected, self._problems)
            if name is None:
                continue
            if name in found:
                self._problems.add("duplicate", item.span, f"{where}: {key}: {name[:80]!r} is here twice")
            found[name] = item
        return found

    def _grants(self, node: Node, where: str) -> frozenset[tuple[str, str | None]]:
        found: set[tuple[str, str | None]] = set()
        for item in read_items(node, f"{where}: grants", self._problems):
            text = read_text(item, f"{where}: grants", self._problems)
            if text is None:
                continue
            grant = self._grant(text, item, where)
            if grant is None:
                continue
            if grant in found:
                self._problems.add("duplicate", item.span, f"{where}: {text[:80]!r} is here twice")
            found.add(grant)
        return frozenset(found)

    def _grant(self, text: str, item: Node, where: str) -> tuple[str, str | None] | None:
        service, dot, operation = text.partition(".")
        if not dot or not operation:
            hint = f"write SERVICE.OPERATION, or SERVICE.{g.EVERY_OPERATION}"
            self._problems.add("value", item.span, f"{where}: {text[:60]!r} is no permission", hint)
            return None
        draft = self._services.get(service)
        if draft is None:
            suggestion = self._problems.guess(service, self._services)
            message = f"{where}: {text[:80]!r}: unknown service {service[:80]!r}"
            self._problems.add("unknown-service", item.span, message, suggestion)
            return None
        if operation == g.EVERY_OPERATION:
            return service, None
        if operation not in draft.operation_names:
            suggestion = self._problems.guess(operation, draft.operation_names)
            message = f"{where}: service {service!r} has no operation {operation[:80]!r}"
            self._problems.add("unknown-operation", item.span, message, suggestion)
            return None
        return service, operation

    def _check_cycles(self) -> None:
        done: set[str] = set()
        for start in sorted(self._roles):
            path: list[str] = []
            self._visit(start, path, done)

    def _visit(self, start: str, path: list[str], done: set[str]) -> None:
        """Walk the includes depth first, without recursion: a policy may chain many roles."""
        stack: list[tuple[str, list[str]]] = [(start, sorted(self._roles[start].includes))]
        path.append(start)
        while stack:
            name, rest = stack[-1]
            if name in done or not rest:
                done.add(name)
                stack.pop()
                path.pop()
                continue
            following = rest.pop(0)
            if following in path:
                circle = " includes ".join([*path[path.index(following) :], following])
                message = f"roles: {circle}: a role cannot include itself"
                self._problems.add("cycle", self._roles[following].span, message)
            elif following in self._roles and following not in done:
                path.append(following)
                stack.append((following, sorted(self._roles[following].includes)))
