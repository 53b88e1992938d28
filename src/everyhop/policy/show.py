# SPDX-License-Identifier: Apache-2.0
"""The policy for reading: every service with its doors, and who may pass each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from everyhop.policy.access import TCP, AccessIndex
from everyhop.policy.model import OUTSIDE, Protocol

if TYPE_CHECKING:
    from everyhop.policy.model import Operation, Service, Snapshot

EVERY: str = "every service"


def describe(snapshot: Snapshot) -> dict[str, Any]:
    """Return the policy as a JSON object: what is declared, and the callers that result from the rules."""
    index = AccessIndex(snapshot)
    return {
        "trust_domain": snapshot.trust_domain.name,
        "snapshot": snapshot.hash,
        "services": {
            name: _describe(snapshot, service, index) for name, service in snapshot.services.items()
        },
        "rules": {"allow": _count(snapshot, "allow"), "deny": _count(snapshot, "deny")},
        "tests": len(snapshot.tests),
    }


def render(snapshot: Snapshot) -> str:
    """Return the same as aligned plain text, without a final newline."""
    shown = describe(snapshot)
    rules = shown["rules"]
    lines = [
        f"trust domain  {shown['trust_domain']}",
        f"snapshot      {shown['snapshot']}",
        f"rules         {rules['allow']} allow, {rules['deny']} deny; {shown['tests']} tests",
    ]
    for name, service in shown["services"].items():
        lines += ["", f"{name}  {service['spiffe_id']}"]
        lines.append(
            f"  workload  {' | '.join(' + '.join(a) for a in service['workload']) or 'none: no identity is given'}"
        )
        rows = [(d["name"], d["route"], _callers(d["callers"], shown)) for d in service["doors"]]
        lines += (
            _table([("DOOR", "ROUTE", "MAY BE CALLED BY"), *rows])
            if rows
            else ["  no doors: it only calls others"]
        )
    return "\n".join(lines)


def _describe(snapshot: Snapshot, service: Service, index: AccessIndex) -> dict[str, Any]:
    doors = [_door(snapshot, service, operation, index, is_probe=False) for operation in service.operations]
    doors += [_door(snapshot, service, probe, index, is_probe=True) for probe in service.probes]
    if service.tcp is not None:
        route = {"name": TCP, "protocol": TCP, "route": f"port {service.tcp}"}
        doors.append({**route, "callers": _allowed(snapshot, service, TCP, index, is_probe=False)})
    return {
        "spiffe_id": str(service.spiffe_id),
        "workload": [sorted(str(selector) for selector in alternative) for alternative in service.workload],
        "doors": doors,
    }


def _door(
    snapshot: Snapshot, service: Service, operation: Operation, index: AccessIndex, *, is_probe: bool
) -> dict[str, Any]:
    mark = " (upgrade)" if operation.protocol is Protocol.WEBSOCKET else ""
    return {
        "name": operation.name,
        "protocol": operation.protocol.value,
        "route": f"{operation.route}{mark}",
        "token": operation.token.value,
        "once": operation.once,
        "body": operation.body is not None,
        "callers": _allowed(snapshot, service, operation.name, index, is_probe=is_probe),
    }


def _allowed(
    snapshot: Snapshot, service: Service, door: str, index: AccessIndex, *, is_probe: bool
) -> list[str]:
    access = index.of(service.name, door)
    return [caller for caller in (*snapshot.services, OUTSIDE) if access.allows(caller, is_probe=is_probe)]


def _callers(callers: list[str], shown: dict[str, Any]) -> str:
    if len(callers) - (OUTSIDE in callers) == len(shown["services"]):
        return f"{EVERY}, {OUTSIDE}" if OUTSIDE in callers else EVERY
    return ", ".join(callers) or "nobody"


def _table(rows: list[tuple[str, str, str]]) -> list[str]:
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return [f"  {a:<{first}}  {b:<{second}}  {c}" for a, b, c in rows]


def _count(snapshot: Snapshot, effect: str) -> int:
    return sum(rule.effect.value == effect for rule in snapshot.rules)
