# SPDX-License-Identifier: Apache-2.0
"""What the rules of a bundle look up: services with their routes and doors, callers, sets of them, roles, attributes.

Doors name sets of callers instead of callers, so that a thousand doors which are open to the same thousand services stay small.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from everyhop.authz.engine import Engine
from everyhop.authz.routing import RouteTrie
from everyhop.policy.model import SegmentKind, TokenMode
from everyhop.policy.routes import guarded_characters, specificity
from everyhop.targets.intents import TCP
from everyhop.targets.model import Feature
from everyhop.targets.opa.conditions import Lowered, NoFormError, lower
from everyhop.targets.regions import Clean

if TYPE_CHECKING:
    from everyhop.policy.model import Operation, Route, Rule, Service
    from everyhop.targets.intents import Door, Grant, ServiceIntents
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

    Ways = tuple[tuple[tuple[str, str, str | None], ...], tuple[str, ...]]


class Facts:
    """The document under the package's ``policy``, the conditions that it names, and what could not be said in it."""

    def __init__(self, view: View) -> None:
        self.conditions: Final[dict[str, Lowered]] = {}
        self.diagnostics: Final[list[Diagnostic]] = []
        self.shut: Final[set[tuple[str, str]]] = set()
        self._view = view
        self._snapshot = view.intents.snapshot
        self._engine = Engine(self._snapshot)
        self._permissions = self._engine.permissions
        self._sets: dict[tuple[str, ...], str] = {}
        self._lowered: dict[str, Lowered | NoFormError] = {}
        self._said: set[tuple[str, str]] = set()
        self.document: Final[dict[str, Any]] = self._document()

    def _document(self) -> dict[str, Any]:
        snapshot = self._snapshot
        tokens = snapshot.targets.tokens
        services = {one.name: self._service(one) for one in self._view.intents if not one.service.is_canary}
        callers = {str(one.spiffe_id): one.name for one in snapshot.services.values() if not one.is_canary}
        users = {
            name: {"roles": list(user.roles), "attributes": _plain(dict(user.attributes))}
            for name, user in sorted(snapshot.directory.users.items())
        }
        return {
            "revision": snapshot.hash,
            "issuer": None if tokens is None else tokens.issuer,
            "callers": dict(sorted(callers.items())),
            "services": services,
            "sets": {name: dict.fromkeys(callers, True) for callers, name in self._sets.items()},
            "asks_for_roles": self._permissions.are_asked,
            "users": users,
            "directory_is_of_any_issuer": len(snapshot.user_issuers) <= 1,
            "attributes": {name: self._attributes(one) for name, one in sorted(snapshot.services.items())},
            "defaults": {kind: self._defaults(kind) for kind in ("user", "device")},
        }

    def door_of(self, target: str, method: str | None, path: str | None) -> str | None:
        """Return the name of the door that a call (without a method: a connection) comes to."""
        if method is None or path is None:
            return TCP
        found = self._engine.find(target, method, path)
        return None if found is None else found.name

    # -- services

    def _service(self, service: ServiceIntents) -> dict[str, Any]:
        doors = {door.name: self._door(door) for door in service.doors}
        if service.service.tcp is not None:
            return {"tcp": True, "doors": doors}
        operations = [door.operation for door in service.doors if door.operation is not None]
        guarded = guarded_characters(tuple(operation.route for operation in operations))
        return {
            "clean": f"^/{Clean.of(guarded, folds=False).rest}$",
            "exact": _exact(operations),
            "templates": [
                {"method": one.route.method, "pattern": _pattern(one.route), "door": one.name}
                for one in sorted(operations, key=lambda one: (specificity(one.route), one.route.template))
                if not one.route.is_literal
            ],
            "doors": doors,
        }

    def _door(self, door: Door) -> dict[str, Any]:
        entry: dict[str, Any] = {}
        if door.is_probe:
            entry |= {"probe": True, "rule": f"services.{door.service}.{door.name}"}
        entry |= self._token(door)
        granting = sorted(self._permissions.granting(door.service, door.name))
        entry["granting"] = granting
        if entry.get("audience") is not None and self._snapshot.targets.tokens is None:
            self._refuse_tokens(door)
            return {**entry, "grants": []}
        by_ways: dict[Ways, list[str]] = {}
        opened = self._view.grants(door)
        if len(opened) < len(door.grants):
            self.shut.add((door.service, door.name))
        for grant in opened:
            ways = self._ways(door, grant)
            if ways is not None:
                by_ways.setdefault(ways, []).append(grant.caller)
            else:
                self.shut.add((door.service, door.name))
        grants = [
            {"callers": self._set(callers), "ways": [_way(way) for way in ways], "unless": list(unless)}
            for (ways, unless), callers in by_ways.items()
        ]
        return {**entry, "grants": grants}

    def _token(self, door: Door) -> dict[str, Any]:
        mode = TokenMode.NONE if door.operation is None else door.operation.token
        if mode is TokenMode.NONE:
            return {}
        audience = door.service if mode is TokenMode.SERVICE else f"{door.service}#{door.name}"
        is_bound = Feature.TOKEN_BINDING.value not in self._view.accepted
        return {"audience": audience, "bound": True} if is_bound else {"audience": audience}

    def _refuse_tokens(self, door: Door) -> None:
        self.shut.add((door.service, door.name))
        message = f"opa cannot tell whose tokens {door} takes: no issuer is named"
        hint = "name it in targets: tokens"
        self.diagnostics.append(self._view.error("tokens", message, door=door, suggestion=hint))

    def _set(self, callers: list[str]) -> str:
        key = tuple(sorted(callers))
        return self._sets.setdefault(key, f"s{len(self._sets)}")

    # -- rules

    def _ways(self, door: Door, grant: Grant) -> Ways | None:
        """Return the rules by which a caller may come in and what speaks against it, or None where nothing is left."""
        ways = [self._alternative(door, one.rule) for one in grant.alternatives]
        kept = tuple(way for way in ways if way is not None)
        unless = [self._condition(door, rule, Feature.CONDITIONAL_DENY) for rule in grant.denied_if]
        if not kept or any(name is None for name in unless):
            return None
        return kept, tuple(name for name in unless if name)

    def _alternative(self, door: Door, rule: Rule | None) -> tuple[str, str, str | None] | None:
        if rule is None:
            return f"services.{door.service}.{door.name}", "none", None
        if rule.when is None:
            return rule.id, rule.user.value, None
        name = self._condition(door, rule, Feature.CONDITION)
        return None if name is None else (rule.id, rule.user.value, name or None)

    def _condition(self, door: Door, rule: Rule, feature: Feature) -> str | None:
        """Return the name of a rule's condition, "" where a target beside holds what has no form here, or None."""
        if rule.condition is None:
            return None
        text = rule.condition.text
        if text not in self._lowered:
            name = f"c{len(self.conditions)}"
            try:
                lowered = lower(name, rule.condition, self._snapshot.attributes.headers)
            except NoFormError as error:
                self._lowered[text] = error
            else:
                self._lowered[text] = self.conditions[name] = lowered
        found = self._lowered[text]
        if isinstance(found, Lowered):
            return found.name
        if self._view.held_beside(feature) is not None:
            return ""
        if (rule.id, str(door)) not in self._said:
            self._said.add((rule.id, str(door)))
            message = f"opa cannot hold the condition of {rule.id} at {door}: {found} has no form in Rego"
            diagnostic = self._view.error(feature.value, message, door=door, rules=[rule.id])
            self.diagnostics.append(diagnostic)
        return None

    # -- attributes

    def _attributes(self, service: Service) -> dict[str, Any]:
        declared = self._snapshot.attributes.of("service")
        found = {name: service.attributes.get(name, one.default) for name, one in declared.items()}
        return _plain({name: value for name, value in found.items() if value is not None})

    def _defaults(self, kind: str) -> dict[str, Any]:
        declared = self._snapshot.attributes.of(kind)
        return _plain({name: one.default for name, one in declared.items() if one.default is not None})


def _way(way: tuple[str, str, str | None]) -> dict[str, Any]:
    rule, user, condition = way
    return {"rule": rule, "user": user} | ({} if condition is None else {"when": condition})


def _exact(operations: list[Operation]) -> dict[str, dict[str, str]]:
    """Return, for each path that some route spells out, the door of every method, templates among them."""
    trie = RouteTrie[str]()
    for operation in operations:
        trie.add(operation.route, operation.name)
    methods = sorted({operation.route.method for operation in operations})
    paths = sorted({one.route.template for one in operations if one.route.is_literal})
    return {
        path: {method: door for method in methods if (door := trie.find(method, path[1:].split("/")))}
        for path in paths
    }


def _pattern(route: Route) -> str:
    """Return an expression for the path of a template, which is clean when it is asked."""
    written = {SegmentKind.PARAMETER: "[^/]+", SegmentKind.REST: ".*"}
    parts = (written[s.kind] if s.kind in written else re.escape(s.text) for s in route.segments)
    return f"^/{'/'.join(parts)}$"


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return attributes as JSON has them; moments, which no condition here reads, are left out."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in sorted(values.items())
        if isinstance(value, bool | int | float | str | tuple)
    }
