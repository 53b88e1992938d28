# SPDX-License-Identifier: Apache-2.0
"""What a sidecar lets out: Sidecar and ServiceEntry (pilot/pkg/model/sidecar.go).

This is routing, not a boundary: a process that opens its connections as the proxy's user, or whose pod has no sidecar, is not held.
The nearest Sidecar counts: of the workload, else of its namespace, else of the mesh; without any, everything is let out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.evaluators.istio.strict import Part, spec_of
from everyhop.evaluators.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.evaluators.model import Request, Workload
    from everyhop.manifests import Manifest, Manifests

GROUP: Final = "networking.istio.io"
_MODES: Final = ("REGISTRY_ONLY", "ALLOW_ANY", "ALLOW_ANY_DYNAMIC_DNS")
_LOCATIONS: Final = ("MESH_EXTERNAL", "MESH_INTERNAL")
_NONE: Final = "NONE"
_RESOLUTIONS: Final = (_NONE, "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS")
_PROTOCOLS: Final = {
    **dict.fromkeys(("HTTP", "HTTP2", "HTTPS", "GRPC", "GRPC-WEB", "HTTP_PROXY", "TLS"), True),
    **dict.fromkeys(("TCP", "MONGO", "REDIS", "MYSQL", "UDP"), False),
}
"""Protocols, and whether they carry the name of whom they are for."""
_NO_NAMESPACES: Final = "~"


@dataclass(frozen=True, slots=True)
class Imports:
    """One listener of ``egress``: namespaces and hosts that it imports, for one port or for all."""

    hosts: tuple[tuple[str, str], ...]
    port: int | None


@dataclass(frozen=True, slots=True)
class SidecarScope:
    """One Sidecar; ``imports`` is None where it says nothing, which imports everything.  ``is_closed``: REGISTRY_ONLY."""

    manifest: Manifest
    labels: Mapping[str, str] | None
    imports: tuple[Imports, ...] | None
    is_closed: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """One ServiceEntry: hosts outside, the ports they have, and the namespaces that may see them.

    ``open_ports`` lead anywhere: bytes without a name in them, forwarded to where the caller wanted (resolution NONE).
    """

    manifest: Manifest
    hosts: tuple[str, ...]
    ports: tuple[int, ...]
    open_ports: tuple[int, ...]
    exports: tuple[str, ...]


class Leaving:
    """What the sidecars of manifests let out; ``is_closed`` is the mesh's own ``outboundTrafficPolicy`` REGISTRY_ONLY.

    Raises InputError for unknown fields.
    """

    def __init__(self, manifests: Manifests, root_namespace: str, *, is_closed: bool) -> None:
        self._root = root_namespace
        self._is_closed = is_closed
        self._sidecars = tuple(_sidecar(one, is_closed=is_closed) for one in manifests.of("Sidecar", GROUP))
        self._entries = tuple(_entry(one) for one in manifests.of("ServiceEntry", GROUP))

    def evaluate(self, request: Request) -> Outcome:
        """Return whether the source's sidecar lets a call of ``request.dns_name`` out."""
        scope = self._scope(request.source)
        if not (self._is_closed if scope is None else scope.is_closed):
            return Outcome(allowed=True, why="egress: everything is let out")
        by = None if scope is None else str(scope.manifest)
        for entry in self._entries:
            if (
                _names(entry, request)
                and _is_visible(entry, request.source)
                and _is_imported(scope, entry, request)
            ):
                return Outcome(
                    allowed=True, why="egress: a ServiceEntry names the host", by=str(entry.manifest)
                )
        return Outcome(allowed=False, why="egress: REGISTRY_ONLY, and no ServiceEntry names the host", by=by)

    def _scope(self, source: Workload) -> SidecarScope | None:
        own = [one for one in self._sidecars if one.manifest.namespace == source.namespace]
        of_mesh = [one for one in self._sidecars if one.manifest.namespace == self._root]
        selecting = (
            one
            for one in own
            if one.labels and all(source.labels.get(name) == value for name, value in one.labels.items())
        )
        general = (one for one in (*own, *of_mesh) if not one.labels)
        return next(selecting, None) or next(general, None)


def _names(entry: Entry, request: Request) -> bool:
    name = (request.dns_name or "").lower()
    if request.port in entry.open_ports:
        return True
    return request.port in entry.ports and any(_covers(host.lower(), name) for host in entry.hosts)


def _is_visible(entry: Entry, source: Workload) -> bool:
    if not entry.exports or "*" in entry.exports or source.namespace in entry.exports:
        return True
    return "." in entry.exports and entry.manifest.namespace == source.namespace


def _is_imported(scope: SidecarScope | None, entry: Entry, request: Request) -> bool:
    if scope is None or scope.imports is None:
        return True
    for one in scope.imports:
        if one.port is not None and one.port != request.port:
            continue
        for namespace, pattern in one.hosts:
            wanted = scope.manifest.namespace if namespace == "." else namespace
            is_there = wanted in {"*", entry.manifest.namespace}
            if is_there and any(_meets(pattern.lower(), host.lower()) for host in entry.hosts):
                return True
    return False


def _covers(pattern: str, name: str) -> bool:
    return pattern in {"*", name} or (pattern.startswith("*.") and name.endswith(pattern[1:]))


def _meets(pattern: str, host: str) -> bool:
    return _covers(pattern, host) or _covers(host, pattern)


def _sidecar(manifest: Manifest, *, is_closed: bool) -> SidecarScope:
    spec = spec_of(manifest)
    spec.only("egress", "inboundConnectionPool", "ingress", "outboundTrafficPolicy", "workloadSelector")
    selector = spec.part("workloadSelector")
    labels = None
    if selector is not None:
        selector.only("labels")
        labels = selector.labels("labels")
    policy = spec.part("outboundTrafficPolicy")
    if policy is not None:
        policy.only("mode", "egressProxy")
        # protobuf's zero is REGISTRY_ONLY, so a policy that says no mode is closed.
        is_closed = policy.one_of("mode", _MODES, "REGISTRY_ONLY") == "REGISTRY_ONLY"
    listeners = spec.parts("egress")
    imports = None if listeners is None else tuple(_imports(one) for one in listeners)
    if imports == ():
        raise spec.wrong("egress is empty: leave it out for the default")
    return SidecarScope(manifest, labels, imports, is_closed)


def _imports(listener: Part) -> Imports:
    listener.only("bind", "captureMode", "hosts", "port")
    hosts = listener.texts("hosts")
    if not hosts:
        raise listener.wrong("hosts are missing")
    found = []
    for host in hosts:
        namespace, slash, name = host.partition("/")
        if not slash or not namespace or not name:
            raise listener.wrong(f"{host[:60]!r} is not NAMESPACE/HOST")
        if namespace != _NO_NAMESPACES:
            found.append((namespace, name))
    port = listener.part("port")
    return Imports(tuple(found), None if port is None else _number(port))


def _entry(manifest: Manifest) -> Entry:
    spec = spec_of(manifest)
    spec.only(
        "addresses", "endpoints", "exportTo", "hosts", "location", "ports", "resolution", "subjectAltNames",
        "workloadSelector",
    )  # fmt: skip
    hosts = spec.texts("hosts")
    if not hosts:
        raise spec.wrong("hosts are missing")
    spec.one_of("location", _LOCATIONS, _LOCATIONS[0])
    leads_anywhere = spec.one_of("resolution", _RESOLUTIONS, _NONE) == _NONE and not spec.texts("addresses")
    ports = {_number(one): _has_name(one) for one in spec.parts("ports") or ()}
    open_ports = tuple(number for number, is_named in ports.items() if leads_anywhere and not is_named)
    return Entry(manifest, hosts, tuple(ports), open_ports, spec.texts("exportTo"))


def _has_name(port: Part) -> bool:
    """Tell whether what is spoken at a port says for whom it is."""
    port.only("number", "name", "protocol", "targetPort")
    if not port.text("name"):
        raise port.wrong("a port has a name")
    protocol = port.text("protocol").upper()
    if protocol not in _PROTOCOLS:
        raise port.wrong(f"there is no protocol {protocol[:20]!r}")
    return _PROTOCOLS[protocol]


def _number(port: Part) -> int:
    found = port.value.get("number")
    if not isinstance(found, int) or isinstance(found, bool):
        raise port.wrong("a port has a number")
    return found
