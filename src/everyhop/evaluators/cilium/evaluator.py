# SPDX-License-Identifier: Apache-2.0
"""What Cilium does with a request.

At each end that is a pod: a deny that fits refuses; else any allow that fits lets pass, where rules of layer 7 are asked only if no
allow without them fits (an allow of layer 4 absorbs them); else the pod's mode in that direction decides, which is default deny as
soon as one policy asks for it.  Layer 7 is read from plaintext HTTP: who speaks TLS of its own is refused there in truth, and what is
answered here is for the hop without it.  Certificates are not looked at, and ``authentication`` is no mTLS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.evaluators.cilium.http import MAX_PROGRAM, seen_path
from everyhop.evaluators.cilium.identities import NODE, WORLD, labels_of
from everyhop.evaluators.cilium.rules import CLUSTERWIDE, NAMESPACED, Policy, read_policies
from everyhop.evaluators.labels import Selected
from everyhop.evaluators.model import Outcome, Wire
from everyhop.evaluators.network_policy import (
    Direction,
    NetworkPolicies,
    is_node,
)
from everyhop.evaluators.networks import read_networks
from everyhop.evaluators.pods import PerWorkload, Pods

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from everyhop.evaluators.cilium.rules import Peers, PortRule, Rule
    from everyhop.evaluators.model import Request, Workload
    from everyhop.manifests.model import Manifests

_MAX_REMEMBERED: Final = 65536
_PODS: Final = frozenset({"all", "cluster"})
_NODES: Final = frozenset({"all", "cluster", "host", "remote-node"})


@dataclass(frozen=True, slots=True)
class _Fit:
    """An allow that fits; ``rule`` None: nothing of what is spoken is asked."""

    by: str
    rule: PortRule | None = None


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What is decided without reading the request, or the rules of layer 7 that it is read for."""

    outcome: Outcome | None
    fits: tuple[_Fit, ...] = ()


class CiliumEvaluator:
    """A cluster in Cilium's default enforcement mode.

    ``node_networks`` are addresses of nodes (``host`` and ``remote-node``; a pod always hears its own node, so those reach it).
    ``named_ports`` are as for NetworkPolicy.  ``addresses`` (name to addresses): what DNS answers; with it a name is reachable that
    nobody allowed but that lives at an allowed one's address.  ``max_program`` is Envoy's limit for the size of an expression, None
    for none, ``normalises`` whether its proxies normalise paths; both defaults are Cilium's.
    """

    def __init__(
        self,
        manifests: Manifests,
        *,
        cluster: str = "default",
        named_ports: Mapping[str, int] | None = None,
        node_networks: Iterable[str] = (),
        addresses: Mapping[str, Iterable[str]] | None = None,
        max_program: int | None = MAX_PROGRAM,
        normalises: bool = True,
    ) -> None:
        for one in manifests.of("CiliumCIDRGroup"):
            raise InputError(f"{one.span}: {one}: groups of networks are not read here")
        self._policies = Selected[Policy]()
        for kind in (NAMESPACED, CLUSTERWIDE):
            for manifest in manifests.of(kind):
                for policy in read_policies(manifest, max_program):
                    self._policies.add(policy.endpoints, policy)
        self._pods = Pods(manifests, named_ports)
        self._network = NetworkPolicies(manifests, self._pods, blocks_hold_pods=False)
        self._nodes = read_networks(node_networks, "node_networks")
        self._addresses = {
            name.lower().rstrip("."): frozenset(found) for name, found in (addresses or {}).items()
        }
        self._normalises = normalises
        self._labels = PerWorkload(lambda one: self._labels_of(one, cluster))
        self._selecting = PerWorkload(self._find)
        self._known: dict[
            tuple[int, int, int, str | None], tuple[Workload, Workload, Mapping[Direction, _Verdict]]
        ] = {}

    def evaluate(self, request: Request) -> Outcome:
        """Return whether a request is let pass at both ends, and by which policy."""
        allowed_by = None
        for direction, verdict in self._verdicts(request).items():
            outcome = verdict.outcome or self._layer_7(f"the {direction.lower()}", verdict.fits, request)
            if not outcome.allowed:
                return outcome
            allowed_by = outcome.by or allowed_by
        why = "allowed at both ends" if allowed_by else "nothing isolates either end"
        return Outcome(allowed=True, why=why, by=allowed_by)

    def _verdicts(self, request: Request) -> Mapping[Direction, _Verdict]:
        """Return what the ends and the port alone decide: a prover asks for many requests between the same two."""
        key = (id(request.source), id(request.target), request.port, request.dns_name)
        found = self._known.get(key)
        if found is None or found[0] is not request.source or found[1] is not request.target:
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            found = self._known[key] = (request.source, request.target, dict(self._decided(request)))
        return found[2]

    def _decided(self, request: Request) -> Iterator[tuple[Direction, _Verdict]]:
        if request.source.namespace:
            yield Direction.EGRESS, self._decide(Direction.EGRESS, request, request.source)
        if request.target.namespace and not is_node(request.source, self._nodes):
            yield Direction.INGRESS, self._decide(Direction.INGRESS, request, request.target)

    def _decide(self, direction: Direction, request: Request, end: Workload) -> _Verdict:
        where = f"{direction.lower()} of {end.namespace}/{end.name}"
        other = request.source if direction is Direction.INGRESS else request.target
        policies = self._selecting(end)
        fits: list[_Fit] = []
        for policy in policies:
            for rule in policy.rules[direction]:
                for found in self._fits(rule, policy, other, end, request):
                    if rule.is_deny:
                        return _Verdict(Outcome(allowed=False, why=f"the {where} is denied", by=found.by))
                    fits.append(found)
        network = self._network.judge(direction, request)
        if network.by is not None:
            fits.append(_Fit(network.by))
        for one in fits:
            if one.rule is None:
                return _Verdict(Outcome(allowed=True, why=f"the {where} is allowed", by=one.by))
        if fits:
            return _Verdict(None, tuple(fits))
        isolating = next((one.name for one in policies if direction in one.isolates), None)
        if isolating is None and not network.is_isolated:
            return _Verdict(Outcome(allowed=True, why=f"nothing isolates the {where}"))
        return _Verdict(Outcome(allowed=False, why=f"nothing allows the {where}", by=isolating))

    def _layer_7(self, where: str, fits: Iterable[_Fit], request: Request) -> Outcome:
        for one in fits:
            if one.rule is not None and self._speaks(one.rule, request):
                return Outcome(allowed=True, why=f"a rule of layer 7 allows {where}", by=one.by)
        why = f"no rule of layer 7 allows {where}: 403"
        return Outcome(allowed=False, why=why, by=next(one.by for one in fits))

    def _speaks(self, rule: PortRule, request: Request) -> bool:
        """Tell whether a request is what a rule of layer 7 lets be spoken; an opaque connection is TLS or DNS."""
        if request.wire is Wire.TCP:
            if rule.servers is not None:
                return request.dns_name is not None and any(request.dns_name in one for one in rule.servers)
            return rule.dns is not None
        path = seen_path(request.path, normalises=self._normalises)
        return path is not None and any(
            one.matches(request.method, request.host, path, request.headers) for one in rule.http or ()
        )

    def _find(self, workload: Workload) -> tuple[Policy, ...]:
        found = self._policies.of(self._labels(workload))
        return () if found and self._pods.uses_host_network(workload) else found

    def _labels_of(self, workload: Workload, cluster: str) -> Mapping[str, str]:
        if workload.namespace:
            return labels_of(workload, cluster)
        return NODE if is_node(workload, self._nodes) else WORLD

    def _fits(
        self, rule: Rule, policy: Policy, other: Workload, end: Workload, request: Request
    ) -> Iterator[_Fit]:
        if rule.peers is None and rule.ports is None:
            return  # an empty rule isolates and allows nothing
        if rule.peers is not None and not self._is_peer(rule.peers, other, end, request):
            return
        if rule.ports is None:
            yield _Fit(policy.name)
            return
        for one in rule.ports:
            if self._is_port(one, policy, request):
                is_plain = one.http is None and one.dns is None and one.servers is None
                yield _Fit(policy.name, None if is_plain else one)

    def _is_port(self, rule: PortRule, policy: Policy, request: Request) -> bool:
        for one in rule.ports:
            if one.name is not None:
                if request.target.namespace and request.port in self._pods.numbers(
                    request.target, one.name, policy.name
                ):
                    return True
            elif one.low <= request.port <= one.high:
                return True
        return False

    def _is_peer(self, peers: Peers, other: Workload, end: Workload, request: Request) -> bool:
        labels = self._labels(other)
        if any(one.selects(labels) for one in peers.selectors):
            return True
        if other.namespace:
            return bool(peers.entities & _PODS)
        if is_node(other, self._nodes):
            return bool(peers.entities & _NODES)
        version = "world-ipv6" if ":" in other.ip else "world-ipv4"
        if peers.entities & {"all", "world", version}:
            return True
        # Blocks are for what is no pod and no node.
        if any(other.ip in one for one in peers.networks):
            return True
        return bool(peers.names) and self._is_named(peers, end, request)

    def _is_named(self, peers: Peers, end: Workload, request: Request) -> bool:
        """Tell whether the target has an address of an allowed name that the pod's own DNS rules let it learn."""
        asked = (request.dns_name or "").lower().rstrip(".")
        known = {name for name, found in self._addresses.items() if request.target.ip in found}
        return any(
            name in one and self._learns(end, name)
            for name in sorted({asked, *known} - {""})
            for one in peers.names
        )

    def _learns(self, end: Workload, name: str) -> bool:
        return any(
            name in names
            for policy in self._selecting(end)
            for rule in policy.rules[Direction.EGRESS]
            for ports in rule.ports or ()
            for names in ports.dns or ()
        )
