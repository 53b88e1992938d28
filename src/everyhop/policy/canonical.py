# SPDX-License-Identifier: Apache-2.0
"""The canonical form of a policy: one JSON text for everything that means the same.

The canonical form is itself a policy document, so a stored snapshot goes through the same strict checks
as a file when it is read back.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from everyhop.policy import _grammar as g
from everyhop.policy.model import ANY, Protocol, RuleEffect, TokenMode, UserMode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.policy.model import Operation, PolicyTest, Rule, Selector, Service, UserIssuer
    from everyhop.spiffe.ids import TrustDomain

_ENCODER: Final = msgspec.json.Encoder(order="sorted")


def render_canonical(
    domain: TrustDomain,
    services: Mapping[str, Service],
    rules: Iterable[Rule],
    tests: Iterable[PolicyTest],
    issuers: Iterable[UserIssuer] = (),
) -> bytes:
    """Return the canonical JSON (UTF-8, keys sorted, no white space).

    Every service carries its identity, names inside a rule are sorted; the order of rules and tests is kept,
    because their ids are positions.
    """
    document: dict[str, Any] = {
        "version": int(g.VERSION),
        "trust_domain": domain.name,
        "services": {name: _service(service) for name, service in services.items()},
    }
    rules = tuple(rules)
    for effect in RuleEffect:
        entries = [rule for rule in rules if rule.effect is effect]
        if entries:
            document[effect.value] = [
                _rule(rule, f"{effect}[{index}]", services) for index, rule in enumerate(entries)
            ]
    users = [_issuer(issuer) for issuer in issuers]
    if users:
        document["users"] = {"issuers": users}
    checks = [_test(test) for test in tests]
    if checks:
        document["tests"] = checks
    return _ENCODER.encode(document)


def content_hash(canonical: bytes) -> str:
    """Return the hash that names a snapshot: SHA-256 in 64 hex digits."""
    return hashlib.sha256(canonical).hexdigest()


def _service(service: Service) -> dict[str, Any]:
    entry: dict[str, Any] = {"identity": service.spiffe_id.path}
    if service.workload:
        entry["workload"] = [_alternative(alternative) for alternative in service.workload]
    if service.operations:
        entry["operations"] = {operation.name: _operation(operation) for operation in service.operations}
    if service.probes:
        entry["probes"] = [_operation(probe) for probe in service.probes]
    if service.tcp is not None:
        entry["tcp"] = service.tcp
    return entry


def _alternative(selectors: frozenset[Selector]) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    for selector in selectors:
        if selector.type == "run":
            entry["run"] = True
        else:
            kind, _, value = selector.value.partition(":")
            entry.setdefault("unix", {})[kind] = value
    return entry


def _operation(operation: Operation) -> str | dict[str, Any]:
    entry: dict[str, Any] = {}
    if operation.token is not TokenMode.NONE:
        entry["token"] = operation.token.value
    if operation.once:
        entry["once"] = True
    if operation.body is not None:
        entry["body"] = operation.body.document.decode()  # JSON as text: a policy document has no other types
    if operation.protocol is Protocol.GRPC:
        return {"grpc": operation.route.template[1:], **entry}
    if operation.protocol is Protocol.WEBSOCKET:
        return {"websocket": operation.route.template, **entry}
    return {"route": str(operation.route), **entry} if entry else str(operation.route)


def _issuer(issuer: UserIssuer) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "issuer": issuer.issuer,
        "audience": list(issuer.audiences),
        "roles": ".".join(issuer.roles),
        "algorithms": list(issuer.algorithms),
    }
    if issuer.jwks is not None:
        entry["jwks"] = issuer.jwks
    return entry


def _rule(rule: Rule, position: str, services: Mapping[str, Service]) -> dict[str, Any]:
    entry: dict[str, Any] = {"from": _names(rule.callers), "to": _names(rule.targets)}
    if rule.operations is not None:
        entry["operations"] = sorted(rule.operations)
    elif rule.effect is RuleEffect.ALLOW and not _is_tcp(rule.targets, services):
        entry["operations"] = g.ALL
    if rule.id != position:
        entry["id"] = rule.id
    if rule.reason is not None:
        entry["reason"] = rule.reason
    if rule.user is not UserMode.NONE:
        entry["user"] = rule.user.value
    return entry


def _is_tcp(targets: frozenset[str] | None, services: Mapping[str, Service]) -> bool:
    return targets is not None and all(services[name].tcp is not None for name in targets)


def _names(names: frozenset[str] | None) -> str | list[str]:
    return ANY if names is None else sorted(names)


def _test(test: PolicyTest) -> dict[str, Any]:
    entry: dict[str, Any] = {"from": test.caller, "to": test.target, "expect": test.expect.value}
    if test.method is None:
        entry["tcp"] = True
    else:
        entry["call"] = f"{test.method} {test.path}"
    return entry
