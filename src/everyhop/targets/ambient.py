# SPDX-License-Identifier: Apache-2.0
"""The compiler for Istio's ambient mode: ztunnel holds who may connect to a port, a waypoint what may be called there.

Behind a waypoint ztunnel sees the waypoint as the caller, so each is told its own half: the waypoint the real callers
(``targetRefs``), ztunnel (``selector``) nobody but the waypoint.  ztunnel drops what it cannot read, so its policies hold
nothing but principals and ports.

On a waypoint's TCP chains only policies of the Gateway are in force, none of a Service (``pilot/pkg/networking/core/networkfilter.go``),
so tcp services are not behind it: ztunnel admits their callers directly.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from everyhop.policy.model import OUTSIDE
from everyhop.targets.istio import policies
from everyhop.targets.istio.ground import Ground
from everyhop.targets.istio.rules import Opened, callers, opened, principals_of, source
from everyhop.targets.istio.tokens import token_warnings
from everyhop.targets.objects import grant_note, obj, object_name, yaml_file
from everyhop.targets.yaml import Document, Noted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from everyhop.targets.intents import Door, ServiceIntents
    from everyhop.targets.model import Diagnostic, File
    from everyhop.targets.view import View

_GATEWAY_GROUP: Final = "gateway.networking.k8s.io"
_GATEWAY_NAME: Final = "gateway.networking.k8s.io/gateway-name"
_HBONE_PORT: Final = 15008
_DENY_WAYPOINT: Final = "everyhop-deny-waypoint"


class Ambient:
    """``ambient``: see ``docs/reference/targets-istio.md``."""

    name: Final = "ambient"
    summary: Final = "Istio's ambient mode: a waypoint for layer 7, ztunnel for who may connect"

    def compile(self, view: View) -> tuple[Sequence[File], Sequence[Diagnostic]]:
        """Return ``ambient/NAMESPACE.yaml`` for each namespace with services."""
        mesh = _Mesh(view)
        files = [
            yaml_file(
                view,
                f"ambient/{namespace}.yaml",
                list(mesh.documents(namespace)),
                *mesh.notes,
                is_superset=mesh.is_superset(namespace),
            )
            for namespace in mesh.ground.namespaces
        ]
        return files, list(mesh.diagnostics())


class _Mesh:
    """One policy in ambient mode: what is opened by whom."""

    def __init__(self, view: View) -> None:
        self.view: Final = view
        self.ground: Final = Ground(view)
        self.waypoint: Final[str] = view.option("waypoint")

    @cached_property
    def layer_7(self) -> Mapping[str, Opened]:
        """Return what waypoints open, by service."""
        return {
            service.name: opened(
                self.ground,
                service,
                [door for door in service.doors if self._is_of_waypoint(service, door)],
                with_ports=False,  # a waypoint sees the port of the Service, which the policy does not know
            )
            for namespace in self.ground.namespaces
            for service in self.ground.services(namespace)
        }

    def direct(self, service: ServiceIntents) -> tuple[Noted, ...]:
        """Return the principals that ztunnel itself admits, a note with the rules before the first of each door."""
        found: dict[str, Noted] = {}
        for door in service.doors:
            if self.waypoint and door.operation is not None:
                continue
            for grant in self.view.grants(door):
                for principal in self.ground.principals(grant.caller):
                    found.setdefault(principal, Noted(principal, grant_note(door, grant)))
        return tuple(found[principal] for principal in sorted(found))

    def is_superset(self, namespace: str) -> bool:
        """Tell whether ztunnel admits callers whose calls something beside it has to look at."""
        return not self.waypoint and any(
            self.view.grants(door)
            for service in self.ground.services(namespace)
            for door in service.doors
            if door.operation is not None
        )

    def _is_of_waypoint(self, service: ServiceIntents, door: Door) -> bool:
        return (
            bool(self.waypoint) and door.operation is not None and service.place.namespace not in self._taken
        )

    @cached_property
    def _taken(self) -> Mapping[str, str]:
        """Return namespaces in which somebody of the policy is, or is named as, the waypoint: ztunnel would take it for one."""
        intents = self.view.intents
        found = {}
        for name in intents.names if self.waypoint else ():
            place = intents.settings.place(name)
            if self.waypoint in {place.service_account, name}:
                found[place.namespace] = name
        gateway = intents.settings.gateway
        if gateway is not None and gateway.service_account == self.waypoint:
            found[gateway.namespace] = OUTSIDE
        return found

    # -- what is written

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the lines of the head."""
        if self.waypoint:
            return self.ground.notes
        beside = ", ".join(self.view.beside)
        return (*self.ground.notes, *([f"Layer 7 is held beside it by: {beside}."] if beside else []))

    def documents(self, namespace: str) -> Iterator[Document]:
        """Yield the objects of a namespace."""
        yield self._namespace(namespace)
        yield policies.peer_authentication(self.view, namespace)
        yield policies.deny_all(self.view, namespace)
        if self.waypoint:
            yield from self._waypoint(namespace)
        for service in self.ground.services(namespace):
            found = self.layer_7[service.name]
            where = {"targetRefs": [{"group": "", "kind": "Service", "name": service.name}]}
            yield from policies.of_service(self.ground, found, where)
            admitted = self._admitted(service, found)
            if admitted is not None:
                yield admitted

    def _namespace(self, namespace: str) -> Document:
        labels = {"istio.io/dataplane-mode": "ambient"}
        if self.waypoint:
            labels["istio.io/use-waypoint"] = self.waypoint
        if any(OUTSIDE in callers(found) for found in self._of(namespace)):
            labels["istio.io/ingress-use-waypoint"] = (
                "true"  # else the gateway goes around it, and is refused
            )
        return Document(obj(self.view, "v1", "Namespace", namespace, None, None, labels=labels))

    def _waypoint(self, namespace: str) -> Iterator[Document]:
        labels = {"istio.io/waypoint-for": "service"}
        listener = {"name": "mesh", "port": _HBONE_PORT, "protocol": "HBONE"}
        spec: dict[str, Any] = {"gatewayClassName": "istio-waypoint", "listeners": [listener]}
        version = f"{_GATEWAY_GROUP}/v1"
        yield Document(obj(self.view, version, "Gateway", self.waypoint, namespace, spec, labels=labels))
        target = {"group": _GATEWAY_GROUP, "kind": "Gateway", "name": self.waypoint}
        made = obj(
            self.view,
            policies.SECURITY,
            "AuthorizationPolicy",
            _DENY_WAYPOINT,
            namespace,
            {"targetRefs": [target]},
        )
        yield Document(
            made, ("policies without targetRefs are not in force at a waypoint: it denies by itself",)
        )
        names = sorted({caller for found in self._of(namespace) for caller in callers(found)})
        if names:
            spec = {
                "selector": {"matchLabels": {_GATEWAY_NAME: self.waypoint}},
                "action": "ALLOW",
                "rules": [{"from": source(principals_of(self.ground, names))}],
            }
            made = obj(
                self.view,
                policies.SECURITY,
                "AuthorizationPolicy",
                object_name("reach", self.waypoint),
                namespace,
                spec,
            )
            yield Document(made, ("who may reach the waypoint, where the mesh looks at that too",))

    def _admitted(self, service: ServiceIntents, found: Opened) -> Document | None:
        """Return what ztunnel is told of a service, None where nobody gets in."""
        namespace = service.place.namespace
        principals: list[Any] = list(self.direct(service))
        if found.doors:
            principals = [*self._waypoint_principals(namespace), *principals]
        if not principals:
            return None
        rule = {"from": source(principals), "to": [{"operation": {"ports": [str(service.port)]}}]}
        spec = {
            "selector": {"matchLabels": dict(sorted(service.place.labels.items()))},
            "action": "ALLOW",
            "rules": [rule],
        }
        name = object_name("admit", service.name)
        made = obj(self.view, policies.SECURITY, "AuthorizationPolicy", name, namespace, spec)
        return Document(made, (f"ztunnel: who may connect to {service.name}",))

    def _waypoint_principals(self, namespace: str) -> list[str]:
        domains = dict.fromkeys((self.view.intents.trust_domain, *self.view.option("trust_domain_aliases")))
        return [f"{domain}/ns/{namespace}/sa/{self.waypoint}" for domain in domains]

    def _of(self, namespace: str) -> Iterator[Opened]:
        return (self.layer_7[service.name] for service in self.ground.services(namespace))

    # -- what is said

    def diagnostics(self) -> Iterator[Diagnostic]:
        """Yield what is special to this mode."""
        yield from self.ground.diagnostics()
        for found in self.layer_7.values():
            yield from found.diagnostics
        yield from token_warnings(self.view, self.layer_7)
        for namespace, name in sorted(self._taken.items()):
            if namespace in self.ground.namespaces:
                message = (
                    f"{name} has the name or the account of the waypoint {self.waypoint!r} in {namespace!r}"
                )
                hint = "give the waypoint a name that no service or account has"
                yield self.view.error("waypoint-account", message, suggestion=hint)
        services = [one for name in self.ground.namespaces for one in self.ground.services(name)]
        tcp = [one.name for one in services if self.waypoint and one.service.tcp is not None and one.callers]
        if tcp:
            message = f"bytes do not pass the waypoint: {', '.join(tcp)} is refused there and admitted by ztunnel alone"
            yield self.view.warning(
                "tcp-waypoint", message, suggestion="label such a Service istio.io/use-waypoint: none"
            )
        timed = [
            one.name for one in services if one.place.timeout is not None or one.place.retries is not None
        ]
        if timed:
            message = f"timeouts and retries of {', '.join(timed)} are not written"
            yield self.view.warning("timing", message, suggestion="write an HTTPRoute, or use sidecars")


TARGET: Final = Ambient()
