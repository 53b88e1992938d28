# SPDX-License-Identifier: Apache-2.0
"""What Linkerd's proxies do with a request: the target's inbound one, or for a host outside the source's outbound one.

Every workload is taken to be in the mesh, unless its pods' templates say ``linkerd.io/inject: disabled``.  Route objects need no
status here: one whose parent exists is attached, as the controller would have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.evaluators.labels import Selected
from everyhop.evaluators.linkerd.clients import (
    CORE,
    GROUP,
    LOCALHOST,
    Authorization,
    Clients,
    Ref,
    check_mode,
    default_authorizations,
)
from everyhop.evaluators.linkerd.egress import Egress
from everyhop.evaluators.linkerd.identity import Mesh
from everyhop.evaluators.linkerd.matching import GrpcMatch, HttpMatch, Kind, Path, Route, best, see
from everyhop.evaluators.linkerd.routes import attached_routes, read_routes
from everyhop.evaluators.linkerd.servers import Protocol, Server, read_servers
from everyhop.evaluators.model import Outcome, Wire
from everyhop.evaluators.networks import read_networks
from everyhop.evaluators.pods import PerWorkload, Pods

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.evaluators.linkerd.routes import Attached
    from everyhop.evaluators.model import Request, Workload
    from everyhop.manifests.model import Manifests

CLUSTER_NETWORKS: Final = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8")
EVERYWHERE: Final = ("0.0.0.0/0", "::/0")
DEFAULT_POLICY: Final = "config.linkerd.io/default-inbound-policy"
OPAQUE_PORTS: Final = "config.linkerd.io/opaque-ports"
IDENTITY_PORTS: Final = "config.linkerd.io/proxy-require-identity-inbound-ports"
SKIPPED_PORTS: Final = "config.linkerd.io/skip-inbound-ports"
INJECT: Final = "linkerd.io/inject"
_DEFAULT_HTTP: Final = Route(name="the default route", hosts=(), rules=((HttpMatch(),),))
_DEFAULT_GRPC: Final = Route(name="the default route", hosts=(), rules=((GrpcMatch(),),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """A port as a proxy holds it: routes by precedence, each with those who may come by it."""

    name: str | None
    protocol: Protocol
    everywhere: tuple[Authorization, ...]
    routes: tuple[tuple[Route, tuple[Authorization, ...]], ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """What is known of a workload; ``doors`` grows with the ports that are asked for."""

    is_left_out: bool
    skipped: frozenset[int]
    doors: dict[int, Door]


class LinkerdEvaluator:
    """A mesh of Linkerd.

    ``default_inbound_policy``, ``cluster_networks`` and ``probe_networks`` are settings of its installation, with its defaults;
    annotations of the Namespaces and pod templates among the manifests go before the first.  ``named_ports`` are as for
    NetworkPolicy; ``egress_namespace`` is where EgressNetworks for every namespace are.
    """

    def __init__(
        self,
        manifests: Manifests,
        *,
        mesh: Mesh | None = None,
        default_inbound_policy: str = "all-unauthenticated",
        cluster_networks: Iterable[str] = CLUSTER_NETWORKS,
        probe_networks: Iterable[str] = EVERYWHERE,
        named_ports: Mapping[str, int] | None = None,
        egress_namespace: str = "linkerd-egress",
    ) -> None:
        self._mesh = Mesh() if mesh is None else mesh
        self._default = check_mode(default_inbound_policy, "default_inbound_policy")
        self._cluster = read_networks(cluster_networks, "cluster_networks")
        self._probing = read_networks(probe_networks, "probe_networks")
        self._pods = Pods(manifests, named_ports)
        self._annotations = {one.name: one.annotations for one in manifests.of("Namespace", "")}
        self._clients = Clients(manifests, self._mesh, self._cluster)
        self._servers: dict[str, Selected[Server]] = {}
        for server in read_servers(manifests):
            self._servers.setdefault(server.namespace, Selected()).add(server.pods, server)
        routes = read_routes(manifests)
        self._attached = attached_routes(routes)
        self._egress = Egress(manifests, routes, self._cluster, egress_namespace)
        self._places = PerWorkload(self._place)

    def evaluate(self, request: Request) -> Outcome:
        """Return whether a request is admitted, and by which object."""
        if not request.target.namespace:
            if not request.source.namespace or self._places(request.source).is_left_out:
                return Outcome(allowed=True, why="no proxy stands at the source")
            return self._egress.evaluate(request)
        place = self._places(request.target)
        if place.is_left_out:
            return Outcome(allowed=True, why="no proxy stands at the target")
        if request.port in place.skipped:
            return Outcome(allowed=True, why=f"port {request.port} goes past the proxy")
        door = place.doors.get(request.port)
        if door is None:
            door = place.doors[request.port] = self._door(request.target, request.port)
        if request.wire is Wire.TCP or door.protocol.is_opaque:
            return self._connection(door, request)
        seen = see(request.method, request.path, request.host, request.headers)
        if seen is None:
            return Outcome(allowed=False, why="this is no HTTP: 400", by=door.name)
        found = best(door.routes, seen)
        if found is None:
            return Outcome(allowed=False, why="no route matches: 404", by=door.name)
        route, own = found
        return self._admitted((*own, *door.everywhere), request, f"{route.name}: 403", door.name)

    def _connection(self, door: Door, request: Request) -> Outcome:
        if not door.protocol.is_opaque and not door.protocol.is_detected:
            return Outcome(allowed=False, why=f"only {door.protocol} is spoken there", by=door.name)
        return self._admitted(door.everywhere, request, "connection refused", door.name)

    def _admitted(
        self, authorizations: Iterable[Authorization], request: Request, otherwise: str, by: str | None
    ) -> Outcome:
        client = self._mesh.client(request.peer)
        for one in (*authorizations, LOCALHOST):
            if one.admits(client, request.source.ip):
                return Outcome(allowed=True, why="authorized", by=one.name)
        return Outcome(allowed=False, why=f"nobody is authorized so, {otherwise}", by=by)

    def _door(self, target: Workload, port: int) -> Door:
        servers = self._servers.get(target.namespace)
        for server in () if servers is None else servers.of(target.labels):
            if self._is_port(server, target, port):
                paths = self._pods.probes(target, port)
                return self._server_door(server, paths)
        return self._default_door(target, port)

    def _is_port(self, server: Server, target: Workload, port: int) -> bool:
        if isinstance(server.port, int):
            return server.port == port
        return port in self._pods.numbers(target, server.port, f"Server {server.namespace}/{server.name}")

    def _server_door(self, server: Server, probe_paths: frozenset[str]) -> Door:
        everywhere = (
            *(
                one.authorization
                for one in self._clients.legacy
                if one.namespace == server.namespace
                and (one.server == server.name if one.server else one.selector.selects(server.labels))
            ),
            *self._clients.of(server.namespace, Ref(GROUP, "server", server.name)),
            *self._clients.of(server.namespace, Ref(CORE, "namespace", server.namespace)),
            *default_authorizations(server.access, self._cluster),
        )
        attached = self._attached.get((server.namespace, server.name), [])
        calls = [one for one in attached if one.kind == "GRPCRoute"]
        if server.protocol is Protocol.GRPC:
            routes = tuple((one.route, self._of_route(one)) for one in calls) or ((_DEFAULT_GRPC, ()),)
        elif calls:
            # A GRPCRoute takes the server for its kind: HTTPRoutes are in conflict with it, and here it counts for nothing itself.
            routes = self._default_routes(probe_paths)
        else:
            routes = tuple(
                (one.route, self._of_route(one)) for one in attached if one.kind == "HTTPRoute"
            ) or self._default_routes(probe_paths)
        return Door(
            name=f"Server {server.namespace}/{server.name}",
            protocol=server.protocol,
            everywhere=everywhere,
            routes=routes,
        )

    def _of_route(self, route: Attached) -> tuple[Authorization, ...]:
        return self._clients.of(route.namespace, route.ref)

    def _default_routes(
        self, probe_paths: frozenset[str]
    ) -> tuple[tuple[Route, tuple[Authorization, ...]], ...]:
        """Return the route for everything, and one for the pods' own probes, which any client in a probe network may call."""
        if not probe_paths or not self._probing:
            return ((_DEFAULT_HTTP, ()),)
        matches = tuple(HttpMatch(Path(Kind.EXACT, path), "GET") for path in sorted(probe_paths))
        probe = Route(name="the route for probes", hosts=(), rules=(matches,))
        return ((_DEFAULT_HTTP, ()), (probe, (Authorization("probe", self._probing),)))

    def _default_door(self, target: Workload, port: int) -> Door:
        mode = self._annotation(target, DEFAULT_POLICY)
        mode = self._default if mode is None else check_mode(mode, DEFAULT_POLICY)
        if port in self._port_set(target, IDENTITY_PORTS):
            mode = mode.replace("-unauthenticated", "-authenticated")
        is_opaque = port in self._port_set(target, OPAQUE_PORTS)
        return Door(
            name=None,
            protocol=Protocol.OPAQUE if is_opaque else Protocol.DETECT,
            everywhere=default_authorizations(mode, self._cluster),
            routes=self._default_routes(self._pods.probes(target, port)),
        )

    def _annotation(self, workload: Workload, name: str) -> str | None:
        own = self._pods.annotation(workload, name)
        return own if own is not None else self._annotations.get(workload.namespace, {}).get(name)

    def _place(self, workload: Workload) -> _Place:
        return _Place(
            is_left_out=self._annotation(workload, INJECT) == "disabled",
            skipped=self._port_set(workload, SKIPPED_PORTS),
            doors={},
        )

    def _port_set(self, workload: Workload, name: str) -> frozenset[int]:
        text = self._annotation(workload, name)
        return frozenset() if text is None else _ports(text, name)


def _ports(text: str, name: str) -> frozenset[int]:
    found: set[int] = set()
    for part in filter(None, (one.strip() for one in text.split(","))):
        low, _, high = part.partition("-")
        if not low.strip().isdigit() or (high and not high.strip().isdigit()):
            raise InputError(f"{name}: {part[:40]!r} is no port")
        found.update(range(int(low), int(high or low) + 1))
    return frozenset(found)
