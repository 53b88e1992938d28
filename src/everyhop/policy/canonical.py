# SPDX-License-Identifier: Apache-2.0
"""The canonical form of a policy: one JSON text for everything that means the same.

The canonical form is itself a policy document, so a stored snapshot goes through the same strict checks
as a file when it is read back.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from everyhop.core.clock import rfc3339
from everyhop.policy import _grammar as g
from everyhop.policy.detect import detection_entry
from everyhop.policy.model import ANY, Mode, Protocol, RuleEffect, TokenMode, UserMode
from everyhop.policy.targets import targets_entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.policy.facts import Context, User, Value
    from everyhop.policy.model import (
        Directory,
        DirectoryUser,
        Operation,
        PolicyTest,
        ResourceType,
        Role,
        Rule,
        Selector,
        Service,
        Snapshot,
        UserIssuer,
    )
    from everyhop.policy.vocabulary import Attribute, Attributes

_ENCODER: Final = msgspec.json.Encoder(order="sorted")


def render_canonical(snapshot: Snapshot) -> bytes:
    """Return the canonical JSON (UTF-8, keys sorted, no white space) of what a snapshot says.

    Every service carries its identity, names inside a rule are sorted; the order of rules and tests is kept,
    because their ids are positions.  Its ``canonical`` and ``hash`` are not read.
    """
    document: dict[str, Any] = {
        "version": int(g.VERSION),
        "trust_domain": snapshot.trust_domain.name,
        "services": {name: _service(service) for name, service in snapshot.services.items()},
    }
    if snapshot.mode is not Mode.ENFORCE:
        document["mode"] = snapshot.mode.value
    for effect in RuleEffect:
        entries = [rule for rule in snapshot.rules if rule.effect is effect]
        if entries:
            document[effect.value] = [
                _rule(rule, f"{effect}[{index}]", snapshot.services) for index, rule in enumerate(entries)
            ]
    lists = {
        "shadow": [
            {"from": _names(edge.callers), "to": _names(edge.targets)} for edge in snapshot.shadow_edges
        ],
        "tests": [_test(test) for test in snapshot.tests],
        "roles": {name: _role(role) for name, role in snapshot.roles.items()},
        "attributes": {} if snapshot.attributes.is_empty else _attributes(snapshot.attributes),
        "directory": _directory(snapshot.directory),
        "detect": detection_entry(snapshot.detection),
        "audit": {"readers": sorted(snapshot.readers)} if snapshot.readers else {},
        "targets": targets_entry(snapshot.targets),
    }
    document |= {key: part for key, part in lists.items() if part}
    if snapshot.user_issuers:
        document["users"] = {"issuers": [_issuer(issuer) for issuer in snapshot.user_issuers]}
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
    if service.attributes:
        entry["attributes"] = _values(service.attributes)
    if service.is_canary:
        entry["canary"] = True
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
    if operation.leaves_resource:
        entry["resource"] = "application"
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
    if issuer.attributes:
        entry["attributes"] = {attribute.name: ".".join(attribute.path) for attribute in issuer.attributes}
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
    if rule.when is not None:
        entry["when"] = rule.when
    if rule.mode is not Mode.ENFORCE:
        entry["mode"] = rule.mode.value
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
    return {**entry, **facts_entry(test.context)}


def facts_entry(context: Context) -> dict[str, Any]:
    """Return the facts of a call as an entry of ``tests`` writes them."""
    entry: dict[str, Any] = {}
    if context.now is not None:
        entry["at"] = _value(context.now)
    if context.user is not None:
        entry["user"] = _user(context.user)
    if context.headers:
        entry["headers"] = {name: list(values) for name, values in sorted(context.headers.items())}
    if context.source_ip is not None:
        entry["source_ip"] = context.source_ip
    if context.device:
        entry["device"] = _values(context.device)
    if context.resource is not None:
        about = {"type": context.resource.type, "id": context.resource.id}
        entry["resource"] = {k: v for k, v in about.items() if v} | _values(context.resource.attributes)
    return entry


def _user(user: User) -> dict[str, Any]:
    known = {
        "id": user.id,
        "issuer": user.issuer,
        "roles": list(user.roles) or None,
        "amr": None if user.amr is None else list(user.amr),
        "acr": user.acr,
        "auth_time": None if user.auth_time is None else _value(user.auth_time),
    }
    return {key: value for key, value in known.items() if value is not None} | _values(user.attributes)


def _role(role: Role) -> dict[str, Any] | list[str]:
    grants = sorted(f"{service}.{operation or g.EVERY_OPERATION}" for service, operation in role.grants)
    more = {"includes": sorted(role.includes), "groups": sorted(role.groups)}
    more = {key: names for key, names in more.items() if names}
    if not more:
        return grants
    return {"grants": grants, **more} if grants else {**more}


def _attributes(attributes: Attributes) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    for kind, declared in attributes.by_kind.items():
        if declared:
            entry[kind] = {name: _attribute(attribute) for name, attribute in declared.items()}
    if attributes.headers:
        entry["request"] = {"headers": list(attributes.headers)}
    return entry


def _attribute(attribute: Attribute) -> str | dict[str, Any]:
    if attribute.default is None:
        return attribute.type.value
    return {"type": attribute.type.value, "default": _value(attribute.default)}


def _directory(directory: Directory) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    if directory.users:
        entry["users"] = {name: _directory_user(user) for name, user in directory.users.items()}
    if directory.resources:
        entry["resources"] = {name: _resource_type(kind) for name, kind in directory.resources.items()}
    return entry


def _directory_user(user: DirectoryUser) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    if user.roles:
        entry["roles"] = list(user.roles)
    if user.attributes:
        entry["attributes"] = _values(user.attributes)
    return entry


def _resource_type(kind: ResourceType) -> dict[str, Any]:
    entry: dict[str, Any] = {"service": kind.service}
    if kind.parameter is not None:
        entry["parameter"] = kind.parameter
    if kind.items:
        entry["items"] = {name: _values(values) for name, values in kind.items.items()}
    return entry


def _values(values: Mapping[str, Value]) -> dict[str, Any]:
    return {name: _value(value) for name, value in sorted(values.items())}


def _value(value: Value) -> str | list[str]:
    """Return a value as text: a policy document has no other scalars."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return rfc3339(value)
    return value if isinstance(value, str) else repr(value)
