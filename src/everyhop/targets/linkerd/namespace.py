# SPDX-License-Identifier: Apache-2.0
"""Everything that Linkerd is told in one namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.policy.model import OUTSIDE, Protocol
from everyhop.targets.linkerd.clients import (
    V1BETA3,
    Clients,
    authorizations,
    clients_of,
    mesh_authentication,
    network_authentication,
)
from everyhop.targets.linkerd.egress import Egresses
from everyhop.targets.linkerd.resilience import resilience_documents
from everyhop.targets.linkerd.routes import ServiceRoutes
from everyhop.targets.objects import grant_note, obj, object_name
from everyhop.targets.yaml import Document

if TYPE_CHECKING:
    from everyhop.targets.intents import Door, ServiceIntents
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

DENY: Final = {"config.linkerd.io/default-inbound-policy": "deny", "linkerd.io/inject": "enabled"}


def namespace_documents(view: View, namespace: str) -> tuple[list[Document], list[Diagnostic]]:
    """Return the objects of a namespace in the order in which they should be applied: what refuses before what opens."""
    services = [one for one in view.intents if one.place.namespace == namespace and not one.service.is_canary]
    compiled = [_Service(view, service) for service in services]
    sets = {clients: None for one in compiled for clients in one.clients}
    egress = Egresses(view, namespace)
    documents = [
        Document(obj(view, "v1", "Namespace", namespace, None, None, annotations=DENY)),
        *(document for one in compiled for document in one.documents),
        *_authentications(view, namespace, sets),
        *egress.documents(),
        *(document for service in services for document in resilience_documents(view, service)),
    ]
    found = [diagnostic for one in compiled for diagnostic in one.diagnostics]
    return documents, [*found, *egress.diagnostics]


def _authentications(view: View, namespace: str, sets: dict[Clients, None]) -> list[Document]:
    by_callers = {clients.callers: clients for clients in sets}
    made = [mesh_authentication(view, namespace, by_callers[callers]) for callers in sorted(by_callers)]
    if any(clients.networks for clients in sets):
        made.append(network_authentication(view, namespace))
    return made


class _Service:
    """One service: its Server, and what is open there."""

    def __init__(self, view: View, service: ServiceIntents) -> None:
        self.documents: list[Document] = []
        self.clients: tuple[Clients, ...] = ()
        self.diagnostics: list[Diagnostic] = []
        self._view = view
        server = object_name("server", service.name)
        self.documents.append(Document(_server(view, service, server)))
        if service.service.tcp is not None:
            (door,) = service.doors
            self._open_tcp(service, server, door)
        else:
            routes = ServiceRoutes(view, service, server)
            self.documents += routes.documents()
            self.clients = routes.clients
            self.diagnostics += routes.diagnostics
        self._say_what_stays_shut(service)

    def _open_tcp(self, service: ServiceIntents, server: str, door: Door) -> None:
        clients, grants = clients_of(self._view, door)
        if clients:
            note = grant_note(door, *grants)
            namespace = service.place.namespace
            self.documents += authorizations(self._view, namespace, "Server", server, clients, note)
            self.clients = (clients,)

    def _say_what_stays_shut(self, service: ServiceIntents) -> None:
        settings = self._view.intents.settings
        for door in service.doors:
            if settings.gateway is None:
                self._say_no_gateway(door)
            if door.is_probe and not settings.probe_networks and self._view.grants(door):
                message = (
                    f"the kubelet's probes of {door} are refused: it has no identity, and no network is named"
                )
                hint = "name the nodes' networks in targets: probe_networks"
                self.diagnostics.append(
                    self._view.warning("probe-networks", message, door=door, suggestion=hint)
                )

    def _say_no_gateway(self, door: Door) -> None:
        for grant in door.grants:
            if grant.caller == OUTSIDE and self._view.opens(door, grant):
                message = f"linkerd opens {door} to nobody outside: no gateway carries them"
                hint = "name its namespace and service account in targets: gateway"
                self.diagnostics.append(
                    self._view.error("gateway", message, door=door, rules=grant.rules, suggestion=hint)
                )


def _server(view: View, service: ServiceIntents, name: str) -> dict[str, Any]:
    spec = {
        "podSelector": {"matchLabels": dict(sorted(service.place.labels.items()))},
        "port": service.port,
        "proxyProtocol": _protocol(service),
        "accessPolicy": "deny",
    }
    return obj(view, V1BETA3, "Server", name, service.place.namespace, spec)


def _protocol(service: ServiceIntents) -> str:
    """Return how the port is read: never ``gRPC``, under which Linkerd looks at no HTTPRoute."""
    if service.service.tcp is not None:
        return "opaque"
    operations = [door.operation for door in service.doors if door.operation is not None]
    is_grpc = bool(operations) and all(one.protocol is Protocol.GRPC for one in operations)
    return "HTTP/2" if is_grpc else "unknown"
