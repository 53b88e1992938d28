# SPDX-License-Identifier: Apache-2.0
"""What callers need to call as the policy says: mutual TLS, timeouts and retries, and the hosts they see.

The Service of a service is taken to have its name.  What a Sidecar leaves out is routing hygiene and no security boundary: a process
can go around its proxy, so the server's side decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.targets.objects import obj, object_name
from everyhop.targets.yaml import Document

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from everyhop.policy.targets import Egress
    from everyhop.targets.intents import ServiceIntents
    from everyhop.targets.istio.ground import Ground
    from everyhop.targets.view import View

NETWORKING: Final = "networking.istio.io/v1"
_RETRY_ON: Final = "connect-failure,refused-stream"
"""Only what no application has seen: another reason would send a call twice, and a token that is good once only once."""


def host_of(view: View, name: str) -> str:
    """Return the DNS name of a service in the cluster."""
    namespace = view.intents.settings.place(name).namespace
    return f"{name}.{namespace}.svc.{view.intents.settings.cluster_domain}"


def destination_rule(view: View, service: ServiceIntents) -> Document:
    """Return the rule by which callers use mutual TLS, whatever the mesh does by itself."""
    spec = {"host": host_of(view, service.name), "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}}
    name = object_name("service", service.name)
    return Document(obj(view, NETWORKING, "DestinationRule", name, service.place.namespace, spec))


def virtual_service(view: View, service: ServiceIntents) -> Document | None:
    """Return timeout and retries, or None where nothing is said of them or bytes are spoken."""
    place = service.place
    if service.service.tcp is not None or (place.timeout is None and place.retries is None):
        return None
    host = host_of(view, service.name)
    route: dict[str, Any] = {"route": [{"destination": {"host": host}}]}
    if place.timeout is not None:
        route["timeout"] = f"{place.timeout}s"
    if place.retries is not None:
        route["retries"] = {"attempts": place.retries} | ({"retryOn": _RETRY_ON} if place.retries else {})
    name = object_name("service", service.name)
    spec = {"hosts": [host], "http": [route]}
    return Document(obj(view, NETWORKING, "VirtualService", name, place.namespace, spec))


def sidecar(ground: Ground, service: ServiceIntents, targets: Iterable[str], *, asks: bool) -> Document:
    """Return the hosts that the pods of a service see: those of ``targets``, egress hosts, and the mesh's own services.

    ``asks``: they ask the authorizer, whose Service a Sidecar hides like any other; unseen, it refuses everything that is asked.
    """
    view = ground.view
    places = view.intents.settings.place
    hosts = [f"{places(name).namespace}/{host_of(view, name)}" for name in targets]
    hosts += [f"./{one.host}" for one in _egress_of(view, service.name)]
    if asks and view.option("authorizer_host"):
        hosts.append(f"*/{view.option('authorizer_host')}")
    hosts.append(f"{ground.root_namespace}/*")
    spec = {
        "workloadSelector": {"labels": dict(sorted(service.place.labels.items()))},
        "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
        "egress": [{"hosts": hosts}],
    }
    name = object_name("service", service.name)
    return Document(obj(view, NETWORKING, "Sidecar", name, service.place.namespace, spec))


def service_entries(view: View, namespace: str) -> Iterator[Document]:
    """Yield the hosts outside that services of a namespace may call, seen in that namespace alone."""
    place = view.intents.settings.place
    for one in view.intents.settings.egress:
        names = [name for name in one.callers if place(name).namespace == namespace]
        if not names:
            continue
        spec = {
            "hosts": [one.host],
            "exportTo": ["."],
            "location": "MESH_EXTERNAL",
            "resolution": "DNS",
            "ports": [{"number": one.port, "name": "tls", "protocol": "TLS"}],
        }
        name = object_name("egress", one.name)
        notes = () if one.span is None else (f"egress {one.name} at {one.span.file}:{one.span.line}",)
        yield Document(obj(view, NETWORKING, "ServiceEntry", name, namespace, spec), notes)


def _egress_of(view: View, caller: str) -> tuple[Egress, ...]:
    return tuple(one for one in view.intents.settings.egress if caller in one.callers)
