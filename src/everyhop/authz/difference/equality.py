# SPDX-License-Identifier: Apache-2.0
"""Are two doors equal by value?  Then no answer can differ there, and nobody needs to be asked.

What counts is what decides: the callers, conditions and user modes of the rules in force, what the roles grant there, and
what the facts mean (attributes, directory).  Names, reasons and the order of rules decide nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.policy.model import Mode, RuleEffect, UserMode

if TYPE_CHECKING:
    from everyhop.authz.engine import Engine
    from everyhop.policy.access import Access, Matches
    from everyhop.policy.model import Edge, Service, Snapshot

WatchedBy = tuple[bool, frozenset[frozenset[str] | None]]


class Equality:
    """Compares doors of two engines; what many doors share is compared once."""

    def __init__(self, old: Engine, new: Engine) -> None:
        self._sides = old, new
        a, b = old.snapshot, new.snapshot
        self._same_roles = a.roles == b.roles
        self._same_facts = (
            a.attributes == b.attributes
            and a.directory == b.directory
            and (len(a.user_issuers) <= 1) == (len(b.user_issuers) <= 1)
        )
        self.same_shadow = a.mode is b.mode and set(_edges(a)) == set(_edges(b))
        self._asked = bool(a.roles), bool(b.roles)
        self._accesses: dict[tuple[int, int], bool] = {}
        self._signatures: dict[int, object] = {}

    def of_services(self, old: Service, new: Service) -> bool:
        """Tell whether both have the same doors at the same routes, and the same attributes."""
        if old is new:
            return True
        return (
            (old.tcp is None) == (new.tcp is None)
            and old.attributes == new.attributes
            and _doors(old) == _doors(new)
        )

    def of_doors(self, target: str, name: str) -> bool:
        """Tell whether a door that equal services have decides alike, wherever nothing is only watched."""
        old, new = (side.index.of(target, name) for side in self._sides)
        if not self._same_access(old, new):
            return False
        if not (old.further or old.with_user):
            return True
        if not self._same_facts or self._asked[0] is not self._asked[1]:
            return False
        if self._same_roles:
            return True
        before, after = (side.permissions.granting(target, name) for side in self._sides)
        return before == after

    def watched_by(self, side: int, target: str) -> WatchedBy:
        """Return whether everything is only watched, and the callers of the edges that are, to a target."""
        snapshot = self._sides[side].snapshot
        if target in snapshot.services and snapshot.services[target].is_canary:
            return False, frozenset()
        edges = (
            edge.callers for edge in snapshot.shadow_edges if edge.targets is None or target in edge.targets
        )
        return snapshot.mode is Mode.SHADOW, frozenset(edges)

    def _same_access(self, old: Access, new: Access) -> bool:
        key = id(old), id(new)
        found = self._accesses.get(key)
        if found is None:
            found = self._accesses[key] = self._signature(old) == self._signature(new)
        return found

    def _signature(self, access: Access) -> object:
        found = self._signatures.get(id(access))
        if found is None:
            found = self._signatures[id(access)] = signature(access)
        return found


def signature(access: Access) -> object:
    """Return what decides, of the rules in force at a door."""
    return (
        _matches(access.allow),
        _matches(access.deny),
        frozenset(
            (rule.effect, rule.callers, rule.user, rule.when)
            for rule in access.further
            if rule.mode is Mode.ENFORCE
        ),
        frozenset((rule.callers, rule.user) for rule in access.with_user),
    )


def may_open(access: Access) -> bool:
    """Tell whether a caller that no rule names could pass."""
    return access.allow.by_any is not None or any(
        rule.effect is RuleEffect.ALLOW and rule.callers is None and rule.mode is Mode.ENFORCE
        for rule in access.further
    )


def _matches(matches: Matches) -> object:
    modes: dict[str, UserMode] = {caller: rule.user for caller, rule in matches.by_caller.items()}
    return (
        modes,
        None if matches.by_any is None else matches.by_any.user,
        None if matches.by_outside is None else matches.by_outside.user,
    )


def _edges(snapshot: Snapshot) -> list[tuple[frozenset[str] | None, frozenset[str] | None]]:
    edges: tuple[Edge, ...] = snapshot.shadow_edges
    return [(edge.callers, edge.targets) for edge in edges]


def _doors(service: Service) -> object:
    return (
        tuple((operation.name, operation.route) for operation in service.operations),
        tuple((probe.name, probe.route) for probe in service.probes),
    )
