# SPDX-License-Identifier: Apache-2.0
"""Cilium's rules as values, and how they are read (pkg/policy/api, ``Sanitize``)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.evaluators.cilium.http import HttpRule, read_http
from everyhop.evaluators.cilium.identities import NAMESPACE, in_namespace, read_labels
from everyhop.evaluators.cilium.names import Names, read_names, read_server_name
from everyhop.evaluators.fields import Fields
from everyhop.evaluators.network_policy import MAX_PORT, Direction
from everyhop.evaluators.networks import Network, read_block, read_network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.evaluators.labels import Selector
    from everyhop.manifests.model import Manifest

NAMESPACED: Final = "CiliumNetworkPolicy"
CLUSTERWIDE: Final = "CiliumClusterwideNetworkPolicy"
API_VERSION: Final = "cilium.io/v2"
MAX_PORTS: Final = 40
ENTITIES: Final = frozenset(
    {
        "all", "cluster", "health", "host", "ingress", "init", "kube-apiserver", "none", "remote-node", "unmanaged", "world",
        "world-ipv4", "world-ipv6",
    }
)  # fmt: skip
_SERVICE_NAME: Final = re.compile(r"(?=.*[A-Za-z])(?!.*--)[A-Za-z0-9](?:[A-Za-z0-9-]{0,13}[A-Za-z0-9])?")
_UNREAD: Final = {
    Direction.INGRESS: ("fromRequires", "fromNodes", "fromGroups"),
    Direction.EGRESS: ("toRequires", "toNodes", "toGroups", "toServices"),
}


@dataclass(frozen=True, slots=True)
class Peers:
    """The other end: any of these; None where a rule says nothing of it."""

    selectors: tuple[Selector, ...] = ()
    entities: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    names: tuple[Names, ...] = ()


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports from ``low`` to ``high``, or a named one."""

    low: int = 0
    high: int = MAX_PORT
    name: str | None = None


@dataclass(frozen=True, slots=True)
class PortRule:
    """Ports and what may be spoken there: ``http``, ``dns`` or the name in TLS, None where nothing is said of it."""

    ports: tuple[Ports, ...]
    http: tuple[HttpRule, ...] | None = None
    dns: tuple[Names, ...] | None = None
    servers: tuple[Names, ...] | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of ingress, egress, or one of their denials; ``ports`` None: every port."""

    peers: Peers | None
    ports: tuple[PortRule, ...] | None
    is_deny: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One ``spec``; ``isolates`` has the directions in which it asks for default deny."""

    name: str
    endpoints: Selector
    rules: dict[Direction, tuple[Rule, ...]]
    isolates: frozenset[Direction]


def read_policies(manifest: Manifest, max_program: int | None) -> Iterator[Policy]:
    """Read one object, its ``spec`` and each of its ``specs``; raises InputError for what Cilium rejects.

    Policies for nodes are passed over: they say nothing of pods.
    """
    if manifest.api_version != API_VERSION:
        raise InputError(
            f"{manifest.span}: {manifest} is of {manifest.api_version}, and {API_VERSION} is read"
        )
    namespace = manifest.namespace if manifest.kind == NAMESPACED else None
    name = str(manifest) if namespace else f"{manifest.kind} {manifest.name}"
    spec, specs = manifest.document.get("spec"), manifest.document.get("specs")
    if spec is None and not specs:
        raise InputError(f"{manifest.span}: {manifest} has neither spec nor specs")
    found = [] if spec is None else [("spec", spec)]
    if specs is not None:
        if not isinstance(specs, list):
            raise InputError(f"{manifest.span}: {manifest}: specs: expected a list")
        found += [(f"specs[{number}]", one) for number, one in enumerate(specs)]
    for key, value in found:
        reader = _Reader(namespace, max_program)
        policy = reader.read(name, Fields(value, f"{manifest.span}: {manifest}: {key}"))
        if policy is not None:
            yield policy


class _Reader:
    """Reads one ``spec`` of a policy in a namespace, None for a clusterwide one."""

    def __init__(self, namespace: str | None, max_program: int | None) -> None:
        self._namespace = namespace
        self._max_program = max_program

    def read(self, name: str, spec: Fields) -> Policy | None:
        with spec:
            spec.skip("labels", "description", "log")
            selector, node = spec.take("endpointSelector"), spec.take("nodeSelector")
            if (selector is None) == (node is None):
                raise InputError(f"{spec.where}: one of endpointSelector and nodeSelector has to be there")
            if node is not None and self._namespace is not None:
                raise InputError(f"{spec.where}: a policy of a namespace selects no nodes")
            rules = {
                Direction.INGRESS: self._rules(spec, "ingress", Direction.INGRESS),
                Direction.EGRESS: self._rules(spec, "egress", Direction.EGRESS),
            }
            isolates = self._isolates(spec, rules)
        if selector is None:
            return None
        endpoints = read_labels(selector, f"{spec.where}.endpointSelector")
        if self._namespace is not None:
            endpoints = endpoints.and_equal(f"k8s:{NAMESPACE}", self._namespace)
        return Policy(name=name, endpoints=endpoints, rules=rules, isolates=isolates)

    def _isolates(self, spec: Fields, rules: dict[Direction, tuple[Rule, ...]]) -> frozenset[Direction]:
        """Return the directions of default deny: those with rules, unless ``enableDefaultDeny`` says otherwise."""
        told: dict[Direction, bool | None] = dict.fromkeys(Direction)
        inner = spec.inner("enableDefaultDeny")
        if inner is not None:
            with inner:
                told = {one: inner.truth(one.lower()) for one in Direction}
        return frozenset(one for one in Direction if (bool(rules[one]) if told[one] is None else told[one]))

    def _rules(self, spec: Fields, key: str, direction: Direction) -> tuple[Rule, ...]:
        allow = spec.each(key, lambda fields: self._rule(fields, direction, is_deny=False)) or ()
        deny = spec.each(f"{key}Deny", lambda fields: self._rule(fields, direction, is_deny=True)) or ()
        return (*deny, *allow)

    def _rule(self, fields: Fields, direction: Direction, *, is_deny: bool) -> Rule:
        for key in _UNREAD[direction]:
            if key in fields:
                raise InputError(f"{fields.where}: {key} is not read here")
        peers = self._peers(fields, direction)
        if not is_deny:
            self._authentication(fields)
        ports = fields.each("toPorts", lambda one: self._port_rule(one, direction, is_deny=is_deny))
        icmps = fields.items("icmps")
        if icmps:
            if ports:
                raise InputError(f"{fields.where}: icmps stand without toPorts")
            ports = (PortRule(()),)  # no TCP at all
        return Rule(peers, ports or None, is_deny)

    def _authentication(self, fields: Fields) -> None:
        """Mutual authentication of nodes narrows at most; it is no mTLS of a connection and never counted as one."""
        inner = fields.inner("authentication")
        if inner is not None:
            with inner:
                if inner.one_of("mode", "disabled", "required", "test-always-fail") == "test-always-fail":
                    raise InputError(f"{inner.where}: a mode for tests")

    def _peers(self, fields: Fields, direction: Direction) -> Peers | None:
        side = "from" if direction is Direction.INGRESS else "to"
        where = fields.where
        selectors = fields.items(f"{side}Endpoints")
        entities = fields.texts(f"{side}Entities")
        cidrs = fields.texts(f"{side}CIDR")
        sets = fields.each(f"{side}CIDRSet", _cidr_set)
        names = fields.each("toFQDNs", read_names) if direction is Direction.EGRESS else None
        found = [one for one in (selectors, entities, cidrs, sets, names) if one is not None]
        if sum(bool(one) for one in found) > 1:
            raise InputError(f"{where}: kinds of peers are not combined in one rule")
        if not found:
            return None
        if any(not one for one in found):
            return Peers()  # an empty list selects nothing, whatever stands beside it
        if unknown := sorted(set(entities or ()) - ENTITIES):
            raise InputError(f"{where}.{side}Entities: {unknown[0]!r} is no entity")
        return Peers(
            selectors=tuple(
                in_namespace(read_labels(one, f"{where}.{side}Endpoints"), self._namespace)
                for one in selectors or ()
            ),
            entities=frozenset(entities or ()),
            networks=(*(_cidr(one, where) for one in cidrs or ()), *(sets or ())),
            names=names or (),
        )

    def _port_rule(self, fields: Fields, direction: Direction, *, is_deny: bool) -> PortRule:
        ports = fields.each("ports", _ports)
        if not ports:
            raise InputError(f"{fields.where}: ports have to be there")
        if len(ports) > MAX_PORTS:
            raise InputError(f"{fields.where}: at most {MAX_PORTS} ports")
        tcp = tuple(one for one, protocol in ports if protocol in {"TCP", "ANY"})
        if is_deny:
            return PortRule(tcp)
        for key in ("terminatingTLS", "originatingTLS", "listener"):
            if key in fields:
                raise InputError(f"{fields.where}: {key} is not read here")
        servers = tuple(
            read_server_name(one, f"{fields.where}.serverNames") for one in fields.texts("serverNames") or ()
        )
        rules = fields.inner("rules")
        if rules is None:
            return PortRule(tcp, servers=servers or None)
        with rules:
            http = rules.each("http", partial(read_http, max_program=self._max_program))
            dns = rules.each("dns", read_names)
            for key in ("kafka", "l7", "l7proto"):
                if key in rules:
                    raise InputError(f"{rules.where}: {key} is not read here")
        self._check_rules(rules.where, direction, http, dns, ports)
        if servers and (http or dns):
            raise InputError(f"{fields.where}: names in TLS and layer 7 rules need TLS to end at the proxy")
        # An empty list asks for nothing, and so all of it is allowed.
        return PortRule(tcp, http or None, dns or None, servers or None)

    def _check_rules(
        self,
        where: str,
        direction: Direction,
        http: tuple[HttpRule, ...] | None,
        dns: tuple[Names, ...] | None,
        ports: tuple[tuple[Ports, str], ...],
    ) -> None:
        if http is not None and dns is not None:
            raise InputError(f"{where}: one kind of layer 7 rules")
        if dns and direction is Direction.INGRESS:
            raise InputError(f"{where}: DNS rules are for egress")
        if http and any(protocol != "TCP" for _, protocol in ports):
            raise InputError(f"{where}: HTTP rules are for TCP alone, which has to be written")
        if (http or dns) and any(one == Ports() for one, _ in ports):
            raise InputError(f"{where}: layer 7 rules need a port")
        if dns and any(one.low != one.high for one, _ in ports):
            raise InputError(f"{where}: DNS rules have no ranges of ports")


def _ports(fields: Fields) -> tuple[Ports, str]:
    text = fields.needed_text("port")
    protocol = fields.one_of("protocol", "TCP", "UDP", "SCTP", "ANY") or "ANY"
    last = fields.number("endPort", 0, MAX_PORT)
    if text.isascii() and text.isdigit():
        number = int(text)
        if number > MAX_PORT:
            raise InputError(f"{fields.where}: a port is at most {MAX_PORT}")
        if number == 0:
            return Ports(), protocol
        return Ports(number, max(number, last or 0)), protocol
    if not _SERVICE_NAME.fullmatch(text):
        raise InputError(f"{fields.where}: {text[:60]!r} is neither a port nor the name of one")
    return Ports(name=text.lower()), protocol


def _cidr(text: str, where: str) -> Network:
    if "/" in text:
        return Network(read_block(text, where))
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise InputError(f"{where}: {text[:60]!r} is neither a CIDR nor an address") from error
    return Network(read_block(f"{address}/{address.max_prefixlen}", where))


def _cidr_set(fields: Fields) -> Network:
    for key in ("cidrGroupRef", "cidrGroupSelector"):
        if key in fields:
            raise InputError(f"{fields.where}: {key} is not read here")
    return read_network(fields.needed_text("cidr"), fields.texts("except") or (), fields.where)
