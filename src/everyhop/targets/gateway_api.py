# SPDX-License-Identifier: Apache-2.0
"""Routes of the Gateway API for operations that are open to outside.

They route and do not authorize: a path without a route is not reached through this gateway, and nothing more is said.  So each other
thing that a call needs there (a user, a token, a condition) has to be held by something that the option ``with`` names.
A path is matched exactly; a template needs a regular expression, whose syntax each implementation is free to choose, so it is written
only where somebody beside the gateway holds templates.
A route stands in the namespace of its service, so no ReferenceGrant is needed; the gateway's listener has to allow routes from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.policy.model import OUTSIDE, Protocol, SegmentKind
from everyhop.targets.model import Feature, Target
from everyhop.targets.objects import grant_note, obj, object_name, yaml_file
from everyhop.targets.reach import services_of
from everyhop.targets.yaml import Document, Noted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.policy.model import Operation
    from everyhop.targets.intents import Door, Grant, ServiceIntents
    from everyhop.targets.model import Diagnostic, File
    from everyhop.targets.view import View

__all__ = ["TARGET"]

_API: Final = "gateway.networking.k8s.io/v1"
_MOST_HOSTS: Final = 16
_MOST_MATCHES: Final = 64
_LONGEST_PATH: Final = 1024
_ROUTED: Final = frozenset(
    {
        Feature.IDENTITY,  # who comes from outside has none
        Feature.MTLS,
        Feature.OUTSIDE,
        Feature.ROUTE,
        Feature.AMBIGUOUS_PATHS,
        Feature.GRPC,
        Feature.WEBSOCKET,
        Feature.PROBES,
    }
)
_SPECIAL: Final = frozenset(".$()*+")
_NOTES: Final = (
    "Routes only: nothing here authorizes a call.",
    "Each backend is the Service with the policy's name for it; the gateway's listener has to allow routes from this namespace.",
)


class GatewayApi:
    """The compiler to HTTPRoutes and GRPCRoutes."""

    name = "gateway-api"
    summary = "HTTPRoute and GRPCRoute for operations open to outside; they route and do not authorize"

    def compile(self, view: View) -> tuple[list[File], list[Diagnostic]]:
        """Return ``gateway-api/NAMESPACE.yaml`` for each namespace with a service that is open to outside.

        Diagnostics: one by the name of a feature for each door that nobody holds, ``gateway`` (none is named), ``hosts`` (none, or too
        many), ``regex`` (an expression, so how it matches is up to the implementation), ``path`` (it is too long).
        """
        if not view.option("gateway"):
            return [], [
                view.error("gateway", "no Gateway is named", suggestion="targets: gateway-api: gateway")
            ]
        said: list[Diagnostic] = []
        if len(_hosts(view)) > _MOST_HOSTS:
            return [], [view.error("hosts", f"a route takes {_MOST_HOSTS} host names at most")]
        if not _hosts(view):
            said.append(
                view.warning("hosts", "no host is named: the routes hold for every host of the gateway")
            )
        files = []
        for namespace in view.intents.namespaces:
            documents = []
            for service in services_of(view, namespace):
                doors, more = _doors(view, service)
                said += more
                documents += list(_routes(view, service, doors))
            if documents:
                files.append(yaml_file(view, f"gateway-api/{namespace}.yaml", documents, *_NOTES))
        return files, said


TARGET: Final[Target] = GatewayApi()
"""The target as :mod:`everyhop.targets.compiling` finds it."""


def _hosts(view: View) -> tuple[str, ...]:
    gateway = view.intents.settings.gateway
    named: tuple[str, ...] = view.option("hosts")
    return named or (() if gateway is None else gateway.hosts)


def _doors(view: View, service: ServiceIntents) -> tuple[list[tuple[Door, Grant]], list[Diagnostic]]:
    """Return the doors to route to, each with the grant of outside, and what is said of the others."""
    found: list[tuple[Door, Grant]] = []
    said: list[Diagnostic] = []
    for door in service.doors:
        for grant in door.grants:
            if grant.caller != OUTSIDE or door.operation is None:
                continue
            lacking = _lacking(view, door, grant)
            for feature in lacking:
                message = (
                    f"the gateway routes to {door} and does not hold {feature}, nor does anything beside it"
                )
                hint = "name in `with` what holds it"
                said.append(view.error(feature, message, door=door, rules=grant.rules, suggestion=hint))
            if lacking:
                continue
            if len(_path(door.operation)["value"]) > _LONGEST_PATH:
                said.append(view.error("path", f"the path of {door} is longer than a route takes", door=door))
                continue
            if not door.operation.route.is_literal:
                message = f"the path of {door} is a regular expression: how it is read is up to the gateway's implementation"
                said.append(view.warning("regex", message, door=door))
            found.append((door, grant))
    return found, said


def _lacking(view: View, door: Door, grant: Grant) -> list[Feature]:
    """Return what a call from outside needs there beside its route, and nobody holds, of the best alternative."""
    always = set(door.features) | ({Feature.CONDITIONAL_DENY} if grant.denied_if else set())
    needs = [
        {one for one in always | alternative.needs if one not in _ROUTED and view.held_beside(one) is None}
        for alternative in grant.alternatives
    ]
    return min((sorted(one) for one in needs), key=len)


def _routes(view: View, service: ServiceIntents, doors: list[tuple[Door, Grant]]) -> Iterator[Document]:
    grpc = [one for one in doors if _protocol(one[0]) is Protocol.GRPC]
    http = [one for one in doors if _protocol(one[0]) is not Protocol.GRPC]
    for kind, prefix, those in (("HTTPRoute", "http", http), ("GRPCRoute", "grpc", grpc)):
        for number, start in enumerate(range(0, len(those), _MOST_MATCHES)):
            names = (service.name,) if number == 0 else (service.name, str(number))
            matches = [
                Noted(_match(door), grant_note(door, grant))
                for door, grant in those[start : start + _MOST_MATCHES]
            ]
            rule: dict[str, Any] = {
                "matches": matches,
                "backendRefs": [{"name": service.name, "port": service.port}],
            }
            if kind == "HTTPRoute" and service.place.timeout is not None:
                rule["timeouts"] = {"request": f"{service.place.timeout}s"}
            spec = {**_parent(view), "rules": [rule]}
            made = obj(view, _API, kind, object_name(prefix, *names), service.place.namespace, spec)
            span = service.service.span
            yield Document(made, (f"{service.name}, at {span.file}:{span.line}",))


def _protocol(door: Door) -> Protocol | None:
    return None if door.operation is None else door.operation.protocol


def _parent(view: View) -> dict[str, Any]:
    parent = {"name": view.option("gateway")}
    if view.option("gateway_namespace"):
        parent["namespace"] = view.option("gateway_namespace")
    hosts = _hosts(view)
    return {"parentRefs": [parent]} | ({"hostnames": list(hosts)} if hosts else {})


def _match(door: Door) -> dict[str, Any]:
    operation = door.operation
    if operation is None:
        raise AssertionError(f"{door} has no route")  # pragma: no cover  # only operations come here
    if operation.protocol is Protocol.GRPC:
        service, _, method = operation.route.template[1:].partition("/")
        return {"method": {"type": "Exact", "service": service, "method": method}}
    return {"path": _path(operation), "method": operation.route.method}


def _path(operation: Operation) -> dict[str, str]:
    route = operation.route
    if route.is_literal:
        return {"type": "Exact", "value": route.template}
    return {
        "type": "RegularExpression",
        "value": "".join(_segment(one.kind, one.text) for one in route.segments),
    }


def _segment(kind: SegmentKind, text: str) -> str:
    if kind is SegmentKind.PARAMETER:
        return "/[^/]+"
    if kind is SegmentKind.REST:
        return "/.*"
    return "/" + "".join(f"\\{one}" if one in _SPECIAL else one for one in text)
