# SPDX-License-Identifier: Apache-2.0
"""The three questions that engines are measured with, made from a seed, and the answers that they must give.

- ``edges``: may caller A call METHOD /path on service B?  One allow rule per edge (caller, operation).
- ``conditions``: the same, and each rule has a condition on the user's department and clearance.
- ``roles``: 100 roles in a tree, 744 grants on 50 resources with four actions, 500 users with one to three roles.

Half of the requests are allowed; the others fail by one thing each.  The answer comes from the rules as plain
tuples, by code that shares nothing with an engine.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

SUITES = ("edges", "conditions", "roles")
DOMAIN = "bench.example"
REQUESTS = 500
OPERATIONS_PER_SERVICE = 20
DEPARTMENTS = 20
ROLES, RESOURCES, USERS, GRANTS = 100, 50, 500, 744
ACTIONS = {
    "read": ("GET", "/v1/items/{id}"),
    "create": ("POST", "/v1/items"),
    "update": ("PUT", "/v1/items/{id}"),
    "delete": ("DELETE", "/v1/items/{id}"),
}


@dataclass(frozen=True)
class Edge:
    """A rule: who may do what where; with ``department`` and ``clearance`` in the suite with conditions."""

    caller: str
    target: str
    method: str
    resource: str
    department: str | None = None
    clearance: int = 0

    @property
    def key(self):
        return self.caller, self.target, self.method, self.resource


@dataclass(frozen=True)
class Request:
    """A question and the right answer; ``action`` and ``user`` belong to ``roles``."""

    caller: str
    target: str
    method: str
    path: str
    expected: bool
    user: str | None = None
    department: str | None = None
    clearance: int = 0
    action: str | None = None
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """One question at one size."""

    suite: str
    rules: int
    requests: list[Request]
    edges: list[Edge] = field(default_factory=list)
    includes: dict[str, list[str]] = field(default_factory=dict)
    grants: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    users: dict[str, tuple[str, ...]] = field(default_factory=dict)


def case_of(suite, size):
    """Return a case; the same for the same arguments, in every process."""
    rng = random.Random(f"{suite} {size}")
    if suite == "roles":
        return _roles(rng)
    edges = _edges(size, rng, conditions=suite == "conditions")
    return Case(suite, size, _requests(edges, rng), edges=edges)


def _edges(count, rng, *, conditions):
    targets = max(2, count // (OPERATIONS_PER_SERVICE * 5))
    callers = max(5, targets)
    edges = {}
    while len(edges) < count:
        caller, target = f"c{rng.randrange(callers)}", f"t{rng.randrange(targets)}"
        resource = rng.randrange(min(OPERATIONS_PER_SERVICE, max(2, count // targets)))
        department = f"d{rng.randrange(DEPARTMENTS)}" if conditions else None
        clearance = rng.randrange(1, 9) if conditions else 0
        edge = Edge(caller, target, ("GET", "POST")[resource % 2], f"r{resource}", department, clearance)
        edges.setdefault(edge.key, edge)
    return list(edges.values())


def _requests(edges, rng):
    known = {edge.key: edge for edge in edges}
    conditions = edges[0].department is not None
    wrong = ("caller", "method", "path", "target", *(("department", "clearance") if conditions else ()))
    found = []
    while len(found) < REQUESTS:
        edge = rng.choice(edges)
        caller, target, method, resource = edge.key
        department, clearance = edge.department, edge.clearance + rng.randrange(2)
        kind = rng.choice(("allow", *wrong))
        if kind == "caller":
            caller = rng.choice(edges).caller
        elif kind == "method":
            method = "PUT"
        elif kind == "path":
            resource += "x"
        elif kind == "target":
            target = rng.choice(edges).target
        elif kind == "department":
            department = f"d{rng.randrange(DEPARTMENTS)}"
        elif kind == "clearance":
            clearance = edge.clearance - 1
        rule = known.get((caller, target, method, resource))
        expected = rule is not None and rule.department == department and clearance >= rule.clearance
        if expected is not (len(found) % 2 == 0):
            continue
        path = f"/v1/{resource}/{rng.randrange(10**6)}"
        user = f"u{rng.randrange(USERS)}" if conditions else None
        found.append(Request(caller, target, method, path, expected, user, department, clearance))
    return found


def _roles(rng):
    names = [f"role{k}" for k in range(ROLES)]
    includes = {f"role{k}": [f"role{j}" for j in (2 * k + 1, 2 * k + 2) if j < ROLES] for k in range(ROLES)}
    everything = [(f"t{k}", action) for k in range(RESOURCES) for action in ACTIONS]
    share, more = divmod(GRANTS, ROLES)
    grants = {name: rng.sample(everything, share + (k < more)) for k, name in enumerate(names)}
    users = {f"u{k}": tuple(rng.sample(names[20:], rng.randrange(1, 4))) for k in range(USERS)}
    effective = {user: _closure(roles, includes, grants) for user, roles in users.items()}
    found = []
    while len(found) < REQUESTS:
        user = rng.choice(list(users))
        target, action = rng.choice(everything)
        method, template = ACTIONS[action]
        path = template.replace("{id}", str(rng.randrange(10**6)))
        expected = (target, action) in effective[user]
        if expected is not (len(found) % 2 == 0):
            continue
        found.append(Request("front", target, method, path, expected, user, action=action, roles=users[user]))
    return Case("roles", GRANTS, found, includes=includes, grants=grants, users=users)


def _closure(roles, includes, grants):
    pending, seen = list(roles), set()
    while pending:
        role = pending.pop()
        if role not in seen:
            seen.add(role)
            pending += includes[role]
    return {grant for role in seen for grant in grants[role]}


def expanded(case):
    """Return, by role, its own grants and those of every role that it includes."""
    return {role: _closure([role], case.includes, case.grants) for role in case.includes}
