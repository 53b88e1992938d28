# SPDX-License-Identifier: Apache-2.0
"""The smallest change of the policy that would allow a call, and only where it changes nothing else."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from everyhop.authz.explanation import Edit, Suggestion
from everyhop.core.errors import InputError
from everyhop.policy.access import TCP, is_plain
from everyhop.policy.model import Route, RuleEffect
from everyhop.policy.routes import guarded_characters, overlaps, parse_route

if TYPE_CHECKING:
    from everyhop.core.problems import Span
    from everyhop.policy.model import Operation, Rule, Service, Snapshot

_MAX_NAME = 64


def suggest_rule(
    snapshot: Snapshot, caller: str, target: str, operation: str, *, has_user: bool = False
) -> Suggestion:
    """Return the allow rule for one caller, one target and one door that no rule concerns yet.

    A call that was made for a user (``has_user``) needs a rule that asks for one, or calls without would be let in too.
    """
    return Suggestion(edits=(_allow_edit(snapshot, caller, target, operation, has_user=has_user),))


def suggest_door(
    snapshot: Snapshot, caller: Service, target: Service, method: str, path: str, same_path: Operation | None
) -> Suggestion | None:
    """Return a new operation and the rule for it, or None where it would change other answers as well.

    ``same_path`` is an operation that matches the path with another method; its template is reused where
    that takes no request from others, else the path itself becomes a literal route.
    """
    existing = tuple(operation.route for operation in (*target.operations, *target.probes))
    templates = [same_path.route.template, path] if same_path is not None else [path]
    route = next((r for template in templates if (r := _new_route(method, template, existing))), None)
    if route is None:
        return None
    covering = [
        rule for rule in snapshot.rules if rule.operations is None and _names(rule.targets, target.name)
    ]
    if any(rule.effect is RuleEffect.DENY and _names(rule.callers, caller.name) for rule in covering):
        return None  # a deny rule covers every door of the target
    name = _new_name(route, target, snapshot)
    edits = [
        Edit(
            path=("services", target.name, "operations"),
            yaml=f"{name}: {_quote(str(route))}",
            span=target.span,
        )
    ]
    allowed = [rule for rule in covering if rule.effect is RuleEffect.ALLOW and is_plain(rule, snapshot)]
    if not any(_names(rule.callers, caller.name) for rule in allowed):
        edits.append(_allow_edit(snapshot, caller.name, target.name, name))
    return Suggestion(edits=tuple(edits), also_opens=_others(snapshot, allowed, caller.name))


def _allow_edit(
    snapshot: Snapshot, caller: str, target: str, operation: str, *, has_user: bool = False
) -> Edit:
    """Return the rule to add, at the end of the whole list, so that no other rule's id moves."""
    doors = "" if operation == TCP else f", operations: [{operation}]"
    user = ", user: required" if has_user and operation != TCP else ""
    last: Span | None = None
    for rule in snapshot.rules:
        if rule.effect is RuleEffect.ALLOW:
            last = rule.span
    return Edit(
        path=("allow",),
        yaml=f"{{from: {caller}, to: {target}{doors}{user}}}",
        span=last or snapshot.services[target].span,
    )


def _new_route(method: str, template: str, existing: tuple[Route, ...]) -> Route | None:
    """Return the route, or None where it is none or would change the answer for another request."""
    try:
        route = parse_route(f"{method} {template}")
    except InputError:
        return None
    if any(other.method == method and overlaps(other, route) for other in existing):
        return None  # it would take requests away from another operation
    if guarded_characters((route,)) - guarded_characters(existing):
        return None  # paths that are clean today would become ambiguous
    return route


def _new_name(route: Route, target: Service, snapshot: Snapshot) -> str:
    """Return a name that the target does not use and that no rule (of ``to: any``) speaks of."""
    base = re.sub(r"[^a-z0-9]+", "_", str(route).lower()).strip("_")[: _MAX_NAME - 4]
    taken = {operation.name for operation in target.operations}
    taken |= {name for rule in snapshot.rules for name in rule.operations or ()}
    return next(
        name for n in range(1, len(taken) + 2) if (name := base if n == 1 else f"{base}_{n}") not in taken
    )


def _others(snapshot: Snapshot, allowed: list[Rule], caller: str) -> tuple[str, ...]:
    names: set[str] = set()
    for rule in allowed:
        names |= snapshot.services.keys() if rule.callers is None else rule.callers
    return tuple(sorted(names - {caller}))


def _names(names: frozenset[str] | None, name: str) -> bool:
    return names is None or name in names


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
