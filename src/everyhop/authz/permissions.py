# SPDX-License-Identifier: Apache-2.0
"""What people may do: roles spread out over the operations that they grant, so that a question is one look-up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.policy.model import Role, Snapshot

_NOBODY: Final[frozenset[str]] = frozenset()


class Permissions:
    """The roles of a snapshot.  Immutable."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Spread out the roles; without any, users are verified and not asked for a permission."""
        self.are_asked: Final = bool(snapshot.roles)
        granting: dict[tuple[str, str], set[str]] = {}
        for name, role in snapshot.roles.items():
            names = {name, *role.groups}
            for service, operation in grants_of(snapshot.roles, name):
                declared = snapshot.services[service].operations
                for door in [operation] if operation is not None else [o.name for o in declared]:
                    granting.setdefault((service, door), set()).update(names)
        self._granting = {door: frozenset(names) for door, names in granting.items()}

    def granting(self, service: str, operation: str) -> frozenset[str]:
        """Return the names (of roles, and of groups that stand for them) that grant an operation."""
        return self._granting.get((service, operation), _NOBODY)

    def permits(self, roles: Iterable[str], service: str, operation: str) -> bool:
        """Tell whether one of the names that a provider gives a user grants an operation."""
        return not self.granting(service, operation).isdisjoint(roles)


def grants_of(roles: Mapping[str, Role], name: str) -> frozenset[tuple[str, str | None]]:
    """Return what a declared role grants, with all that it includes; None as an operation means every one."""
    found: set[tuple[str, str | None]] = set()
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        role = roles[waiting.pop()]
        if role.name not in seen:
            seen.add(role.name)
            found |= role.grants
            waiting += role.includes
    return frozenset(found)
