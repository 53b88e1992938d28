# SPDX-License-Identifier: Apache-2.0
"""What a PEP states about subject, resource and environment, as typed facts for conditions.

Only declared attributes are read, each of its declared type.  Names are compared without regard to case, because PEPs
write them in their own style; two that differ in case alone have two readings and are refused.
"""

from __future__ import annotations

import ipaddress
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from everyhop.conditions import ValueType
from everyhop.core.clock import parse_rfc3339
from everyhop.core.errors import InputError
from everyhop.policy.facts import Context, Resource, User

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.authzen import Entity
    from everyhop.policy.facts import Value
    from everyhop.policy.model import Snapshot
    from everyhop.policy.vocabulary import Attribute

MAX_ROLES: Final = 256
READ_OF_ANY_USER: Final = ("issuer", "roles", "amr", "acr", "auth_time")
_LARGEST: Final = 2**63 - 1
_MAX_SECONDS: Final = 2**40


def stated_user(snapshot: Snapshot, subject: Entity) -> User:
    """Return a user as the PEP describes them; the roles of whom the directory knows are the directory's.

    Raises InputError for a property of another type than its own.
    """
    stated = _folded(subject.properties, "subject.properties")
    issuer = _text(stated, "issuer")
    # As the engine sees it: with several issuers, an id with an issuer is not the directory's.
    is_known = subject.id in snapshot.directory.users and (issuer is None or len(snapshot.user_issuers) <= 1)
    return User(
        id=subject.id,
        issuer=issuer,
        roles=() if is_known else _texts(stated, "roles") or (),
        amr=_texts(stated, "amr"),
        acr=_text(stated, "acr"),
        auth_time=_moment(stated, "auth_time"),
        attributes=_attributes(stated, snapshot.attributes.of("user"), "subject.properties"),
    )


def stated_resource(snapshot: Snapshot, resource: Entity, *, kind: str | None) -> Resource:
    """Return a resource as the PEP describes it; ``kind`` is its declared type, None for a door that is asked about.

    Raises InputError for a property of another type than its own.
    """
    stated = _folded(resource.properties, "resource.properties")
    attributes = _attributes(stated, snapshot.attributes.of("resource"), "resource.properties")
    return Resource(type=kind, id=None if kind is None else resource.id, attributes=attributes)


def stated_context(
    snapshot: Snapshot, context: Mapping[str, Any], *, user: User | None, resource: Resource, now: datetime
) -> Context:
    """Return the facts of one question: ``device``, ``headers`` and the address from the PEP, the time from us.

    Raises InputError for a member of another form than its own.
    """
    device = _folded(_mapping(context.get("device"), "context.device"), "context.device")
    return Context(
        now=now,
        user=user,
        device=_attributes(device, snapshot.attributes.of("device"), "context.device"),
        headers=_headers(context.get("headers"), snapshot.attributes.headers),
        source_ip=_address(context),
        resource=resource,
    )


def _folded(members: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return members by their names in lower case, without those that are null."""
    found: dict[str, Any] = {}
    for name, value in members.items():
        folded = name.lower()
        if folded in found:
            raise InputError(f"{where}: two names differ in case alone")
        found[folded] = value
    return {name: value for name, value in found.items() if value is not None}


def _attributes(stated: Mapping[str, Any], declared: Mapping[str, Attribute], where: str) -> dict[str, Value]:
    return {
        name: _value(stated[name], attribute.type, f"{where}.{name}")
        for name, attribute in declared.items()
        if name in stated
    }


def _value(value: object, kind: ValueType, where: str) -> Value:  # one branch a type
    """Return a JSON value as one of a declared type; raises InputError."""
    if kind is ValueType.BOOL and isinstance(value, bool):
        return value
    if kind is ValueType.STRING and isinstance(value, str):
        return value
    if kind is ValueType.STRINGS and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    if kind is ValueType.TIMESTAMP and isinstance(value, str):
        try:
            return parse_rfc3339(value)
        except ValueError as error:
            raise InputError(f"{where} is a time such as 2026-01-31T09:00:00Z") from error
    if isinstance(value, int | float) and not isinstance(value, bool):
        if kind is ValueType.DOUBLE and math.isfinite(value):
            return float(value)
        if kind is ValueType.INT and value == int(value) and abs(value) <= _LARGEST:
            return int(value)
    raise InputError(f"{where} is of the type {kind.value}")


def _text(stated: Mapping[str, Any], name: str) -> str | None:
    value = stated.get(name)
    if value is not None and not isinstance(value, str):
        raise InputError(f"subject.properties.{name} is a string")
    return value


def _texts(stated: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    value = stated.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MAX_ROLES or not all(isinstance(v, str) for v in value):
        raise InputError(f"subject.properties.{name} is an array of at most {MAX_ROLES} strings")
    return tuple(value)


def _moment(stated: Mapping[str, Any], name: str) -> datetime | None:
    value = stated.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= _MAX_SECONDS:
        raise InputError(f"subject.properties.{name} is a number of whole seconds since 1970")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, OSError, ValueError) as error:
        raise InputError(f"subject.properties.{name} is too far away") from error


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where} is an object")
    return value


def _headers(value: object, chosen: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the headers that conditions may read, every line of them."""
    stated = _folded(_mapping(value, "context.headers"), "context.headers")
    found: dict[str, tuple[str, ...]] = {}
    for name in chosen:
        lines = stated.get(name)
        if isinstance(lines, str):
            lines = [lines]
        if lines is None:
            continue
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            raise InputError(f"context.headers.{name} is a string, or an array of strings")
        found[name] = tuple(lines)
    return found


def _address(context: Mapping[str, Any]) -> str | None:
    value = context.get("source_ip", context.get("ip"))
    if value is None:
        return None
    if not isinstance(value, str):  # a number would be read as an address too
        raise _no_address()
    try:
        return str(ipaddress.ip_address(value))
    except ValueError as error:
        raise _no_address() from error


def _no_address() -> InputError:
    return InputError("context.source_ip is an IP address")
