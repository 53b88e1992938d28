# SPDX-License-Identifier: Apache-2.0
"""The policy as NetworkPolicies of Kubernetes: who may open a connection to whose port, and nothing else.

Operations need somebody beside it who tells them apart; what is opened here is an outer bound then.  A tcp port is exact as far as
labels go.  Beside Cilium only the default denies are written: Cilium adds NetworkPolicies and its own up, and a rule of layer 4 for a
port would undo the HTTP rules for it (Cilium: Documentation/security/policy/layer7.rst).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.policy.model import OUTSIDE
from everyhop.targets.meshes import (
    AMBIENT,
    AMBIENT_PROBES,
    HBONE_PORT,
    control_planes,
    istiod,
    waypoint,
    wire_ports,
)
from everyhop.targets.model import Feature, Target
from everyhop.targets.objects import grant_note, obj, object_name, yaml_file
from everyhop.targets.reach import (
    EVERYWHERE,
    NAMESPACE_LABEL,
    Reach,
    dns_peer,
    isolated_gateway,
    opened,
    peer,
    services_of,
)
from everyhop.targets.yaml import Document, Noted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.targets.intents import ServiceIntents
    from everyhop.targets.model import Diagnostic, File
    from everyhop.targets.reach import Peer
    from everyhop.targets.view import View

__all__ = ["TARGET"]

_API: Final = "networking.k8s.io/v1"
_KIND: Final = "NetworkPolicy"
_CILIUM: Final = "cilium"
_NOTES: Final = (
    "Enforced by the network plug-in, if it does; never for pods on the host's network, never against a pod's own node.",
)


class NetworkPolicy:
    """The compiler to NetworkPolicies."""

    name = "networkpolicy"
    summary = "NetworkPolicy: default deny both ways, DNS, ports by caller (an outer bound)"

    def compile(self, view: View) -> tuple[list[File], list[Diagnostic]]:
        """Return ``networkpolicy/NAMESPACE.yaml`` for each namespace with services.

        Diagnostics of its own: ``cilium`` (only default denies), ``egress-addresses``, ``gateway``, ``gateway-namespace``,
        ``dns-label``.
        """
        doors, said = opened(view)
        dns, more = dns_peer(view)
        said += [*more, *isolated_gateway(view)]
        if _CILIUM in view.beside:
            message = "Cilium adds NetworkPolicies to its own, and a port opened here would undo its HTTP rules: only the default denies are written"
            said.append(view.warning("cilium", message))
            doors = {}
        reach = Reach(view, doors)
        if _CILIUM not in view.beside:
            said += _addresses(view, reach)
        files = [
            yaml_file(
                view,
                f"networkpolicy/{namespace}.yaml",
                _documents(view, reach, namespace, dns),
                *_NOTES,
                is_superset=reach.has_http or _reaches_outside(reach, namespace),
            )
            for namespace in view.intents.namespaces
        ]
        return files, said


TARGET: Final[Target] = NetworkPolicy()
"""The target as :mod:`everyhop.targets.compiling` finds it."""


def _reaches_outside(reach: Reach, namespace: str) -> bool:
    return any(reach.egress(service.name) for service in services_of(reach.view, namespace))


def _addresses(view: View, reach: Reach) -> Iterator[Diagnostic]:
    for service in view.intents:
        hosts = reach.egress(service.name)
        if hosts:
            names = ", ".join(one.host for one in hosts)
            message = f"{service.name} may open connections to every address on the ports of {names}; {view.holder(Feature.EGRESS)} holds the names"
            yield view.warning("egress-addresses", message)


def _documents(view: View, reach: Reach, namespace: str, dns: Peer | None) -> Iterator[Document]:
    spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    yield Document(
        obj(view, _API, _KIND, object_name("deny", "default"), namespace, spec),
        ("Nothing comes in and nothing goes out but by the policies below.",),
    )
    if _CILIUM in view.beside:
        return
    for service in services_of(view, namespace):
        span = service.service.span
        note = f"{service.name}, at {span.file}:{span.line}"
        rules = _ingress(view, reach, service)
        if rules:
            yield _policy(view, "in", service.name, service.name, {"ingress": rules}, note)
        rules = _egress(view, reach, service.name, dns)
        if rules:
            yield _policy(view, "out", service.name, service.name, {"egress": rules}, note)
    yield from _waypoint_policy(view, reach, namespace, dns)
    gateway = view.intents.settings.gateway
    if gateway is not None and gateway.namespace == namespace:
        rules = _egress(view, reach, OUTSIDE, dns)
        if rules:
            yield _policy(view, "gateway", OUTSIDE, gateway.service_account, {"egress": rules}, "the gateway")


def _policy(view: View, prefix: str, caller: str, name: str, rules: dict[str, Any], note: str) -> Document:
    """Return one policy about the pods of a caller; it isolates the directions for which it has rules."""
    found = peer(view, caller)
    return _policy_of(view, object_name(prefix, name), found, rules, note)


def _policy_of(view: View, name: str, pods: Peer, rules: dict[str, Any], note: str) -> Document:
    kinds = [key.capitalize() for key in rules]
    spec = {"podSelector": {"matchLabels": dict(sorted(pods.labels.items()))}, "policyTypes": kinds, **rules}
    return Document(obj(view, _API, _KIND, name, pods.namespace, spec), (note,))


def _ingress(view: View, reach: Reach, service: ServiceIntents) -> list[Any]:
    callers = reach.callers(service.name)
    ports = [_tcp(one) for one in wire_ports(view, service.port)]
    rules: list[Any] = []
    if callers:
        items = [
            Noted(_pods(peer(view, caller)), f"{caller}: {'; '.join(grant_note(*one) for one in doors)}")
            for caller, doors in callers
        ]
        rules.append({"from": items, "ports": ports})
        through = waypoint(view, service.place.namespace)
        if through is not None:
            rules.append(Noted({"from": [_pods(through)], "ports": ports}, "the waypoint carries callers"))
    networks = [*view.intents.settings.probe_networks, *([AMBIENT_PROBES] if AMBIENT in view.beside else [])]
    if networks and any(door.is_probe for door, _ in reach.doors(service.name)):
        blocks = [{"ipBlock": {"cidr": one}} for one in networks]
        rules.append(Noted({"from": blocks, "ports": [_tcp(service.port)]}, "probes without an identity"))
    return rules


def _egress(view: View, reach: Reach, caller: str, dns: Peer | None) -> list[Any]:
    rules: list[Any] = []
    waypoints: dict[str, Peer] = {}
    for service, doors in reach.called(caller):
        ports = [_tcp(one) for one in wire_ports(view, service.port)]
        note = "; ".join(grant_note(door, grant) for door, grant in doors)
        rules.append(Noted({"to": [_pods(peer(view, service.name))], "ports": ports}, note))
        through = waypoint(view, service.place.namespace)
        if through is not None:
            waypoints[through.namespace] = through
    rules += [
        Noted({"to": [_pods(one)], "ports": [_tcp(HBONE_PORT)]}, "the waypoint") for one in waypoints.values()
    ]
    for egress in reach.egress(caller):
        blocks = [{"ipBlock": {"cidr": one}} for one in EVERYWHERE]
        where = "" if egress.span is None else f" at {egress.span.file}:{egress.span.line}"
        note = f"egress {egress.name}{where}: {egress.host}, whatever its addresses are"
        rules.append(Noted({"to": blocks, "ports": [_tcp(egress.port)]}, note))
    for plane in control_planes(view):
        ports = [_tcp(one) for one in plane.ports]
        rules.append(
            Noted({"to": [_pods(plane.peer)], "ports": ports}, f"{plane.name}: the mesh's proxy needs it")
        )
    if rules and dns is not None:
        rules.append(Noted({"to": [_pods(dns)], "ports": _dns_ports()}, "DNS"))
    return rules


def _waypoint_policy(view: View, reach: Reach, namespace: str, dns: Peer | None) -> Iterator[Document]:
    """Yield what the waypoint of a namespace needs: its callers, its services, istiod."""
    through = waypoint(view, namespace)
    services = [one for one in services_of(view, namespace) if reach.doors(one.name)]
    if through is None or not services:
        return
    callers = sorted({caller for one in services for caller, _ in reach.callers(one.name)})
    ingress = {"from": [_pods(peer(view, caller)) for caller in callers], "ports": [_tcp(HBONE_PORT)]}
    egress: list[Any] = [
        {
            "to": [_pods(peer(view, one.name))],
            "ports": [_tcp(port) for port in wire_ports(view, one.port)],
        }
        for one in services
    ]
    plane = istiod(view, AMBIENT)
    egress.append({"to": [_pods(plane.peer)], "ports": [_tcp(port) for port in plane.ports]})
    if dns is not None:
        egress.append({"to": [_pods(dns)], "ports": _dns_ports()})
    rules = {"ingress": [ingress], "egress": egress}
    yield _policy_of(
        view, object_name("waypoint"), through, rules, "The waypoint, between callers and services."
    )


def _pods(found: Peer) -> dict[str, Any]:
    """Return ONE item with both selectors: both have to hold.  Two items would admit what either selects."""
    return {
        "namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: found.namespace}},
        "podSelector": {"matchLabels": dict(sorted(found.labels.items()))},
    }


def _tcp(port: int) -> dict[str, Any]:
    return {"protocol": "TCP", "port": port}


def _dns_ports() -> list[dict[str, Any]]:
    return [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
