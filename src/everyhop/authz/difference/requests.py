# SPDX-License-Identifier: Apache-2.0
"""From chosen values to a request: path, query and facts that make conditions see these values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote

from everyhop.conditions.rendering import quote as literal
from everyhop.policy.facts import MULTI_FACTOR, Context, Resource, User
from everyhop.policy.model import SegmentKind
from everyhop.policy.vocabulary import HEADERS, PATH_PARAMETERS, QUERY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from everyhop.authz.difference.model import Users
    from everyhop.authz.difference.paths import Pair
    from everyhop.conditions import Condition
    from everyhop.policy.facts import Value

V = TypeVar("V")
SOMEONE: Final = "someone"
_RAW: Final = "!$&'()*+,=:@"
_FIXED: Final = frozenset({"operation", "request.method", "user.roles"})


def keys_of(conditions: Iterable[Condition]) -> dict[str, tuple[str, str]]:
    """Return the map and the key behind each name such as ``request.headers['x-region']``."""
    return {
        f"{variable}[{literal(key)}]": (variable, key)
        for condition in conditions
        for variable, keys in condition.keys.items()
        for key in keys
    }


def is_chosen(name: str) -> bool:
    """Tell whether the value of a name is chosen here; caller, target and operation are given by the door."""
    return name not in _FIXED and not name.startswith(("caller.", "target."))


def request(
    pair: Pair, users: Users, chosen: Mapping[str, object], keys: Mapping[str, tuple[str, str]]
) -> tuple[str | None, Context]:
    """Return path (with query) and context for a choice of values by name; what is None is absent.

    ``keys`` is what ``keys_of`` says of the names that mean an entry of a map.
    """
    known = {name: value for name, value in chosen.items() if value is not None and name not in keys}
    maps: dict[str, dict[str, str]] = {}
    for variable in (PATH_PARAMETERS, QUERY, HEADERS):
        whole = known.get(variable)
        maps[variable] = dict(whole) if isinstance(whole, dict) else {}
    for name, (variable, key) in keys.items():
        if (value := chosen.get(name)) is not None:
            maps[variable][key] = str(value)
    return _path(pair, known.get("request.path"), maps), Context(
        now=known.get("now"),  # type: ignore[arg-type]  # a sample of its declared type, as all below
        user=_user(users, known),
        device=_attributes("device", known),
        headers={name: (value,) for name, value in maps[HEADERS].items()},
        source_ip=known.get("request.source_ip"),  # type: ignore[arg-type]
        resource=_resource(known),
    )


def shorter(context: Context) -> Iterator[Context]:
    """Yield contexts that state one fact less."""
    if context.now is not None:
        yield replace(context, now=None)
    if context.source_ip is not None:
        yield replace(context, source_ip=None)
    for name in context.device:
        yield replace(context, device=_without(context.device, name))
    for name in context.headers:
        yield replace(context, headers=_without(context.headers, name))
    if context.resource is not None:
        yield replace(context, resource=None)
        for name in context.resource.attributes:
            less = _without(context.resource.attributes, name)
            yield replace(context, resource=replace(context.resource, attributes=less))
    if context.user is not None:
        for user in _shorter_user(context.user):
            yield replace(context, user=user)


def _shorter_user(user: User) -> Iterator[User]:
    if user.issuer is not None:
        yield replace(user, issuer=None)
    if user.amr is not None:
        yield replace(user, amr=None)
    if user.acr is not None:
        yield replace(user, acr=None)
    if user.auth_time is not None:
        yield replace(user, auth_time=None)
    for name in user.attributes:
        yield replace(user, attributes=_without(user.attributes, name))


def _without(mapping: Mapping[str, V], name: str) -> dict[str, V]:
    return {key: value for key, value in mapping.items() if key != name}


def _user(users: Users, known: Mapping[str, object]) -> User | None:
    if users.is_nobody:
        return None
    amr: tuple[str, ...] | None = known.get("user.amr")  # type: ignore[assignment]  # a sample of strings
    if (is_multi := known.get("user.mfa")) is not None:
        rest = tuple(method for method in amr or () if method != MULTI_FACTOR)
        amr = (MULTI_FACTOR, *rest) if is_multi else rest
    built_in = ("user.id", "user.issuer", "user.acr", "user.auth_time", "user.amr", "user.mfa")
    return User(
        id=users.id or str(known.get("user.id") or SOMEONE),
        issuer=known.get("user.issuer"),  # type: ignore[arg-type]
        roles=users.roles,
        amr=amr,
        acr=known.get("user.acr"),  # type: ignore[arg-type]
        auth_time=known.get("user.auth_time"),  # type: ignore[arg-type]
        attributes={
            name: value
            for name, value in _attributes("user", known).items()
            if f"user.{name}" not in built_in
        },
    )


def _resource(known: Mapping[str, object]) -> Resource | None:
    stated = _attributes("resource", known)
    if not stated:
        return None
    about = {name: str(stated[name]) for name in ("type", "id") if name in stated}
    return Resource(
        **about, attributes={name: value for name, value in stated.items() if name not in {"type", "id"}}
    )


def _attributes(kind: str, known: Mapping[str, object]) -> dict[str, Value]:
    prefix = f"{kind}."
    return {
        name.removeprefix(prefix): value  # type: ignore[misc]
        for name, value in known.items()
        if name.startswith(prefix)
    }


def _path(pair: Pair, wanted: object, maps: Mapping[str, Mapping[str, str]]) -> str | None:
    if pair.path is None:
        return None
    path = wanted if isinstance(wanted, str) and wanted.startswith("/") else pair.path
    if parameters := maps[PATH_PARAMETERS]:
        segments = path[1:].split("/")
        for door in (pair.old, pair.new):
            operation = None if door is None else door.operation
            for index, part in enumerate(() if operation is None else operation.route.segments):
                if part.text not in parameters or index >= len(segments):
                    continue
                if part.kind is SegmentKind.PARAMETER:
                    segments[index] = quote(parameters[part.text], safe=_RAW)
                elif part.kind is SegmentKind.REST:
                    segments[index:] = [quote(parameters[part.text], safe=_RAW + "/")]
        path = "/" + "/".join(segments)
    if query := maps[QUERY]:
        path += "?" + "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in query.items())
    return path
