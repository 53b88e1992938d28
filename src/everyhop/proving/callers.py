# SPDX-License-Identifier: Apache-2.0
"""Who calls: the declared services, and everybody who could be taken for one of them."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from everyhop.evaluators.model import Workload
from everyhop.policy.model import OUTSIDE
from everyhop.proving.model import Caller, CallerKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from everyhop.targets.intents import Intents

STRANGER: Final = "everyhop-stranger"
_NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"
_FOREIGN: Final = (
    "evil-{0}",
    "{0}.evil.example",
)  # a domain that ends with ours, and one that starts with it
_ADDRESSES: Final = 2**16


class Population:
    """Everybody who is asked for, made when somebody asks."""

    def __init__(self, intents: Intents) -> None:
        self._intents = intents
        self._snapshot = intents.snapshot
        self._domain = intents.trust_domain
        self._known: dict[str, Caller] = {}
        self._pods: dict[str, Workload] = {}
        self._copies: dict[str, Workload] = {}
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._numbers = {name: number for number, name in enumerate(sorted(self._snapshot.services))}

    def service(self, name: str) -> Caller:
        """Return a declared service."""
        found = self._known.get(name)
        if found is None:
            service = self._snapshot.services[name]
            found = self._known[name] = Caller(
                kind=CallerKind.CANARY if service.is_canary else CallerKind.SERVICE,
                name=name,
                workload=self.workload(name),
                policy_id=str(service.spiffe_id),
                peer=self._intents.mesh_identity(name),
                own_peer=str(service.spiffe_id),
                claims_to_be=name,
            )
        return found

    def workload(self, name: str) -> Workload:
        """Return a pod of a declared service."""
        found = self._pods.get(name)
        if found is None:  # always the same object: evaluators remember what they found for one
            found = self._pods[name] = self._made_pod(name)
        return found

    def _made_pod(self, name: str) -> Workload:
        place = self._intents.settings.place(name)
        service = self._snapshot.services[name]
        return Workload(
            name=name,
            namespace=place.namespace,
            service_account=place.service_account,
            labels=place.labels,
            namespace_labels=self._labels_of(place.namespace),
            ip=_address(self._numbers[name]),
            ports=(place.port if service.tcp is None else service.tcp,),
        )

    @cached_property
    def gateway(self) -> Caller | None:
        """Return the gateway, None where the policy names none."""
        gateway = self._intents.settings.gateway
        if gateway is None:
            return None
        peer = self._intents.mesh_identity(OUTSIDE)
        return Caller(
            kind=CallerKind.GATEWAY,
            name="the gateway",
            workload=self._pod("gateway", gateway.namespace, gateway.service_account, gateway.labels),
            policy_id=OUTSIDE,
            peer=peer,
            own_peer=peer,
            claims_to_be=OUTSIDE,
        )

    def strangers(self, namespace: str) -> tuple[Caller, ...]:
        """Return those whom the policy does not know, seen from a namespace: nobody of them may pass any door."""
        found = self._strangers.get(namespace)
        if found is None:
            found = self._strangers[namespace] = tuple(self._made_strangers(namespace))
        return found

    @cached_property
    def _strangers(self) -> dict[str, tuple[Caller, ...]]:
        return {}

    def _made_strangers(self, namespace: str) -> Iterator[Caller]:
        account = STRANGER
        while any(self._snapshot.services.get(name) for name in (account,)):
            account += "-x"
        pod = self._pod(account, namespace, account, {"app": account})
        own = f"spiffe://{self._snapshot.trust_domain.name}/{account}"
        yield _certified(
            CallerKind.STRANGER, f"the undeclared {account}", pod, self._peer(namespace, account), own
        )
        yield _plain(CallerKind.NOBODY, "somebody inside without a certificate", pod)
        yield _plain(CallerKind.NOBODY, "somebody outside without a certificate", _OUTSIDE_POD)
        process = f"spiffe://{self._snapshot.trust_domain.name}/everyhop/server"
        server = self._pod("everyhop-server", "everyhop", "everyhop-server", {"app": "everyhop-server"})
        yield _certified(
            CallerKind.OWN, "everyhop's server", server, f"spiffe://{self._domain}/everyhop/server", process
        )

    def impostors(self, name: str) -> tuple[Caller, ...]:
        """Return everybody who has something of a declared service (or of the gateway) and is not it."""
        found = self._impostors.get(name)
        if found is None:
            found = self._impostors[name] = tuple(self._made_impostors(name))
        return found

    @cached_property
    def _impostors(self) -> dict[str, tuple[Caller, ...]]:
        return {}

    def _made_impostors(self, name: str) -> Iterator[Caller]:
        caller = self.gateway if name == OUTSIDE else self.service(name)
        if caller is None:
            return
        pod = caller.workload
        own = caller.own_peer or ""
        for impostor in self._posing(caller.name, pod, own):
            yield replace(impostor, claims_to_be=name)

    def _posing(self, name: str, pod: Workload, own: str) -> Iterator[Caller]:
        path = own.partition("://")[2].partition("/")[2]
        for form in _FOREIGN:
            peer = f"spiffe://{form.format(self._domain)}/ns/{pod.namespace}/sa/{pod.service_account}"
            other = f"spiffe://{form.format(self._snapshot.trust_domain.name)}/{path}"
            yield _certified(
                CallerKind.FOREIGN, f"{name} of a foreign trust domain", _OUTSIDE_POD, peer, other
            )
        for namespace, account in self._alike(pod):
            other = f"{own}-x" if account != pod.service_account else f"{own}/{namespace}"
            yield _certified(
                CallerKind.ALIKE,
                f"the undeclared account {namespace}/{account}",
                self._pod(
                    account,
                    namespace,
                    account,
                    pod.labels if namespace != pod.namespace else {"app": account},
                ),
                self._peer(namespace, account),
                other,
            )
        writer = replace(pod, service_account=STRANGER)
        yield _certified(
            CallerKind.LABELS,
            f"an undeclared account with the labels of {name}",
            writer,
            self._peer(pod.namespace, STRANGER),
            f"spiffe://{self._snapshot.trust_domain.name}/{STRANGER}",
        )
        yield _plain(CallerKind.UNCERTIFIED, f"{name} without a certificate", pod)

    def _alike(self, pod: Workload) -> Iterator[tuple[str, str]]:
        """Yield namespaces and accounts that a careless match takes for a pod's own; none of them is declared."""
        account, namespace = pod.service_account, pod.namespace
        for found in (
            (namespace, f"{account}-x"),
            (namespace, f"x-{account}"),
            (f"{namespace}-x", account),
            (f"x-{namespace}", account),
            (namespace, f"x.{account}"),
        ):
            if found not in self._accounts:
                yield found

    @cached_property
    def _accounts(self) -> frozenset[tuple[str, str]]:
        places = (self._intents.settings.place(name) for name in self._snapshot.services)
        found = {(place.namespace, place.service_account) for place in places}
        gateway = self._intents.settings.gateway
        return frozenset(found | ({(gateway.namespace, gateway.service_account)} if gateway else set()))

    @cached_property
    def probes(self) -> tuple[Caller, ...]:
        """Return a caller of each network of which probes come."""
        networks = self._intents.settings.probe_networks
        pods = ((one, replace(_OUTSIDE_POD, name="probe", ip=_first(one))) for one in networks)
        return tuple(_plain(CallerKind.PROBE, f"a probe from {network}", pod) for network, pod in pods)

    def elsewhere(self, name: str) -> Workload:
        """Return a pod with the labels of a service in a namespace of nobody."""
        found = self._copies.get(name)
        if found is None:
            namespace = f"{self.workload(name).namespace}-x"
            while namespace in self._intents.namespaces:
                namespace += "-x"
            pod = replace(self.workload(name), name=f"{name}-elsewhere", namespace=namespace)
            found = self._copies[name] = replace(pod, namespace_labels=self._labels_of(namespace))
        return found

    def _pod(self, name: str, namespace: str, account: str, labels: Mapping[str, str]) -> Workload:
        return Workload(
            name=name,
            namespace=namespace,
            service_account=account,
            labels=labels,
            namespace_labels=self._labels_of(namespace),
            ip="10.254.0.1",
        )

    def _labels_of(self, namespace: str) -> Mapping[str, str]:
        found = self._namespaces.get(namespace)
        if found is None:
            found = self._namespaces[namespace] = MappingProxyType({_NAMESPACE_LABEL: namespace})
        return found

    def _peer(self, namespace: str, account: str) -> str:
        return f"spiffe://{self._domain}/ns/{namespace}/sa/{account}"


_OUTSIDE_POD: Final = Workload(
    name="outside", namespace="", service_account="", labels=MappingProxyType({}), ip="203.0.113.9"
)


def outside(host: str) -> Workload:
    """Return a host outside of the cluster, by its name."""
    return replace(_OUTSIDE_POD, name=host, ip="198.51.100.7")


def _first(network: str) -> str:
    net = ipaddress.ip_network(network)
    return str(net[1] if net.num_addresses > 1 else net[0])


def _address(number: int) -> str:
    return str(
        ipaddress.IPv4Address(int(ipaddress.IPv4Address("10.1.0.0")) + 1 + number % (100 * _ADDRESSES))
    )


def _certified(kind: CallerKind, name: str, pod: Workload, peer: str, own: str) -> Caller:
    return Caller(kind=kind, name=name, workload=pod, policy_id=own, peer=peer, own_peer=own)


def _plain(kind: CallerKind, name: str, pod: Workload) -> Caller:
    return Caller(kind=kind, name=name, workload=pod, policy_id=None, peer=None, own_peer=None)
