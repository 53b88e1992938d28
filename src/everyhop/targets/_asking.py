# SPDX-License-Identifier: Apache-2.0
"""What proxies have in common that decide nothing and ask everyhop's authorizer for each request.

The authorizer decides by the policy alone.  It knows neither what a door needs besides (the schema of a body, what an application
decides of resources) nor who else stands on the hop, so such doors are shut before it is asked: for all their callers, because
the proxy does not know one from another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.authz.table import service_table
from everyhop.dataplane.paths import template_path_expression
from everyhop.policy.access import AccessIndex
from everyhop.policy.model import OUTSIDE, Protocol
from everyhop.targets._standalone import authorizer_of, upstream_of, upstream_warnings
from everyhop.targets.model import Feature

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.targets._standalone import Address
    from everyhop.targets.intents import Door, ServiceIntents
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

SHUT: Final = "shut"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One route, the first that meets a request decides: ``path`` is literal, or else an expression of whole paths."""

    method: str
    path: str
    is_literal: bool
    is_shut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedService:
    """One service behind such a proxy; ``lines`` are empty where nothing has to be shut.

    ``notes`` say for people what the authorizer will decide by: each door with its callers and rules.
    """

    name: str
    notes: tuple[str, ...]
    upstream: Address
    lines: tuple[Line, ...]
    grpc_paths: tuple[str, ...]
    has_websockets: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """The services that a target can be written for, the socket that it asks at, and what has to be said."""

    socket: str
    services: tuple[AskedService, ...]
    diagnostics: tuple[Diagnostic, ...]


def asking(view: View) -> Asking:
    """Return what is to be written; no service without an authorizer, or where a policy is only watched.

    Raises InputError for an option that is no address.
    """
    diagnostics: list[Diagnostic] = []
    address = authorizer_of(view)
    if address is None:
        diagnostics.append(
            view.error(
                "authorizer",
                f"{view.target} decides nothing by itself, and no authorizer is named",
                suggestion=f"targets: {view.target}: authorizer: unix:/run/everyhop/authorizer-http.sock",
            )
        )
        return Asking(socket="", services=(), diagnostics=tuple(diagnostics))
    if address.socket is None:
        diagnostics.append(
            view.error(
                "authorizer",
                f"{view.target} cannot check who answers at {address.host}:{address.port}: an SVID holds a URI, and it"
                " compares host names only",
                suggestion="name a Unix socket; where the agent is elsewhere, let an Envoy listen there",
            )
        )
        return Asking(socket="", services=(), diagnostics=tuple(diagnostics))
    if view.holder(Feature.SHADOW) is None and Feature.SHADOW in view.intents.features:
        # Already an error: the authorizer would let pass what is only watched.
        return Asking(socket=address.socket, services=(), diagnostics=())
    index = AccessIndex(view.intents.snapshot)
    services = []
    for service in view.intents:
        if service.service.is_canary or service.service.tcp is not None:
            continue
        shut = [door for door in service.doors if _is_shut(view, door)]
        diagnostics += [*upstream_warnings(view, service), *(_warning(view, door) for door in shut)]
        services.append(_asked(view, service, index, {(door.name, door.is_probe) for door in shut}))
    return Asking(socket=address.socket, services=tuple(services), diagnostics=tuple(diagnostics))


def _is_shut(view: View, door: Door) -> bool:
    """Tell whether somebody may pass only with something that nobody here holds.

    Callers from outside do not count: the authorizer knows none of them.
    """
    return any(grant.caller != OUTSIDE and not view.opens(door, grant) for grant in door.grants)


def _warning(view: View, door: Door) -> Diagnostic:
    message = f"{view.target} shuts {door} to everybody: it cannot tell its callers apart"
    return view.warning(SHUT, message, door=door)


def _asked(
    view: View, service: ServiceIntents, index: AccessIndex, shut: set[tuple[str, bool]]
) -> AskedService:
    operations = [door.operation for door in service.doors if door.operation is not None]
    lines = tuple(_lines(view, service, index, shut)) if shut else ()
    return AskedService(
        name=service.name,
        notes=tuple(_notes(view, service)),
        upstream=upstream_of(service),
        lines=lines,
        grpc_paths=tuple(sorted(o.route.template for o in operations if o.protocol is Protocol.GRPC)),
        has_websockets=any(o.protocol is Protocol.WEBSOCKET for o in operations),
    )


def _notes(view: View, service: ServiceIntents) -> Iterator[str]:
    for door in service.doors:
        route = "" if door.operation is None else f"{door.operation.route}"
        yield f"{door.name}: {route}"
        grants = view.grants(door)
        if not grants:
            yield "    nobody"
        spans = {
            one.rule.id: one.rule.span
            for grant in grants
            for one in grant.alternatives
            if one.rule is not None
        }
        for rule, span in sorted(spans.items()):
            callers = ", ".join(grant.caller for grant in grants if rule in grant.rules)
            yield f"    {callers}: {rule} ({_one_line(str(span))})"
        if door.is_probe and grants:
            yield "    every declared service"


def _lines(
    view: View, service: ServiceIntents, index: AccessIndex, shut: set[tuple[str, bool]]
) -> Iterator[Line]:
    """Yield every route in the order in which the policy's engine looks: spelt out paths, then templates."""
    table = service_table(view.intents.snapshot, service.name, index=index, callers=())
    kinds = {entry.operation.name: entry.is_probe for entry in table.entries}
    for path, methods in table.literal_index.items():
        for method, operation in methods.items():
            is_shut = (operation.name, kinds[operation.name]) in shut
            yield Line(method=method, path=path, is_literal=True, is_shut=is_shut)
    for operation in table.templates:
        yield Line(
            method=operation.route.method,
            path=template_path_expression(operation.route),
            is_literal=False,
            is_shut=(operation.name, kinds[operation.name]) in shut,
        )


def _one_line(text: str) -> str:
    """Return a text that ends no comment: names of files may hold anything."""
    return "".join(character if character.isprintable() else "?" for character in text)
