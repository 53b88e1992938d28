# SPDX-License-Identifier: Apache-2.0
"""Roles and rules for users that do not meet: what is granted and cannot be called, what can be called by no role."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.core.problems import Problem
from everyhop.policy.access import concerns, doors_of_rule
from everyhop.policy.model import OUTSIDE, RuleEffect, UserMode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.policy.access import AccessIndex
    from everyhop.policy.model import Role, Rule, Snapshot


def lint_roles(snapshot: Snapshot, index: AccessIndex) -> Iterator[Problem]:
    """Yield the warnings about roles; a policy without roles asks for none."""
    if snapshot.roles:
        yield from _useless_grants(snapshot, index)
        yield from _without_role(snapshot)


def _useless_grants(snapshot: Snapshot, index: AccessIndex) -> Iterator[Problem]:
    """Grants of operations that no rule lets anybody call for a user."""
    for role in snapshot.roles.values():
        for service, operation in sorted(role.grants, key=str):
            declared = snapshot.services[service].operations
            names = [operation] if operation is not None else [o.name for o in declared]
            if not any(_serves_users(snapshot, index, service, name) for name in names):
                message = (
                    f"role {role.name!r} grants {service}.{operation or '*'}, "
                    "which no rule lets anybody call for a user"
                )
                hint = "add a rule with user: required, or take the grant out"
                yield _warn("useless-grant", role, message, hint)


def _serves_users(snapshot: Snapshot, index: AccessIndex, service: str, operation: str) -> bool:
    access = index.of(service, operation)
    callers = (*snapshot.services, OUTSIDE)
    return any(
        rule.user is not UserMode.NONE
        and any(concerns(rule, caller) and access.deny.rule_for(caller) is None for caller in callers)
        for rule in access.with_user
    )


def _without_role(snapshot: Snapshot) -> Iterator[Problem]:
    """Rules that need a user for operations that no role grants."""
    granted = {grant for role in snapshot.roles.values() for grant in role.grants}
    for rule in snapshot.rules:
        if rule.effect is not RuleEffect.ALLOW or rule.user is not UserMode.REQUIRED:
            continue
        doors = doors_of_rule(rule, snapshot)
        lacking = [door for door in doors if door not in granted and (door[0], None) not in granted]
        if lacking:
            names = ", ".join(".".join(door) for door in lacking[:5])
            message = f"{rule.id} lets users call {names}, which no role grants"
            yield _warn("no-role", rule, message, "grant it to a role")


def _warn(code: str, about: Role | Rule, message: str, suggestion: str) -> Problem:
    return Problem(code=code, span=about.span, message=message, suggestion=suggestion, is_warning=True)
