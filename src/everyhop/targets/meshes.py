# SPDX-License-Identifier: Apache-2.0
"""What a mesh needs of the network beneath it: its control plane, and the ports that its traffic comes on.

A default deny that forgets these breaks the mesh: its proxies get no certificates, or nobody reaches a pod on the port that the mesh
really uses.  Sources: the ports' pages of Istio and Linkerd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.targets.reach import Peer

if TYPE_CHECKING:
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

HBONE_PORT: Final = 15008
"""Where pods of Istio's ambient mode receive the tunnel (HBONE), whatever the application's port."""
AMBIENT_PROBES: Final = "169.254.7.127/32"
"""Where the kubelet's probes seem to come from in Istio's ambient mode."""
AMBIENT: Final = "ambient"

_WAYPOINT_LABEL: Final = "gateway.networking.k8s.io/gateway-name"
_ISTIOD_PORT: Final = 15012
_LINKERD: Final = (("identity", (8080,)), ("destination", (8086, 8090)))
_LINKERD_LABEL: Final = "linkerd.io/control-plane-component"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """Pods which every proxy of a mesh has to reach, and their ports."""

    name: str
    peer: Peer
    ports: tuple[int, ...]


def control_planes(view: View) -> tuple[ControlPlane, ...]:
    """Return what the proxies of the meshes beside a target call; ambient's pods have none of their own."""
    settings = view.intents.settings
    found: list[ControlPlane] = []
    if "istio" in view.beside:
        found.append(istiod(view, "istio"))
    if "linkerd" in view.beside:
        namespace = settings.option("linkerd", "control_plane_namespace")
        for component, ports in _LINKERD:
            found.append(_plane(f"linkerd-{component}", namespace, {_LINKERD_LABEL: component}, ports))
    return tuple(found)


def istiod(view: View, target: str) -> ControlPlane:
    """Return Istio's control plane, as the options of ``istio`` or ``ambient`` place it."""
    namespace = view.intents.settings.option(target, "root_namespace")
    return _plane("istiod", namespace, {"app": "istiod"}, (_ISTIOD_PORT,))


def waypoint(view: View, namespace: str) -> Peer | None:
    """Return the pods of a namespace's waypoint where ambient stands beside with one: callers come through them."""
    name = view.intents.settings.option(AMBIENT, "waypoint") if AMBIENT in view.beside else ""
    if not name:
        return None
    return Peer(namespace=namespace, labels={_WAYPOINT_LABEL: name}, service_account="")


def no_waypoint(view: View) -> list[Diagnostic]:
    """Refuse a waypoint beside a target that does not know of waypoints: the calls of everybody would come from one place."""
    if waypoint(view, "") is None:
        return []
    message = "behind ambient's waypoint every call comes from the waypoint's pods, which nothing here admits: calls would be denied"
    return [view.error("waypoint", message, suggestion="networkpolicy knows of waypoints")]


def _plane(name: str, namespace: str, labels: dict[str, str], ports: tuple[int, ...]) -> ControlPlane:
    return ControlPlane(
        name=name, peer=Peer(namespace=namespace, labels=labels, service_account=""), ports=ports
    )


def wire_ports(view: View, port: int) -> tuple[int, ...]:
    """Return the ports on which calls for a port of an application arrive at its pods."""
    return (port, HBONE_PORT) if AMBIENT in view.beside and port != HBONE_PORT else (port,)
