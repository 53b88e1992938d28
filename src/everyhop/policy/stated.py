# SPDX-License-Identifier: Apache-2.0
"""Facts of a call that somebody states in words (command line, forms), typed by what the policy declares.

What the policy does not declare is refused, with a guess at what was meant: a fact that is dropped silently would make
an answer about another call than the one that was asked about.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from everyhop.conditions import ValueType
from everyhop.core.errors import InputError
from everyhop.core.names import nearest
from everyhop.policy._attributes import read_moment, read_value
from everyhop.policy._nodes import Items, Text
from everyhop.policy._problems import Problems
from everyhop.policy.facts import MULTI_FACTOR, Context, Resource, User

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from everyhop.policy._nodes import Node
    from everyhop.policy.facts import Value
    from everyhop.policy.model import Snapshot

KINDS: Final = ("user", "device", "resource")
SOMEONE: Final = "someone"
"""The id of a user of whom only other things are stated."""

_MAX_TEXT: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """Facts in words; what is None or empty is not stated.

    ``attributes`` and ``headers`` are ``NAME=VALUE`` (of attributes ``user.department=sales``; a list is written with
    commas), a header that is stated twice came twice.  ``resource`` is ``TYPE/ID``, ``at`` an RFC 3339 time.
    """

    user: str | None = None
    issuer: str | None = None
    roles: tuple[str, ...] = ()
    mfa: bool | None = None
    amr: tuple[str, ...] = ()
    acr: str | None = None
    attributes: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    source_ip: str | None = None
    resource: str | None = None
    at: str | None = None

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing is stated."""
        return self == _NOTHING


def read_stated(snapshot: Snapshot, stated: Stated, *, now: datetime) -> Context:
    """Return the context; ``now`` is the time where none is stated.  Raises InputError with a suggestion."""
    attributes = _attributes(snapshot, stated.attributes)
    return Context(
        now=now if stated.at is None else _moment(stated.at),
        user=_user(snapshot, stated, attributes["user"]),
        device=MappingProxyType(attributes["device"]),
        headers=_headers(snapshot, stated.headers),
        source_ip=None if stated.source_ip is None else _address(stated.source_ip),
        resource=_resource(snapshot, stated.resource, attributes["resource"]),
    )


def _user(snapshot: Snapshot, stated: Stated, attributes: dict[str, Value]) -> User | None:
    said = (stated.user, stated.issuer, stated.roles, stated.amr, stated.acr, attributes)
    if not any(said) and stated.mfa is None:
        return None
    if stated.mfa is not None and stated.amr:
        raise InputError("say either how the user signed in (amr), or that it was with several factors (mfa)")
    amr: tuple[str, ...] | None = stated.amr or None
    if stated.mfa is not None:
        amr = (MULTI_FACTOR,) if stated.mfa else ()
    known = snapshot.roles.keys() | {group for role in snapshot.roles.values() for group in role.groups}
    for role in stated.roles:
        if known and role not in known:
            raise _unknown("role or group", role, known)
    issuers = [issuer.issuer for issuer in snapshot.user_issuers]
    if stated.issuer is not None and stated.issuer not in issuers:
        raise _unknown("issuer", stated.issuer, issuers)
    issuer = stated.issuer or (issuers[0] if len(issuers) == 1 else None)
    return User(
        id=_line(stated.user or SOMEONE, "user"),
        issuer=issuer,
        roles=stated.roles,
        amr=amr,
        acr=stated.acr,
        attributes=MappingProxyType(attributes),
    )


def _attributes(snapshot: Snapshot, texts: tuple[str, ...]) -> dict[str, dict[str, Value]]:
    found: dict[str, dict[str, Value]] = {kind: {} for kind in KINDS}
    every = [f"{kind}.{name}" for kind in KINDS for name in snapshot.attributes.of(kind)]
    for text in texts:
        name, equals, value = text.partition("=")
        kind, _, attribute = name.partition(".")
        if not equals:
            raise InputError(f"not an attribute: {text[:60]!r}", hint="write user.department=sales")
        declared = snapshot.attributes.of(kind).get(attribute) if kind in KINDS else None
        if declared is None:
            raise _unknown("attribute", name, every)
        if attribute in found[kind]:
            raise InputError(f"{name} is stated twice")
        found[kind][attribute] = _value(value, declared.type, name)
    return found


def _value(text: str, kind: ValueType, name: str) -> Value:
    problems = Problems()
    node: Node = Text(text, name, 1, 1)
    if kind is ValueType.STRINGS:
        parts = text.split(",") if text else []
        node = Items(tuple(Text(part, name, 1, 1) for part in parts), name, 1, 1)
    value = read_value(node, kind, name, problems)
    if value is None:
        expected = "a list of texts" if kind is ValueType.STRINGS else f"a value of type {kind}"
        raise InputError(f"{name}: {text[:60]!r} is not {expected}")
    return value


def _headers(snapshot: Snapshot, texts: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.lower()
        if not equals:
            raise InputError(f"not a header: {text[:60]!r}", hint="write x-region=eu")
        if name not in snapshot.attributes.headers:
            raise _unknown("header", name, snapshot.attributes.headers)
        found[name] = (*found.get(name, ()), value)
    return MappingProxyType(found)


def _resource(snapshot: Snapshot, text: str | None, attributes: dict[str, Value]) -> Resource | None:
    if text is None and not attributes:
        return None
    kind, slash, identifier = (text or "/").partition("/")
    if not slash or (text is not None and not (kind and identifier)):
        raise InputError(f"not a resource: {str(text)[:60]!r}", hint="write TYPE/ID, e.g. order/7")
    types = snapshot.directory.resources
    if kind and types and kind not in types:
        raise _unknown("type of resource", kind, types)
    return Resource(type=kind or None, id=identifier or None, attributes=MappingProxyType(attributes))


def _moment(text: str) -> datetime:
    try:
        return read_moment(text)
    except ValueError:
        raise InputError(f"not a time: {text[:60]!r}", hint="e.g. 2026-01-31T09:00:00Z") from None


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise InputError(f"{text[:60]!r} is no IP address") from None


def _line(text: str, what: str) -> str:
    if not text.isprintable() or len(text) > _MAX_TEXT:
        raise InputError(f"{what}: one line of at most {_MAX_TEXT} characters")
    return text


def _unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    names = sorted(known)
    near = nearest(name[:80], names)
    hint = f"did you mean {near!r}?" if near else f"declared: {', '.join(names[:20]) or 'none'}"
    return InputError(f"the policy declares no {what} {name[:80]!r}", hint=hint)


_NOTHING: Final = Stated()
