# SPDX-License-Identifier: Apache-2.0
"""Which waypoint stands before a workload's services (pilot/pkg/serviceregistry/ambient/waypoints.go).

The label ``istio.io/use-waypoint`` of the Service, else of its namespace, names a Gateway of the class ``istio-waypoint``; "none"
opts out.  A waypoint that is named but does not exist is **no** waypoint: traffic then goes straight to the workload.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.evaluators.istio.attachment import GATEWAY_GROUP, WAYPOINT_CLASS
from everyhop.evaluators.istio.strict import Part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.evaluators.model import Workload
    from everyhop.manifests import Manifest, Manifests

USE: Final = "istio.io/use-waypoint"
USE_NAMESPACE: Final = "istio.io/use-waypoint-namespace"
FOR: Final = "istio.io/waypoint-for"
MODE: Final = "istio.io/dataplane-mode"
_CANARY: Final = "istio.io/use-waypoint-canary"


@dataclass(frozen=True, slots=True)
class Waypoint:
    """A waypoint; its service account has the Gateway's name, which is how Istio deploys it."""

    namespace: str
    name: str
    is_for_services: bool = True
    is_for_workloads: bool = False
    takes_other_namespaces: bool = False

    def identity(self, trust_domain: str) -> str:
        """Return the SPIFFE ID with which it calls workloads."""
        return f"spiffe://{trust_domain}/ns/{self.namespace}/sa/{self.name}"


class Waypoints:
    """The waypoints of manifests, and who uses them.

    ``uses`` says what the label of a namespace would say, for namespaces whose objects are not among the manifests.
    """

    def __init__(self, manifests: Manifests, uses: Mapping[str, str]) -> None:
        found = (_waypoint(one) for one in manifests.of("Gateway", GATEWAY_GROUP))
        self._waypoints = {(one.namespace, one.name): one for one in found if one is not None}
        self._services = manifests.of("Service", "")
        self._namespaces = {one.name: one.labels for one in manifests.of("Namespace", "")}
        self._uses = uses
        for one in (*self._services, *manifests.of("Namespace", "")):
            if _CANARY in one.labels:
                raise InputError(f"{one.span}: {one}: a canary of a waypoint is not known here")

    def is_enrolled(self, workload: Workload) -> bool:
        """Tell whether traffic to a workload passes ztunnel: by its own label, else by that of its namespace.

        Manifests that hold namespaces are taken to hold all of them; those that hold none say nothing of it.
        """
        own = workload.labels.get(MODE)
        if own is not None:
            return own == "ambient"
        namespace = self._namespaces.get(workload.namespace)
        return not self._namespaces if namespace is None else namespace.get(MODE) == "ambient"

    def services(self, workload: Workload) -> tuple[Manifest | None, ...]:
        """Return the services that select a workload; None stands for one of its own name, where no Service is given."""
        if not self._services:
            return (None,)
        return tuple(one for one in self._services if _is_selected(one, workload))

    def before_service(self, service: Manifest | None, workload: Workload) -> Waypoint | None:
        """Return the waypoint that traffic to a service passes."""
        found = self._named({} if service is None else service.labels, workload)
        return found if found is not None and found.is_for_services else None

    def before_workload(self, workload: Workload) -> Waypoint | None:
        """Return the waypoint that traffic straight to a pod's address passes."""
        found = self._named(workload.labels, workload)
        return found if found is not None and found.is_for_workloads else None

    def _named(self, own: Mapping[str, str], workload: Workload) -> Waypoint | None:
        place = workload.namespace
        uses = {USE: self._uses[place]} if place in self._uses else {}
        known = self._namespaces.get(place)
        further = (workload.namespace_labels, uses) if known is None else (known,)
        labels = next((one for one in (own, *further) if USE in one), None)
        if labels is None or labels[USE] == "none":
            return None
        found = self._waypoints.get((labels.get(USE_NAMESPACE, place), labels[USE]))
        if found is None or (found.namespace != place and not found.takes_other_namespaces):
            return None
        return found


def _is_selected(service: Manifest, workload: Workload) -> bool:
    selector = service.spec.get("selector")
    if service.namespace != workload.namespace or not isinstance(selector, dict) or not selector:
        return False
    return all(workload.labels.get(name) == value for name, value in selector.items())


def _waypoint(manifest: Manifest) -> Waypoint | None:
    spec = Part(manifest, "spec", manifest.spec)
    if spec.text("gatewayClassName") != WAYPOINT_CLASS:
        return None
    traffic = manifest.labels.get(FOR, "service")
    if traffic not in {"service", "workload", "all", "none"}:
        raise spec.wrong(f"{FOR} is not {traffic[:40]!r}")
    takes = {_takes(listener) for listener in spec.parts("listeners") or ()}
    return Waypoint(
        namespace=manifest.namespace,
        name=manifest.name,
        is_for_services=traffic in {"service", "all"},
        is_for_workloads=traffic in {"workload", "all"},
        takes_other_namespaces="All" in takes,
    )


def _takes(listener: Part) -> str:
    routes = listener.part("allowedRoutes")
    places = None if routes is None else routes.part("namespaces")
    found = "Same" if places is None else places.text("from", "Same")
    if found not in {"All", "Same", "None"}:
        raise listener.wrong(f"routes from {found[:40]!r} are not known here")
    return found
