# SPDX-License-Identifier: Apache-2.0
"""A workload behind ztunnel, with or without a waypoint: the whole way of a request, and the way round the waypoint."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from everyhop.evaluators.envoy_paths import Normalization
from everyhop.evaluators.istio.attachment import Attached
from everyhop.evaluators.istio.decision import decide
from everyhop.evaluators.istio.sidecar import Istio
from everyhop.evaluators.istio.waypoints import Waypoint, Waypoints
from everyhop.evaluators.istio.ztunnel import Connection, decide_l4, l4_policy_of, peer_of
from everyhop.evaluators.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from everyhop.evaluators.istio.rules import Policy
    from everyhop.evaluators.istio.tokens import JwtRule
    from everyhop.evaluators.model import Request
    from everyhop.manifests import Manifests

_NO_USES: Final[Mapping[str, str]] = MappingProxyType({})


class Ambient:
    """Istio's ambient mode under given manifests.

    Who has an identity of the mesh may reach a service through its waypoint, and anybody may go straight to the pod: a request gets
    through if one of the ways lets it.  A workload is in the mesh as the label ``istio.io/dataplane-mode`` says, its own or that of
    its namespace; where the manifests hold no namespace at all this is taken for granted.  ``uses`` names the waypoint of namespaces whose objects are not among the manifests,
    ``waypoint_ip`` the address with which waypoints call; further arguments are those of :class:`Istio`.
    Where the manifests hold no Service, a workload has one of its own name.

    Raises InputError, with file and line, for manifests that Istio would reject or that say what is not known here.
    """

    def __init__(
        self,
        manifests: Manifests,
        *,
        trust_domain: str,
        aliases: Sequence[str] = (),
        root_namespace: str = "istio-system",
        normalization: Normalization = Normalization.BASE,
        providers: Collection[str] | None = None,
        refuses_foreign: bool = False,
        filter_metadata: Mapping[str, Mapping[str, Any]] | None = None,
        jwks_uris: Mapping[str, str] = _NO_USES,
        uses: Mapping[str, str] = _NO_USES,
        waypoint_ip: str = "10.1.255.254",
    ) -> None:
        self._istio = Istio(
            manifests,
            trust_domain=trust_domain,
            aliases=aliases,
            root_namespace=root_namespace,
            normalization=normalization,
            providers=providers,
            refuses_foreign=refuses_foreign,
            filter_metadata=filter_metadata,
            jwks_uris=jwks_uris,
        )
        self._trust_domain = trust_domain
        self._waypoints = Waypoints(manifests, uses)
        self._waypoint_ip = waypoint_ip
        self._kept: dict[
            tuple[Waypoint, str, str | None], tuple[tuple[Policy, ...], tuple[JwtRule, ...]]
        ] = {}
        made = (l4_policy_of(one) for one in self._istio.policies)
        self._l4 = Attached((one for one in made if one is not None), root_namespace)

    def evaluate(self, request: Request) -> Outcome:
        """Return what becomes of a request by the way that lets it through, else by the first one that there is.

        A way on which nobody is asked comes before one on which an authorizer is.
        """
        outcomes = tuple(outcome for _, outcome in self.ways(request))
        allowed = [one for one in outcomes if one.allowed]
        return min(allowed, key=lambda one: one.asks is not None) if allowed else outcomes[0]

    def ways(self, request: Request) -> Iterator[tuple[str, Outcome]]:
        """Yield each way that a request can take, by its name (``waypoint NAMESPACE/NAME`` or ``direct``), and its outcome.

        Plaintext never comes through a waypoint: who is outside of the mesh is not led there.
        """
        if request.dns_name is not None and not request.target.namespace:
            yield "direct", Outcome(allowed=True, why="egress: ztunnel holds nobody back")
            return
        if not self._waypoints.is_enrolled(request.target):
            yield "direct", Outcome(allowed=True, why="the workload is not in the mesh")
            return
        seen: set[Waypoint] = set()
        if request.peer is not None:
            for service in self._waypoints.services(request.target):
                waypoint = self._waypoints.before_service(service, request.target)
                if waypoint is not None:
                    seen.add(waypoint)
                    name = request.target.name if service is None else service.name
                    yield (
                        f"waypoint {waypoint.namespace}/{waypoint.name}",
                        self._through(waypoint, request, name),
                    )
            waypoint = self._waypoints.before_workload(request.target)
            if waypoint is not None and waypoint not in seen:
                yield f"waypoint {waypoint.namespace}/{waypoint.name}", self._through(waypoint, request, None)
        yield "direct", self._straight(request, request.peer)

    def _through(self, waypoint: Waypoint, request: Request, service: str | None) -> Outcome:
        refusal = self._istio.refusal_of_peer(request.peer)
        if refusal is not None:
            return refusal
        facts = self._istio.facts(request, request.peer, trusts_forwarded=True)
        if facts is None:
            return Outcome(allowed=False, why="400: the path is malformed")
        key = (waypoint, request.target.namespace, service)
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = self._attached(*key)
        policies, rules = found
        first = decide(policies, rules, request, facts, providers=self._istio.providers)
        if not first.allowed:
            return first
        # From here on the caller is the waypoint: the client's identity does not reach the workload.
        second = self._straight(request, waypoint.identity(self._trust_domain), self._waypoint_ip)
        if not second.allowed:
            return replace(second, why=f"after the waypoint: {second.why}")
        return first

    def _attached(
        self, waypoint: Waypoint, namespace: str, service: str | None
    ) -> tuple[tuple[Policy, ...], tuple[JwtRule, ...]]:
        services = set() if service is None else {(namespace, service)}
        place = (waypoint.name, waypoint.namespace, services, self._istio.root_namespace)
        policies = tuple(
            one for one in self._istio.policies if not one.is_dry_run and one.attachment.to_waypoint(*place)
        )
        rules = tuple(
            rule
            for one in self._istio.authentications
            if one.attachment.to_waypoint(*place)
            for rule in one.rules
        )
        return policies, rules

    def _straight(self, request: Request, peer: str | None, source_ip: str | None = None) -> Outcome:
        refusal = self._istio.refusal_of_peer(peer)
        if refusal is not None:
            return refusal
        found = self._istio.scopes(request.target)
        seen = peer_of(peer)
        if not seen and found.refuses_plaintext_in_ambient(request.port):
            return Outcome(allowed=False, why="ztunnel: plaintext where mTLS is STRICT")
        connection = Connection(
            peer=seen,
            source_ip=ipaddress.ip_address(source_ip or request.source.ip),
            destination_ip=ipaddress.ip_address(request.target.ip),
            port=request.port,
        )
        return decide_l4(self._l4.to_workload(request.target), connection)
