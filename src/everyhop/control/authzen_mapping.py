# SPDX-License-Identifier: Apache-2.0
"""What the entities of AuthZEN mean here: a question becomes a call that the policy knows.

A resource names the service that is called and, with the action, its operation; the subject is the service that calls,
or the user for whom somebody calls.  Where the operation has a route, the question becomes the request that a sidecar
would see, so that conditions read the same path and query.  docs/reference/authzen.md has the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from everyhop.control.authzen_facts import stated_context, stated_resource, stated_user
from everyhop.core.errors import AccessDenied, InputError
from everyhop.policy.model import OUTSIDE, SegmentKind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from everyhop.authzen import Evaluation
    from everyhop.control.authzen_peps import Pep
    from everyhop.policy.facts import Context, User
    from everyhop.policy.model import Route, Service, Snapshot

USERS: Final = frozenset({"user", "identity"})
NOBODY: Final = "(nobody)"
"""Who calls for a subject of a type that means nothing here; no identity reads so."""

SERVICE: Final = "service"
ROUTE: Final = "route"
_FORBIDDEN: Final = "this PEP may not ask about this resource, or there is none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A call to decide about.

    ``caller`` is a SPIFFE ID, ``outside``, or a text that no policy declares; ``target`` a service, None for a resource
    of which nobody knows the service.  Either ``door`` names an operation (and ``method`` and ``path`` are the request
    that would come to it, where there is exactly one), or only ``method`` and ``path`` are given.
    """

    caller: str
    target: str | None
    door: str | None
    method: str | None
    path: str | None
    context: Context


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a question leads: a service, and one of its doors by name or by request."""

    target: str | None
    door: str | None = None
    method: str | None = None
    path: str | None = None
    kind: str | None = None


def read_question(asked: Evaluation, *, snapshot: Snapshot, pep: Pep, now: datetime) -> Question:
    """Return the call that a question is about.

    Raises AccessDenied for what this PEP may not ask, InputError for properties that have no one meaning.
    """
    place = _place(asked, snapshot, pep)
    name, caller, user = _caller(asked, snapshot, pep)
    if place.target is None:
        if pep.service is None:  # the holder of a key learns nothing about what there is elsewhere
            raise AccessDenied(_FORBIDDEN)
    elif not pep.may_ask(caller=name, target=place.target) or (
        place.door is not None and not pep.may_ask_about(target=place.target, operation=place.door)
    ):
        raise AccessDenied(_FORBIDDEN)
    resource = stated_resource(snapshot, asked.resource, kind=place.kind)
    return Question(
        caller=caller,
        target=place.target,
        door=place.door,
        method=place.method,
        path=place.path,
        context=stated_context(snapshot, asked.context, user=user, resource=resource, now=now),
    )


def service_named(snapshot: Snapshot, text: str) -> str | None:
    """Return the service that a name or a SPIFFE ID means, or None."""
    if text in snapshot.services:
        return text
    owner = snapshot.service_of(text)
    return None if owner is None else owner.name


def _caller(asked: Evaluation, snapshot: Snapshot, pep: Pep) -> tuple[str, str, User | None]:
    """Return the name of the caller, the caller as the engine knows it, and the user."""
    if asked.subject.type == SERVICE:
        name, user = asked.subject.id, None
    else:
        stated = asked.context.get("caller", pep.default_caller)
        if not isinstance(stated, str):
            raise InputError("context.caller is the name or SPIFFE ID of a service, or outside")
        name, user = stated, None
        if asked.subject.type not in USERS:
            # A type that means nothing here calls nothing; the question is still the PEP's own.  What it says is
            # not made into a name: "spiffe" and "//…" would be somebody's.
            return name, NOBODY, None
        user = stated_user(snapshot, asked.subject)
    if name == OUTSIDE:
        return OUTSIDE, OUTSIDE, user
    owner = service_named(snapshot, name)
    if owner is None:
        return name, name, user
    return owner, str(snapshot.services[owner].spiffe_id), user


def _place(asked: Evaluation, snapshot: Snapshot, pep: Pep) -> _Place:
    resource, action = asked.resource, asked.action
    if resource.type == ROUTE:
        return _by_route(asked, snapshot, pep)
    if resource.type == SERVICE:
        target = service_named(snapshot, resource.id) or resource.id
        # A path alone may be the parameter of a route; with a method it is a request.
        method = _stated(asked, "method")
        path = None if method is None else _stated(asked, "path")
        if method is not None and path is not None:
            return _Place(target=target, method=method, path=path)
        return _by_name(asked, snapshot.services.get(target), target, None, None)
    declared = snapshot.directory.resources.get(resource.type)
    if declared is None:
        return _Place(target=None, door=action.name)
    service = snapshot.services[declared.service]
    return _by_name(asked, service, declared.service, declared.name, declared.parameter)


def _by_route(asked: Evaluation, snapshot: Snapshot, pep: Pep) -> _Place:
    """Read a resource of the type ``route``: its id is a raw path, or the template of a route as it is declared."""
    stated = asked.resource.properties.get("service", pep.service)
    if not isinstance(stated, str):
        raise InputError("resource.properties.service names the service of the route")
    target = service_named(snapshot, stated) or stated
    method, path = asked.action.name, asked.resource.id
    service = snapshot.services.get(target)
    if "{" in path and service is not None:
        for operation in service.operations:
            if operation.route.method == method and operation.route.template == path:
                return _by_name(asked, service, target, None, None, door=operation.name)
    return _Place(target=target, method=method, path=path)


def _by_name(
    asked: Evaluation,
    service: Service | None,
    target: str,
    kind: str | None,
    parameter: str | None,
    *,
    door: str | None = None,
) -> _Place:
    name = door or asked.action.name
    operation = None if service is None else next((o for o in service.operations if o.name == name), None)
    if operation is None:
        return _Place(target=target, door=name, kind=kind)
    known = {} if parameter is None else {parameter: asked.resource.id}
    path = _request_path(operation.route, known, asked)
    method = None if path is None else operation.route.method
    return _Place(target=target, door=name, kind=kind, method=method, path=path)


def _request_path(route: Route, known: Mapping[str, str], asked: Evaluation) -> str | None:
    """Return the path and query of the request that an action means, None where a parameter is not known.

    Parameters come from the id of the resource, then from properties of the action, then of the resource; what else the
    action has of simple properties is the query.
    """
    parts: list[str] = []
    used: set[str] = set()
    for segment in route.segments:
        if segment.kind is SegmentKind.LITERAL:
            parts.append(segment.text)
            continue
        value = known.get(segment.text)
        if value is None:
            used.add(segment.text)
            value = _simple(
                asked.action.properties.get(segment.text, asked.resource.properties.get(segment.text))
            )
        if value is None:
            return None
        parts.append(quote(value, safe="/" if segment.kind is SegmentKind.REST else ""))
    query = "&".join(
        f"{quote(name, safe='')}={quote(text, safe='')}"
        for name, value in asked.action.properties.items()
        if name not in used and (text := _simple(value)) is not None
    )
    path = "/" + "/".join(parts)
    return f"{path}?{query}" if query else path


def _simple(value: object) -> str | None:
    """Return a simple JSON value as a client would write it into a URL, None for any other."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None


def _stated(asked: Evaluation, name: str) -> str | None:
    value: Any = asked.action.properties.get(name, asked.resource.properties.get(name))
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} is a string")
    return value
