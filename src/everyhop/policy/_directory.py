# SPDX-License-Identifier: Apache-2.0
"""The ``directory`` part: subjects and resources that the decision point knows by itself."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from everyhop.policy import _grammar as g
from everyhop.policy._attributes import read_attributes
from everyhop.policy._fields import read_fields, read_items, read_match
from everyhop.policy._nodes import Items, Node, Table, kind_of
from everyhop.policy.model import Directory, DirectoryUser, ResourceType, SegmentKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.policy._nodes import Text
    from everyhop.policy._problems import Problems
    from everyhop.policy._services import Draft
    from everyhop.policy.facts import Value
    from everyhop.policy.model import Role
    from everyhop.policy.vocabulary import Attributes


class DirectoryReader:
    """Reads the directory over all files of a policy."""

    def __init__(
        self,
        services: Mapping[str, Draft],
        roles: Mapping[str, Role],
        attributes: Attributes,
        problems: Problems,
    ) -> None:
        self._services = services
        self._roles = roles
        self._groups = frozenset(group for role in roles.values() for group in role.groups)
        self._attributes = attributes
        self._problems = problems
        self._users: dict[str, DirectoryUser] = {}
        self._types: dict[str, ResourceType] = {}

    @property
    def directory(self) -> Directory:
        """Return all that was read."""
        return Directory(
            users=MappingProxyType(dict(sorted(self._users.items()))),
            resources=MappingProxyType(dict(sorted(self._types.items()))),
        )

    def read(self, node: Node) -> None:
        """Read the part of one file."""
        fields = read_fields(node, g.DIRECTORY_KEYS, "directory", self._problems)
        for key, value in self._entries(fields, "users", g.SUBJECT, "the id of a user"):
            if self._is_new(key, self._users, f"directory: user {key.value!r}"):
                self._users[key.value] = self._user(key, value)
        for key, value in self._entries(fields, "resources", g.ATTRIBUTE_NAME, "the name of a resource type"):
            if self._is_new(key, self._types, f"directory: resource type {key.value!r}"):
                found = self._type(key, value)
                if found is not None:
                    self._types[key.value] = found

    def read_roles(self, node: Node, where: str) -> tuple[str, ...]:
        """Return names that a provider gives a user: of roles, or of groups that are mapped to roles."""
        names: list[str] = []
        known = self._roles.keys() | self._groups
        if isinstance(node, Items) and not node.items:
            return ()
        for item in read_items(node, where, self._problems):
            name = read_match(item, g.GROUP_NAME, where, "the name of a role", self._problems)
            if name is None:
                continue
            if known and name not in known:
                suggestion = self._problems.guess(name, known)
                self._problems.add(
                    "unknown-role", item.span, f"{where}: unknown role {name[:80]!r}", suggestion
                )
            names.append(name)
        return tuple(names)

    def _entries(
        self, fields: Mapping[str, tuple[Text, Node]], part: str, pattern: str, expected: str
    ) -> Iterable[tuple[Text, Node]]:
        if part not in fields:
            return
        node = fields[part][1]
        if not isinstance(node, Table):
            self._problems.add(
                "type", node.span, f"directory: {part}: expected a mapping, found {kind_of(node)}"
            )
            return
        if len(node.entries) > g.MAX_DIRECTORY:
            message = f"directory: {part}: at most {g.MAX_DIRECTORY}; others come with the request"
            self._problems.add("too-large", node.span, message)
            return
        for key, value in node.entries:
            if re.fullmatch(pattern, key.value):
                yield key, value
            else:
                message = f"directory: {part}: {key.value[:60]!r} is not {expected}"
                self._problems.add("name", key.span, message)

    def _is_new(self, key: Text, known: Mapping[str, DirectoryUser | ResourceType], where: str) -> bool:
        if key.value in known:
            message = f"{where} is here twice"
            self._problems.add("duplicate", key.span, message, f"first at {known[key.value].span}")
        return key.value not in known

    def _user(self, key: Text, node: Node) -> DirectoryUser:
        where = f"directory: user {key.value!r}"
        fields = read_fields(node, g.DIRECTORY_USER_KEYS, where, self._problems)
        roles = self.read_roles(fields["roles"][1], f"{where}: roles") if "roles" in fields else ()
        attributes: Mapping[str, Value] = MappingProxyType({})
        if "attributes" in fields:
            declared = self._attributes.of("user")
            attributes = read_attributes(fields["attributes"][1], declared, where, self._problems)
        return DirectoryUser(id=key.value, roles=roles, attributes=attributes, span=key.span)

    def _type(self, key: Text, node: Node) -> ResourceType | None:
        where = f"directory: resource type {key.value!r}"
        if key.value in g.RESERVED_RESOURCE_TYPES:
            self._problems.add("name", key.span, f"{where}: this name has a meaning already")
            return None
        fields = read_fields(node, g.RESOURCE_TYPE_KEYS, where, self._problems)
        if "service" not in fields:
            self._problems.add("missing-key", node.span, f"{where}: 'service' missing")
            return None
        service = self._service(fields["service"][1], where)
        if service is None:
            return None
        return ResourceType(
            name=key.value,
            service=service.name,
            parameter=self._parameter(fields, service, where),
            items=self._items(fields["items"][1], where) if "items" in fields else MappingProxyType({}),
            span=key.span,
        )

    def _service(self, node: Node, where: str) -> Draft | None:
        name = read_match(node, g.SERVICE_NAME, f"{where}: service", "the name of a service", self._problems)
        if name is None:
            return None
        draft = self._services.get(name)
        if draft is None or draft.is_tcp:
            suggestion = self._problems.guess(name, self._services)
            message = f"{where}: no HTTP service {name[:80]!r}"
            self._problems.add("unknown-service", node.span, message, suggestion)
            return None
        return draft

    def _parameter(self, fields: Mapping[str, tuple[Text, Node]], service: Draft, where: str) -> str | None:
        if "parameter" not in fields:
            return None
        node = fields["parameter"][1]
        expected = "the name of a path parameter"
        name = read_match(node, g.PARAMETER_NAME, f"{where}: parameter", expected, self._problems)
        known = {
            segment.text
            for operation in service.operations
            for segment in operation.route.segments
            if segment.kind is SegmentKind.PARAMETER
        }
        if name is not None and name not in known:
            message = f"{where}: no route of {service.name!r} has a parameter {name[:60]!r}"
            suggestion = self._problems.guess(name, known)
            self._problems.add("unknown-name", node.span, message, suggestion)
        return name

    def _items(self, node: Node, where: str) -> Mapping[str, Mapping[str, Value]]:
        if not isinstance(node, Table) or len(node.entries) > g.MAX_DIRECTORY:
            message = f"{where}: items: expected a mapping of at most {g.MAX_DIRECTORY} ids"
            self._problems.add("type", node.span, message)
            return MappingProxyType({})
        found: dict[str, Mapping[str, Value]] = {}
        for key, value in node.entries:
            if not re.fullmatch(g.SUBJECT, key.value):
                self._problems.add("name", key.span, f"{where}: items: {key.value[:60]!r} is no id")
                continue
            at = f"{where}: {key.value[:60]!r}"
            found[key.value] = read_attributes(value, self._attributes.of("resource"), at, self._problems)
        return MappingProxyType(dict(sorted(found.items())))
