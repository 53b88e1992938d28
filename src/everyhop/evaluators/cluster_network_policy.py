# SPDX-License-Identifier: Apache-2.0
"""ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2) together with NetworkPolicy.

Written from kubernetes-sigs/network-policy-api, apis/v1alpha2/clusternetworkpolicy_types.go.  In each direction: the Admin tier by
priority, then the NetworkPolicies of the pod if one isolates it, else the Baseline tier, else the connection passes.  Accept and
Deny are final, Pass leaves the tier.  Two policies of one tier and priority that would decide a connection differently are an
InputError, as the API leaves open which of them wins.

``nodes`` peers are refused (nothing says what a node's labels are), and so are AdminNetworkPolicy and its Baseline, which this
kind replaced.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.evaluators.fields import Fields, spec_of
from everyhop.evaluators.labels import ALL, Selector, read_selector
from everyhop.evaluators.model import Outcome, labels_of_namespace
from everyhop.evaluators.network_policy import MAX_PORT, Direction, NetworkPolicies, is_node
from everyhop.evaluators.networks import Network, read_block, read_networks
from everyhop.evaluators.pods import PerWorkload, Pods

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.evaluators.model import Request, Workload
    from everyhop.manifests.model import Manifest, Manifests

KIND: Final = "ClusterNetworkPolicy"
API_VERSION: Final = "policy.networking.k8s.io/v1alpha2"
REPLACED: Final = ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy")
MAX_RULES: Final = 25
MAX_PRIORITY: Final = 1000
_MAX_NAME: Final = 100
_DOMAIN: Final = re.compile(
    r"(?:\*\.)?(?:[a-zA-Z0-9](?:[-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-Z0-9](?:[-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?"
)


class Tier(StrEnum):
    """The tiers which this kind has; NetworkPolicy stands between them."""

    ADMIN = "Admin"
    BASELINE = "Baseline"


class Action(StrEnum):
    """What a rule does with what it matches."""

    ACCEPT = "Accept"
    DENY = "Deny"
    PASS = "Pass"  # noqa: S105  # a word of the API


@dataclass(frozen=True, slots=True)
class PodSet:
    """Pods of namespaces, both by their labels."""

    namespaces: Selector
    pods: Selector = ALL

    def selects(self, workload: Workload) -> bool:
        """Tell whether a workload is one of them; nothing outside of the cluster is."""
        return (
            bool(workload.namespace)
            and self.namespaces.selects(labels_of_namespace(workload))
            and self.pods.selects(workload.labels)
        )


@dataclass(frozen=True, slots=True)
class Peer:
    """One entry of ``from`` or ``to``; exactly one member is set."""

    pods: PodSet | None = None
    networks: tuple[Network, ...] = ()
    domains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Protocol:
    """One entry of ``protocols``: TCP on ports from ``low`` to ``high``, or a named port; nothing where it is not TCP."""

    is_tcp: bool = True
    low: int = 0
    high: int = MAX_PORT
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; no protocols mean any."""

    action: Action
    peers: tuple[Peer, ...]
    protocols: tuple[Protocol, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One object."""

    name: str
    tier: Tier
    priority: int
    subject: PodSet
    rules: Mapping[Direction, tuple[Rule, ...]]


class ClusterNetworkPolicyEvaluator:
    """A cluster whose network plugin enforces ClusterNetworkPolicy and NetworkPolicy.

    ``named_ports`` and ``node_networks`` are as for :class:`everyhop.evaluators.network_policy.NetworkPolicyEvaluator`.
    """

    def __init__(
        self,
        manifests: Manifests,
        *,
        named_ports: Mapping[str, int] | None = None,
        node_networks: Iterable[str] = (),
    ) -> None:
        for old in manifests:
            if old.kind in REPLACED:
                raise InputError(f"{old.span}: {old}: {KIND} of {API_VERSION} is read, and this is not")
        self._pods = Pods(manifests, named_ports)
        self._middle = NetworkPolicies(manifests, self._pods)
        self._nodes = read_networks(node_networks, "node_networks")
        self._policies = tuple(sorted(map(read_policy, manifests.of(KIND)), key=lambda one: one.priority))
        self._selecting = PerWorkload(self._find)

    def evaluate(self, request: Request) -> Outcome:
        """Return whether a connection is let pass at both ends; what is spoken on it and by whom is not looked at."""
        decided_by = None
        for direction, end in ((Direction.EGRESS, request.source), (Direction.INGRESS, request.target)):
            if not end.namespace or (direction is Direction.INGRESS and is_node(request.source, self._nodes)):
                continue
            is_allowed, by = self._decide(direction, request, end)
            if not is_allowed:
                why = f"this {direction.lower()} of {end.namespace}/{end.name} is denied"
                return Outcome(allowed=False, why=why, by=by)
            decided_by = by or decided_by
        why = "accepted at both ends" if decided_by else "no policy says anything of either end"
        return Outcome(allowed=True, why=why, by=decided_by)

    def _decide(self, direction: Direction, request: Request, end: Workload) -> tuple[bool, str | None]:
        policies = self._selecting(end)
        admin = self._tier(policies, Tier.ADMIN, direction, request)
        if admin is not None and admin[0] is not Action.PASS:
            return admin[0] is Action.ACCEPT, admin[1]
        middle = self._middle.judge(direction, request)
        if middle.is_isolated:
            return middle.is_allowed, middle.by or "NetworkPolicy"
        baseline = self._tier(policies, Tier.BASELINE, direction, request)
        if baseline is not None and baseline[0] is not Action.PASS:
            return baseline[0] is Action.ACCEPT, baseline[1]
        return True, None

    def _find(self, workload: Workload) -> tuple[Policy, ...]:
        found = tuple(one for one in self._policies if one.subject.selects(workload))
        return () if found and self._pods.uses_host_network(workload) else found

    def _tier(
        self, policies: Iterable[Policy], tier: Tier, direction: Direction, request: Request
    ) -> tuple[Action, str] | None:
        own = (one for one in policies if one.tier is tier)
        for priority, group in groupby(own, key=lambda one: one.priority):
            found = [
                (rule.action, policy.name)
                for policy in group
                if (rule := self._first(policy, direction, request)) is not None
            ]
            if len({action for action, _ in found}) > 1:
                names = ", ".join(name for _, name in found)
                raise InputError(
                    f"{names}: of one tier and priority {priority}, and they differ over a connection"
                )
            if found:
                return found[0]
        return None

    def _first(self, policy: Policy, direction: Direction, request: Request) -> Rule | None:
        for rule in policy.rules[direction]:
            if any(_is_peer(one, direction, request) for one in rule.peers) and (
                not rule.protocols or any(self._is_protocol(one, policy, request) for one in rule.protocols)
            ):
                return rule
        return None

    def _is_protocol(self, protocol: Protocol, policy: Policy, request: Request) -> bool:
        if protocol.name is not None:  # the target is a pod: named ports stand beside peers of pods alone
            return request.port in self._pods.numbers(request.target, protocol.name, policy.name)
        return protocol.is_tcp and protocol.low <= request.port <= protocol.high


def _is_peer(peer: Peer, direction: Direction, request: Request) -> bool:
    other = request.source if direction is Direction.INGRESS else request.target
    if peer.pods is not None:
        return peer.pods.selects(other)
    if peer.networks:
        return any(other.ip in one for one in peer.networks)
    return request.dns_name is not None and any(_is_domain(one, request.dns_name) for one in peer.domains)


def _is_domain(pattern: str, name: str) -> bool:
    """Tell whether a name fits; ``*`` stands for one label or more."""
    wanted, asked = pattern.rstrip(".").lower(), name.rstrip(".").lower()
    if wanted.startswith("*."):
        return asked.endswith(wanted[1:]) and len(asked) > len(wanted) - 1
    return asked == wanted


def read_policy(manifest: Manifest) -> Policy:
    """Read one object; raises InputError for what the API server rejects and for what is unknown here."""
    if manifest.api_version != API_VERSION:
        raise InputError(
            f"{manifest.span}: {manifest} is of {manifest.api_version}, and {API_VERSION} is read"
        )
    with spec_of(manifest) as spec:
        tier = spec.one_of("tier", *Tier)
        priority = spec.number("priority", 0, MAX_PRIORITY)
        subject = spec.inner("subject")
        if tier is None or priority is None or subject is None:
            raise InputError(f"{spec.where}: tier, priority and subject have to be there")
        with subject:
            pods = _read_pods(subject)
        if pods is None:
            raise InputError(f"{subject.where}: one of namespaces and pods has to be there")
        ingress = _rules(spec, "ingress", "from")
        egress = _rules(spec, "egress", "to")
    return Policy(
        name=f"{KIND} {manifest.name}",
        tier=Tier(tier),
        priority=priority,
        subject=pods,
        rules={Direction.INGRESS: ingress, Direction.EGRESS: egress},
    )


def _read_pods(fields: Fields) -> PodSet | None:
    namespaces, pods = fields.take("namespaces"), fields.inner("pods")
    if namespaces is not None and pods is not None:
        raise InputError(f"{fields.where}: one of namespaces and pods, and not both")
    if namespaces is not None:
        return PodSet(read_selector(namespaces, f"{fields.where}.namespaces"))
    if pods is None:
        return None
    with pods:
        return PodSet(
            read_selector(pods.take("namespaceSelector"), f"{pods.where}.namespaceSelector"),
            read_selector(pods.take("podSelector"), f"{pods.where}.podSelector"),
        )


def _rules(spec: Fields, key: str, side: str) -> tuple[Rule, ...]:
    rules = spec.each(key, lambda fields: _rule(fields, side)) or ()
    if len(rules) > MAX_RULES:
        raise InputError(f"{spec.where}.{key}: at most {MAX_RULES} rules")
    return rules


def _rule(fields: Fields, side: str) -> Rule:
    if len(fields.text("name") or "") > _MAX_NAME:
        raise InputError(f"{fields.where}.name: at most {_MAX_NAME} characters")
    action = fields.one_of("action", *Action)
    peers = fields.each(side, lambda peer: _peer(peer, side))
    protocols = fields.each("protocols", _protocol)
    if action is None or not peers:
        raise InputError(f"{fields.where}: action and {side} have to be there")
    if protocols == ():
        raise InputError(f"{fields.where}.protocols: at least one, or leave it out")
    if max(len(peers), len(protocols or ())) > MAX_RULES:
        raise InputError(f"{fields.where}: at most {MAX_RULES} peers and protocols")
    if any(one.domains for one in peers) and action != Action.ACCEPT:
        raise InputError(f"{fields.where}: domainNames are for Accept alone")
    if any(one.pods is None for one in peers) and any(one.name is not None for one in protocols or ()):
        raise InputError(f"{fields.where}: networks and domainNames have no named ports")
    return Rule(Action(action), peers, protocols or ())


def _peer(fields: Fields, side: str) -> Peer:
    pods = _read_pods(fields)
    networks = domains = None
    if side == "to":
        networks, domains = fields.texts("networks"), fields.texts("domainNames")
        if "nodes" in fields:
            raise InputError(f"{fields.where}: nodes are not read here")
    if sum(one is not None for one in (pods, networks, domains)) != 1:
        raise InputError(f"{fields.where}: exactly one kind of peer has to be there")
    if pods is not None:
        return Peer(pods=pods)
    if not 1 <= len(networks or domains or ()) <= MAX_RULES:
        raise InputError(f"{fields.where}: from 1 to {MAX_RULES} of them")
    for one in domains or ():
        if not _DOMAIN.fullmatch(one):
            raise InputError(f"{fields.where}: {one[:60]!r} is no name of a domain")
    return Peer(
        networks=tuple(Network(read_block(one, fields.where)) for one in networks or ()),
        domains=domains or (),
    )


def _protocol(fields: Fields) -> Protocol:
    name = fields.text("destinationNamedPort")
    found = [(one, inner) for one in ("tcp", "udp", "sctp") if (inner := fields.inner(one)) is not None]
    if len(found) + (name is not None) != 1:
        raise InputError(f"{fields.where}: exactly one protocol has to be there")
    if name is not None:
        return Protocol(name=name)
    kind, inner = found[0]
    with inner:
        port = inner.inner("destinationPort")
    if port is None:
        raise InputError(f"{inner.where}: destinationPort is missing")
    low, high = _range(port)
    return Protocol(kind == "tcp", low, high)


def _range(port: Fields) -> tuple[int, int]:
    with port:
        number, span = port.number("number", 1, MAX_PORT), port.inner("range")
    if (number is None) == (span is None):
        raise InputError(f"{port.where}: one of number and range has to be there")
    if span is None:
        return number or 0, number or 0
    with span:
        start, end = span.number("start", 1, MAX_PORT), span.number("end", 1, MAX_PORT)
    if start is None or end is None or start >= end:
        raise InputError(f"{span.where}: start has to be below end")
    return start, end
