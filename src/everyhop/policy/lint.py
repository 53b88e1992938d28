# SPDX-License-Identifier: Apache-2.0
"""What a policy says correctly but probably does not mean: warnings, in the order of the text."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from everyhop.core.problems import Problem
from everyhop.policy._role_lint import lint_roles
from everyhop.policy.access import TCP, AccessIndex, doors_of_rule, is_plain
from everyhop.policy.model import OUTSIDE, RuleEffect, SegmentKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.core.problems import Span
    from everyhop.policy.model import Operation, Rule, Selector, Service, Snapshot


def lint(snapshot: Snapshot) -> list[Problem]:
    """Return the warnings for a policy; none of them keeps it from being used."""
    index = AccessIndex(snapshot)
    found = [
        *_unreachable(snapshot, index),
        *_useless_rules(snapshot, index),
        *_self_calls(snapshot),
        *_workloads(snapshot),
        *_literals(snapshot),
        *lint_roles(snapshot, index),
    ]
    return sorted(found, key=lambda p: (p.span.file, p.span.line, p.span.column, p.code))


def _warn(code: str, span: Span, message: str, suggestion: str | None = None) -> Problem:
    return Problem(code=code, span=span, message=message, suggestion=suggestion, is_warning=True)


def _unreachable(snapshot: Snapshot, index: AccessIndex) -> Iterator[Problem]:
    """Doors that no declared service may pass."""
    hint = "add an allow rule, or remove it"
    for service in snapshot.services.values():
        if service.tcp is not None and not _has_caller(snapshot, index, service, TCP, is_probe=False):
            yield _warn("unreachable", service.span, f"no service may connect to {service.name!r}", hint)
        for operations, is_probe in ((service.operations, False), (service.probes, True)):
            for operation in operations:
                if not _has_caller(snapshot, index, service, operation.name, is_probe=is_probe):
                    message = f"no service may call {service.name}.{operation.name}"
                    yield _warn("unreachable", operation.span, message, hint if not is_probe else None)


def _has_caller(
    snapshot: Snapshot, index: AccessIndex, service: Service, door: str, *, is_probe: bool
) -> bool:
    access = index.of(service.name, door)
    return any(access.allows(caller, is_probe=is_probe) for caller in (*snapshot.services, OUTSIDE))


def _useless_rules(snapshot: Snapshot, index: AccessIndex) -> Iterator[Problem]:
    """Rules that never decide: always overruled by a deny, or always preceded by an equal one."""
    for rule in snapshot.rules:
        deciders = _deciders(rule, snapshot, index)
        if deciders is None:
            continue
        names = ", ".join(sorted(deciders))
        if not deciders:
            yield _warn(
                "no-effect",
                rule.span,
                f"{rule.id} concerns no door",
                "its targets have none of these operations",
            )
        elif rule.effect is RuleEffect.ALLOW and any(
            effect is RuleEffect.DENY for effect in deciders.values()
        ):
            yield _warn("shadowed", rule.span, f"{rule.id} never decides: overruled by {names}")
        else:
            yield _warn("redundant", rule.span, f"{rule.id} never decides: {names} already says so")


def _deciders(rule: Rule, snapshot: Snapshot, index: AccessIndex) -> dict[str, RuleEffect] | None:
    """Return the rules that decide in this one's place, or None as soon as it decides somewhere itself."""
    if not is_plain(rule, snapshot):
        return None  # whether it decides depends on more than the other rules
    deciders: dict[str, RuleEffect] = {}
    seen: set[int] = set()
    callers = sorted(snapshot.services) if rule.callers is None else sorted(rule.callers)
    for target, door in doors_of_rule(rule, snapshot):
        access = index.of(target, door)
        if id(access) in seen:
            continue  # the same rules concern both doors
        seen.add(id(access))
        for caller in callers:
            decider = access.deny.rule_for(caller) or access.allow.rule_for(caller)
            if decider is None or decider is rule:
                return None
            deciders[decider.id] = decider.effect
    return deciders


def _self_calls(snapshot: Snapshot) -> Iterator[Problem]:
    for rule in snapshot.rules:
        if rule.effect is RuleEffect.ALLOW:
            both = sorted((rule.callers or frozenset()) & (rule.targets or frozenset()))
            if both:
                message = f"{rule.id} lets {both[0]!r} call itself"
                yield _warn(
                    "self-call", rule.span, message, "calls between its own instances would be allowed"
                )


def _workloads(snapshot: Snapshot) -> Iterator[Problem]:
    owners: dict[frozenset[Selector], list[Service]] = defaultdict(list)
    is_elsewhere = snapshot.targets.span is not None  # others give the identities
    for service in snapshot.services.values():
        if not service.workload and not is_elsewhere:
            message = f"service {service.name!r} has no workload, so no process can get its identity"
            yield _warn("no-workload", service.span, message, "add for example workload: [{run: true}]")
        for alternative in service.workload:
            owners[alternative].append(service)
    for alternative, services in owners.items():
        for service in services[1:]:
            text = " and ".join(str(selector) for selector in sorted(alternative))
            message = f"a process with {text} is {services[0].name!r} as well as {service.name!r}"
            yield _warn("shared-workload", service.span, message, "it would get both identities")


def _literals(snapshot: Snapshot) -> Iterator[Problem]:
    """Characters that are wildcards or parameters elsewhere, but plain characters here."""
    for service in snapshot.services.values():
        for operation in (*service.operations, *service.probes):
            segment = _foreign_syntax(operation)
            if segment:
                message = f"{service.name}.{operation.name}: {segment!r} matches only itself"
                yield _warn(
                    "literal", operation.span, message, "one segment is {name}, the rest of a path {name...}"
                )


def _foreign_syntax(operation: Operation) -> str | None:
    for segment in operation.route.segments:
        text = segment.text
        if segment.kind is SegmentKind.LITERAL and (
            text in {"*", "**"} or (text[:1] == ":" and text[1:].isidentifier())
        ):
            return text
    return None
