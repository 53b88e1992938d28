# SPDX-License-Identifier: Apache-2.0
"""What leaves the cluster: EgressNetworks and the routes that are attached to them.

The EgressNetworks of the source's namespace count, and only where it has none those of the global one.  Of those whose networks
hold the address the one with the smallest counts; without any, traffic leaves.  Its routes go before its ``trafficPolicy``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from everyhop.core.errors import InputError
from everyhop.evaluators.fields import spec_of
from everyhop.evaluators.linkerd.clients import GROUP, check_version, read_net
from everyhop.evaluators.linkerd.matching import best, host_rank, see
from everyhop.evaluators.model import Outcome, Wire
from everyhop.evaluators.networks import Network, read_block

if TYPE_CHECKING:
    from collections.abc import Iterable

    from everyhop.evaluators.linkerd.routes import Attached
    from everyhop.evaluators.model import Request
    from everyhop.manifests.model import Manifest, Manifests


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressNetwork:
    """One object; ``made`` is when, "" unknown."""

    name: str
    namespace: str
    networks: tuple[Network, ...]
    denies: bool
    made: str


class Egress:
    """The EgressNetworks of manifests, ready to be asked."""

    def __init__(
        self,
        manifests: Manifests,
        routes: Iterable[Attached],
        cluster: tuple[Network, ...],
        global_namespace: str,
    ) -> None:
        self._networks = tuple(_network(one, cluster) for one in manifests.of("EgressNetwork", GROUP))
        self._global = global_namespace
        self._routes: dict[tuple[str, str, int], list[Attached]] = {}
        for route in routes:
            for parent in route.parents:
                if parent.kind == "EgressNetwork" and parent.port is not None:
                    _check(route, parent.name)
                    self._routes.setdefault((parent.namespace, parent.name, parent.port), []).append(route)

    def evaluate(self, request: Request) -> Outcome:
        """Return whether a request may leave."""
        network = self._network_of(request)
        if network is None:
            return Outcome(allowed=True, why="no EgressNetwork holds the address")
        routes = self._routes.get((network.namespace, network.name, request.port), [])
        route = self._route(routes, request)
        if route is not None:
            return Outcome(allowed=True, why="a route leads there", by=route.route.name)
        if routes and routes[0].kind == "TLSRoute" and request.wire is not Wire.TCP:
            return Outcome(allowed=False, why="only TLS leaves there", by=routes[0].route.name)
        by = f"EgressNetwork {network.namespace}/{network.name}"
        return Outcome(allowed=not network.denies, why="its traffic policy", by=by)

    def _network_of(self, request: Request) -> EgressNetwork | None:
        own = [one for one in self._networks if one.namespace == request.source.namespace]
        usable = own or [one for one in self._networks if one.namespace == self._global]
        found = [
            (min(sizes), one.made, one.namespace, one.name, one)
            for one in usable
            if (sizes := [_size(net) for net in one.networks if request.target.ip in net])
        ]
        return min(found, key=lambda one: one[:4])[4] if found else None

    @staticmethod
    def _route(routes: list[Attached], request: Request) -> Attached | None:
        """Return the route of a request: for a connection of which nothing is read, by the name that its TLS asks for."""
        http = [one for one in routes if one.kind == "HTTPRoute"]
        if http:  # these take the port for HTTP, and routes of TLS and TCP are in conflict with them
            if request.wire is Wire.TCP:
                return None
            seen = see(request.method, request.path, request.host, request.headers)
            found = None if seen is None else best([(one.route, one) for one in http], seen)
            return None if found is None else found[1]
        tls = [one for one in routes if one.kind == "TLSRoute"]
        if tls:
            name = request.dns_name
            if request.wire is not Wire.TCP or name is None:
                return None
            return next(
                (
                    one
                    for one in tls
                    if not one.route.hosts or any(host_rank(host, name) for host in one.route.hosts)
                ),
                None,
            )
        return next((one for one in routes if one.kind == "TCPRoute"), None)


def _check(route: Attached, network: str) -> None:
    if route.kind == "GRPCRoute":
        raise InputError(f"{route.route.name}: GRPCRoutes of an EgressNetwork are not read here")
    for one in route.backends:
        if one[:3] != (GROUP, "egressnetwork", network) or one.namespace not in {None, route.namespace}:
            raise InputError(f"{route.route.name}: leads elsewhere than to its EgressNetwork")


def _network(manifest: Manifest, cluster: tuple[Network, ...]) -> EgressNetwork:
    check_version(manifest, "v1alpha1")
    with spec_of(manifest) as spec:
        policy = spec.one_of("trafficPolicy", "Allow", "Deny")
        networks = spec.each("networks", read_net)
    if policy is None:
        raise InputError(f"{spec.where}: trafficPolicy is missing")
    if networks == ():
        raise InputError(f"{spec.where}: at least one network")
    made = manifest.metadata.get("creationTimestamp")
    return EgressNetwork(
        name=manifest.name,
        namespace=manifest.namespace,
        networks=networks or _everything_but(cluster),
        denies=policy == "Deny",
        made="" if made is None else str(made),
    )


def _everything_but(cluster: tuple[Network, ...]) -> tuple[Network, ...]:
    return tuple(
        Network(block, tuple(one.block for one in cluster if one.block.version == block.version))
        for block in (read_block("0.0.0.0/0", ""), read_block("::/0", ""))
    )


def _size(network: Network) -> int:
    return network.block.num_addresses - sum(one.num_addresses for one in network.excepted)
