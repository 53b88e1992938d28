# SPDX-License-Identifier: Apache-2.0
"""The policy as ClusterNetworkPolicies of the Admin tier: what an administrator denies to pods, whatever namespaces allow.

Calls of the policy are passed on (``Pass``), never accepted: an Accept would end the evaluation and override the NetworkPolicies of
namespaces.  All else between pods is denied by one policy of the lowest precedence among ours.  An ingress rule can name pods
only, so what comes from outside of the cluster, and from pods on the host's network, is not denied here.

A policy takes 25 rules of 25 peers for each direction; what is more goes on in policies of the next priorities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from everyhop.targets.meshes import control_planes, no_waypoint, wire_ports
from everyhop.targets.model import Target
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
    from collections.abc import Iterator, Sequence

    from everyhop.targets.intents import ServiceIntents
    from everyhop.targets.model import Diagnostic, File
    from everyhop.targets.reach import Peer
    from everyhop.targets.view import View

__all__ = ["TARGET"]

_API: Final = "policy.networking.k8s.io/v1alpha2"
_KIND: Final = "ClusterNetworkPolicy"
_MOST: Final = 25
_LAST_PRIORITY: Final = 1000
_ALL_PODS: Final[dict[str, Any]] = {"namespaces": {}}
_NOTES: Final = (
    "Pods only: what comes from outside of the cluster, or from pods on the host's network, is not denied here.",
    "Its short name, cnp, is Cilium's as well: write clusternetworkpolicies in full.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    """The rules of a service in their order, to be dealt out to as many policies as they need."""

    service: ServiceIntents
    ingress: list[Any]
    egress: list[Any]

    @property
    def policies(self) -> int:
        return -(-max(len(self.ingress), len(self.egress)) // _MOST)


class ClusterNetworkPolicy:
    """The compiler to ClusterNetworkPolicies."""

    name = "clusternetworkpolicy"
    summary = "ClusterNetworkPolicy: the Admin tier's outer bound between pods"

    def compile(self, view: View) -> tuple[list[File], list[Diagnostic]]:
        """Return ``clusternetworkpolicy/NAMESPACE.yaml`` for each namespace with callers, and ``default-deny.yaml``.

        Diagnostics of its own: ``priority`` (more policies than priorities are left), ``gateway``, ``gateway-namespace``,
        ``waypoint``, ``dns-label``.
        """
        doors, said = opened(view)
        dns, more = dns_peer(view)
        said += [*more, *isolated_gateway(view), *no_waypoint(view)]
        reach = Reach(view, doors)
        rules = {
            namespace: [
                _Rules(
                    service=one,
                    ingress=_ingress(view, reach, one),
                    egress=_egress(view, reach, one.name, dns),
                )
                for one in services_of(view, namespace)
            ]
            for namespace in view.intents.namespaces
        }
        first = view.option("priority")
        last = first + max((one.policies for many in rules.values() for one in many), default=0)
        if last > _LAST_PRIORITY:
            message = f"priorities {first} to {last} are needed ({_MOST} rules for a policy), and {_LAST_PRIORITY} is the last"
            return [], [*said, view.error("priority", message, suggestion="a lower `priority`")]
        files = [
            yaml_file(
                view,
                f"clusternetworkpolicy/{namespace}.yaml",
                (document for one in many for document in _documents(view, one, first)),
                *_NOTES,
                is_superset=True,
            )
            for namespace, many in rules.items()
            if any(one.policies for one in many)
        ]
        return [*files, _default_deny(view, last)], said


TARGET: Final[Target] = ClusterNetworkPolicy()
"""The target as :mod:`everyhop.targets.compiling` finds it."""


def _documents(view: View, rules: _Rules, first: int) -> Iterator[Document]:
    name, span = rules.service.name, rules.service.service.span
    for number in range(rules.policies):
        cut = slice(number * _MOST, (number + 1) * _MOST)
        directions = {"ingress": rules.ingress[cut], "egress": rules.egress[cut]}
        spec = {
            "tier": "Admin",
            "priority": first + number,
            "subject": _pods(peer(view, name)),
            **{key: value for key, value in directions.items() if value},
        }
        made = object_name("calls", name) if number == 0 else object_name("calls", name, str(number))
        yield Document(obj(view, _API, _KIND, made, None, spec), (f"{name}, at {span.file}:{span.line}",))


def _default_deny(view: View, priority: int) -> File:
    spec = {
        "tier": "Admin",
        "priority": priority,
        "subject": {
            "namespaces": {
                "matchExpressions": [
                    {"key": NAMESPACE_LABEL, "operator": "In", "values": list(view.intents.namespaces)}
                ]
            }
        },
        "ingress": [{"name": "deny", "action": "Deny", "from": [_ALL_PODS]}],
        "egress": [
            {"name": "deny", "action": "Deny", "to": [_ALL_PODS]},
            {"name": "deny-networks", "action": "Deny", "to": [{"networks": list(EVERYWHERE)}]},
        ],
    }
    document = Document(
        obj(view, _API, _KIND, object_name("deny", "default"), None, spec),
        ("What no policy of ours passed on is denied.",),
    )
    path = "clusternetworkpolicy/default-deny.yaml"
    return yaml_file(view, path, [document], *_NOTES, is_superset=True)


def _ingress(view: View, reach: Reach, service: ServiceIntents) -> list[Any]:
    peers = [
        Noted(
            {"pods": _namespaced(peer(view, caller))},
            f"{caller}: {'; '.join(grant_note(*one) for one in doors)}",
        )
        for caller, doors in reach.callers(service.name)
    ]
    protocols = _tcp(wire_ports(view, service.port))
    return [
        {"name": "callers", "action": "Pass", "from": chunk, "protocols": protocols}
        for chunk in _chunks(peers)
    ]


def _egress(view: View, reach: Reach, caller: str, dns: Peer | None) -> list[Any]:
    ports: dict[tuple[int, ...], list[Noted]] = {}
    for service, doors in reach.called(caller):
        note = f"{service.name}: {'; '.join(grant_note(door, grant) for door, grant in doors)}"
        pods = Noted({"pods": _namespaced(peer(view, service.name))}, note)
        ports.setdefault(wire_ports(view, service.port), []).append(pods)
    for plane in control_planes(view):
        pods = Noted({"pods": _namespaced(plane.peer)}, f"{plane.name}: the mesh's proxy needs it")
        ports.setdefault(plane.ports, []).append(pods)
    rules: list[Any] = [
        {"name": "calls", "action": "Pass", "to": chunk, "protocols": _tcp(each)}
        for each, peers in sorted(ports.items(), key=lambda item: item[0])
        for chunk in _chunks(peers)
    ]
    hosts = reach.egress(caller)
    if (rules or hosts) and dns is not None:
        protocols = [{"udp": _port(53)}, {"tcp": _port(53)}]
        rules.append(
            {"name": "dns", "action": "Pass", "to": [{"pods": _namespaced(dns)}], "protocols": protocols}
        )
    if hosts:  # networks mean pods as well, so those are denied first
        rules.append({"name": "deny-pods", "action": "Deny", "to": [_ALL_PODS]})
        networks = [{"networks": list(EVERYWHERE)}]
        protocols = _tcp(sorted({one.port for one in hosts}))
        rules.append({"name": "hosts", "action": "Pass", "to": networks, "protocols": protocols})
    return rules


def _chunks(peers: Sequence[Noted]) -> Iterator[list[Noted]]:
    return (list(peers[start : start + _MOST]) for start in range(0, len(peers), _MOST))


def _pods(found: Peer) -> dict[str, Any]:
    return {"pods": _namespaced(found)}


def _namespaced(found: Peer) -> dict[str, Any]:
    return {
        "namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: found.namespace}},
        "podSelector": {"matchLabels": dict(sorted(found.labels.items()))},
    }


def _tcp(ports: Sequence[int]) -> list[dict[str, Any]]:
    return [{"tcp": _port(one)} for one in ports]


def _port(port: int) -> dict[str, Any]:
    return {"destinationPort": {"number": port}}
