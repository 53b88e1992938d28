# SPDX-License-Identifier: Apache-2.0
"""NetworkPolicy of Kubernetes: which pods may open a connection to which.

Written from the API's own documentation (networking.k8s.io/v1 types, concepts/services-networking/network-policies), its defaults
(``SetDefaults_NetworkPolicy``) and its end-to-end truth tables (test/e2e/network/netpol).  A pod is isolated in a direction if some
policy with that policyType selects it; then only what one of these policies' rules allows passes, and a connection needs the
egress of its source and the ingress of its destination.  Everything asked here is TCP.

Beyond that: a request from a network of ``node_networks`` reaches pods whatever policies say, since a node always reaches its own
pods, and pods with hostNetwork (by their templates, where the manifests hold them) are not selected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.evaluators.fields import Fields, spec_of
from everyhop.evaluators.labels import ALL, Selected, Selector, read_selector
from everyhop.evaluators.model import Outcome, labels_of_namespace
from everyhop.evaluators.networks import Network, read_network, read_networks
from everyhop.evaluators.pods import PerWorkload, Pods

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.evaluators.model import Request, Workload
    from everyhop.manifests.model import Manifest, Manifests

KIND: Final = "NetworkPolicy"
API_VERSION: Final = "networking.k8s.io/v1"
MAX_PORT: Final = 65535
_PORT_NAME: Final = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9](?:[a-z0-9-]{0,13}[a-z0-9])?")


class Direction(StrEnum):
    """Which way a connection goes, seen from the pod that a policy selects."""

    INGRESS = "Ingress"
    EGRESS = "Egress"


@dataclass(frozen=True, slots=True)
class Ports:
    """One entry of ``ports``: numbers from ``low`` to ``high``, or a name; both None: every port."""

    is_tcp: bool
    low: int | None = None
    high: int | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """One entry of ``from`` or ``to``: a network, or pods by both selectors (no namespaces: the policy's own)."""

    pods: Selector = ALL
    namespaces: Selector | None = None
    network: Network | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: a peer and a port have to fit; no peers (ports) mean any."""

    peers: tuple[Peer, ...]
    ports: tuple[Ports, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One object; ``rules`` has the directions that it isolates."""

    name: str
    namespace: str
    pods: Selector
    rules: Mapping[Direction, tuple[Rule, ...]]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the policies say in one direction: whether the pod is isolated, and if so by whom the connection is allowed."""

    is_isolated: bool
    by: str | None = None

    @property
    def is_allowed(self) -> bool:
        """Tell whether the connection passes."""
        return not self.is_isolated or self.by is not None


class NetworkPolicies:
    """The NetworkPolicies of manifests, ready to be asked.

    ``blocks_hold_pods``: an ipBlock fits the address of a pod too, as the API has it; Cilium's do not.
    """

    def __init__(self, manifests: Manifests, pods: Pods, *, blocks_hold_pods: bool = True) -> None:
        self._blocks_hold_pods = blocks_hold_pods
        self._by_namespace: dict[str, Selected[Policy]] = {}
        for manifest in manifests.of(KIND):
            policy = read_policy(manifest)
            self._by_namespace.setdefault(policy.namespace, Selected()).add(policy.pods, policy)
        self._pods = pods
        self._selecting = PerWorkload(self._find)

    def judge(self, direction: Direction, request: Request) -> Judgement:
        """Return what the policies of the pod at one end say; a host outside of the cluster is never isolated."""
        ingress = direction is Direction.INGRESS
        subject, other = (request.target, request.source) if ingress else (request.source, request.target)
        policies = self._selecting(subject)[direction]
        for policy in policies:
            for rule in policy.rules[direction]:
                if self._fits(rule, policy, other, request):
                    return Judgement(is_isolated=True, by=policy.name)
        return Judgement(is_isolated=bool(policies))

    def _find(self, workload: Workload) -> Mapping[Direction, tuple[Policy, ...]]:
        chosen = self._by_namespace.get(workload.namespace) if workload.namespace else None
        found = () if chosen is None else chosen.of(workload.labels)
        if found and self._pods.uses_host_network(workload):
            found = ()
        return {way: tuple(one for one in found if way in one.rules) for way in Direction}

    def _fits(self, rule: Rule, policy: Policy, other: Workload, request: Request) -> bool:
        if rule.peers and not any(self._is_peer(peer, policy.namespace, other) for peer in rule.peers):
            return False
        return not rule.ports or any(self._is_port(one, policy, request) for one in rule.ports)

    def _is_peer(self, peer: Peer, namespace: str, other: Workload) -> bool:
        if peer.network is not None:
            return other.ip in peer.network and (self._blocks_hold_pods or not other.namespace)
        if not other.namespace:
            return False
        if peer.namespaces is None:
            return other.namespace == namespace and peer.pods.selects(other.labels)
        return peer.namespaces.selects(labels_of_namespace(other)) and peer.pods.selects(other.labels)

    def _is_port(self, ports: Ports, policy: Policy, request: Request) -> bool:
        if not ports.is_tcp:
            return False
        if ports.name is not None:
            if not request.target.namespace:  # nothing outside of the cluster has names for its ports
                return False
            return request.port in self._pods.numbers(request.target, ports.name, policy.name)
        return ports.low is None or ports.low <= request.port <= (ports.high or ports.low)


class NetworkPolicyEvaluator:
    """A cluster whose network plugin enforces NetworkPolicy and nothing else.

    ``named_ports`` (name to number) and the pod templates among the manifests say what the names of ports mean; an unknown name is
    an InputError when it is asked for.  Other kinds of objects are left alone, NetworkPolicies of other API groups refused.
    """

    def __init__(
        self,
        manifests: Manifests,
        *,
        named_ports: Mapping[str, int] | None = None,
        node_networks: Iterable[str] = (),
    ) -> None:
        self._policies = NetworkPolicies(manifests, Pods(manifests, named_ports))
        self._nodes = read_networks(node_networks, "node_networks")

    def evaluate(self, request: Request) -> Outcome:
        """Return whether a connection is let pass at both ends; what is spoken on it and by whom is not looked at."""
        allowed_by = None
        for direction, end in ((Direction.EGRESS, request.source), (Direction.INGRESS, request.target)):
            if direction is Direction.INGRESS and is_node(request.source, self._nodes):
                continue
            found = self._policies.judge(direction, request)
            if not found.is_allowed:
                return Outcome(
                    allowed=False,
                    why=f"no NetworkPolicy allows this {direction.lower()} of {end.namespace}/{end.name}",
                )
            allowed_by = found.by or allowed_by
        why = "allowed at both ends" if allowed_by else "no NetworkPolicy isolates either end"
        return Outcome(allowed=True, why=why, by=allowed_by)


def is_node(source: Workload, nodes: tuple[Network, ...]) -> bool:
    """Tell whether a connection comes from a node itself, the kubelet's probes for example."""
    return not source.namespace and any(source.ip in one for one in nodes)


def read_policy(manifest: Manifest) -> Policy:
    """Read one object; raises InputError for what the API server rejects and for what is unknown here."""
    if manifest.api_version != API_VERSION:
        raise InputError(
            f"{manifest.span}: {manifest} is of {manifest.api_version}, and {API_VERSION} is read"
        )
    with spec_of(manifest) as spec:
        selector = spec.take("podSelector")
        pods = ALL if selector is None else read_selector(selector, f"{spec.where}.podSelector")
        types = _types(spec)
        ingress = spec.each("ingress", lambda rule: _rule(rule, "from")) or ()
        egress = spec.each("egress", lambda rule: _rule(rule, "to")) or ()
    # Without policyTypes there is Ingress, and Egress only where a rule is written for it: an empty list does not count.
    types = types or ((Direction.INGRESS, Direction.EGRESS) if egress else (Direction.INGRESS,))
    rules = {Direction.INGRESS: ingress, Direction.EGRESS: egress}
    return Policy(
        name=str(manifest),
        namespace=manifest.namespace,
        pods=pods,
        rules={one: rules[one] for one in types},
    )


def _types(spec: Fields) -> tuple[Direction, ...]:
    found = spec.texts("policyTypes") or ()
    if unknown := [one for one in found if one not in {*Direction}]:
        raise InputError(f"{spec.where}.policyTypes: {unknown[0]!r} is none of Ingress, Egress")
    return tuple(Direction(one) for one in found)


def _rule(rule: Fields, side: str) -> Rule:
    peers = rule.each(side, _peer) or ()
    return Rule(peers, rule.each("ports", _ports) or ())


def _peer(peer: Fields) -> Peer:
    block = peer.inner("ipBlock")
    pods, namespaces = peer.take("podSelector"), peer.take("namespaceSelector")
    if block is not None:
        if pods is not None or namespaces is not None:
            raise InputError(f"{peer.where}: ipBlock stands alone")
        with block:
            cidr = block.needed_text("cidr")
            return Peer(network=read_network(cidr, block.texts("except") or (), block.where))
    if pods is None and namespaces is None:
        raise InputError(f"{peer.where}: a peer names pods, namespaces or a block")
    return Peer(
        pods=ALL if pods is None else read_selector(pods, f"{peer.where}.podSelector"),
        namespaces=None
        if namespaces is None
        else read_selector(namespaces, f"{peer.where}.namespaceSelector"),
    )


def _ports(ports: Fields) -> Ports:
    protocol = ports.one_of("protocol", "TCP", "UDP", "SCTP") or "TCP"
    port = ports.take("port")
    last = ports.number("endPort", 1, MAX_PORT)
    if isinstance(port, str):
        if last is not None:
            raise InputError(f"{ports.where}: endPort goes with a number")
        if not _PORT_NAME.fullmatch(port):
            raise InputError(f"{ports.where}: {port[:60]!r} is no name of a port")
        return Ports(protocol == "TCP", name=port)
    if port is None:
        if last is not None:
            raise InputError(f"{ports.where}: endPort needs a port")
        return Ports(protocol == "TCP")
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= MAX_PORT:
        raise InputError(f"{ports.where}: a port is a number from 1 to {MAX_PORT} or a name")
    if last is not None and last < port:
        raise InputError(f"{ports.where}: endPort is below port")
    return Ports(protocol == "TCP", port, port if last is None else last)
