# SPDX-License-Identifier: Apache-2.0
"""The part of a policy by which one service decides for itself: itself a policy, read back by the same strict checks.

It holds who may call (names and identities), the service's own doors, the rules about them, all roles (as far as they
grant something here), the attributes, the users of the directory and the service's own resources.  It decides at the
service's doors exactly as the whole policy does, and knows nothing of other services' doors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from everyhop.policy.access import doors_of_rule
from everyhop.policy.canonical import content_hash, render_canonical
from everyhop.policy.model import Directory, RuleEffect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.policy.model import Edge, Role, Rule, Service, Snapshot


@dataclass(frozen=True, slots=True)
class Excerpt:
    """``snapshot`` with a hash of its own; ``rule_ids`` gives for each of its rules the id in the whole policy."""

    snapshot: Snapshot
    rule_ids: Mapping[str, str]


def excerpt(snapshot: Snapshot, service: str) -> Excerpt:
    """Return the part of a snapshot that a declared service of HTTP needs.  KeyError for another name."""
    own = snapshot.services[service]
    rules, ids = _rules(snapshot, own)
    directory = Directory(
        users=snapshot.directory.users,
        resources=MappingProxyType(
            {name: kind for name, kind in snapshot.directory.resources.items() if kind.service == service}
        ),
    )
    part = replace(
        snapshot,
        services={name: _service(one, is_own=one is own) for name, one in snapshot.services.items()},
        rules=rules,
        tests=(),
        roles=MappingProxyType({name: _role(role, service) for name, role in snapshot.roles.items()}),
        shadow_edges=tuple(
            _edge(edge, service)
            for edge in snapshot.shadow_edges
            if edge.targets is None or service in edge.targets
        ),
        directory=directory,
        canonical=b"",
        hash="",
    )
    canonical = render_canonical(part)
    return Excerpt(replace(part, canonical=canonical, hash=content_hash(canonical)), MappingProxyType(ids))


def _service(service: Service, *, is_own: bool) -> Service:
    if not is_own:
        return replace(service, workload=(), operations=(), probes=(), tcp=None, is_canary=False)
    return replace(
        service, workload=(), operations=tuple(replace(one, body=None) for one in service.operations)
    )


def _rules(snapshot: Snapshot, own: Service) -> tuple[tuple[Rule, ...], dict[str, str]]:
    """Return the rules about a service's doors; a rule that is named by its position has a new one."""
    names = frozenset(operation.name for operation in own.operations)
    kept: list[Rule] = []
    ids: dict[str, str] = {}
    for effect in RuleEffect:
        everyone = [rule for rule in snapshot.rules if rule.effect is effect]
        found = [
            (position, rule)
            for position, rule in enumerate(everyone)
            if any(name == own.name for name, _ in doors_of_rule(rule, snapshot))
        ]
        for index, (position, rule) in enumerate(found):
            is_positional = rule.id == f"{effect}[{position}]"
            name = f"{effect}[{index}]" if is_positional else rule.id
            ids[name] = rule.id
            operations = None if rule.operations is None else rule.operations & names
            kept.append(replace(rule, id=name, targets=frozenset({own.name}), operations=operations))
    return tuple(kept), ids


def _role(role: Role, service: str) -> Role:
    """Return a role with what it grants here.  It stays when that is nothing: that there are roles is asked, too."""
    grants = frozenset(grant for grant in role.grants if grant[0] == service)
    groups = role.groups if grants or role.includes else role.groups | {role.name}
    return replace(role, grants=grants, groups=groups)


def _edge(edge: Edge, service: str) -> Edge:
    return replace(edge, targets=frozenset({service}))
