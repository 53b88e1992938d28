# SPDX-License-Identifier: Apache-2.0
"""Who reaches whom, as targets of the network need it: pods as peers, both ends of each connection."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.policy.model import OUTSIDE
from everyhop.targets.model import Feature

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from everyhop.policy.targets import Egress
    from everyhop.targets.intents import Door, Grant, ServiceIntents
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

    Opened = tuple[Door, tuple[Grant, ...]]

EVERYWHERE: Final = ("0.0.0.0/0", "::/0")
NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"
"""The label that Kubernetes itself puts on each namespace (since 1.22); nobody may change it."""

_PAIR: Final = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9_./-]{0,316})=([A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Pods that a network tells apart by their namespace and labels."""

    namespace: str
    labels: Mapping[str, str]
    service_account: str


class Reach:
    """The doors that a target opens, seen from both ends; ``opened`` holds for each service its doors with their grants."""

    def __init__(self, view: View, opened: Mapping[str, Sequence[Opened]]) -> None:
        self.view: Final = view
        self._opened: Final = opened
        self._called: Final[dict[str, dict[str, list[tuple[Door, Grant]]]]] = {}
        for name, doors in opened.items():
            for door, grants in doors:
                for grant in grants:
                    self._called.setdefault(grant.caller, {}).setdefault(name, []).append((door, grant))

    @property
    def has_http(self) -> bool:
        """Tell whether some operation or probe is opened, not only tcp ports."""
        return any(door.operation is not None for doors in self._opened.values() for door, _ in doors)

    def doors(self, service: str) -> Sequence[Opened]:
        """Return the doors of a service that are opened to somebody."""
        return self._opened.get(service, ())

    def callers(self, service: str) -> tuple[tuple[str, tuple[tuple[Door, Grant], ...]], ...]:
        """Return who passes some door of a service, sorted, with the doors."""
        found: dict[str, list[tuple[Door, Grant]]] = {}
        for door, grants in self.doors(service):
            for grant in grants:
                found.setdefault(grant.caller, []).append((door, grant))
        return tuple((caller, tuple(found[caller])) for caller in sorted(found))

    def called(self, caller: str) -> tuple[tuple[ServiceIntents, tuple[tuple[Door, Grant], ...]], ...]:
        """Return the services of which a caller passes some door, sorted, with the doors."""
        found = self._called.get(caller, {})
        return tuple((self.view.intents.of(name), tuple(found[name])) for name in sorted(found))

    def egress(self, caller: str) -> tuple[Egress, ...]:
        """Return the hosts outside that a service may call, if somebody on these hops holds that."""
        if self.view.holder(Feature.EGRESS) is None:
            return ()
        return tuple(one for one in self.view.intents.settings.egress if caller in one.callers)


def opened(view: View) -> tuple[dict[str, list[Opened]], list[Diagnostic]]:
    """Return what a target of the network may open, by service; callers from outside need a gateway to be seen at all."""
    found: dict[str, list[Opened]] = {}
    said: list[Diagnostic] = []
    for service in view.intents:
        for door in service.doors:
            grants = view.grants(door)
            if view.intents.settings.gateway is None and any(one.caller == OUTSIDE for one in grants):
                said.append(_no_gateway(view, door, grants))
                grants = tuple(one for one in grants if one.caller != OUTSIDE)
            if grants:
                found.setdefault(service.name, []).append((door, grants))
    return found, said


def _no_gateway(view: View, door: Door, grants: Iterable[Grant]) -> Diagnostic:
    rules = [rule for one in grants if one.caller == OUTSIDE for rule in one.rules]
    message = f"{door} is open to outside, and no gateway is named through which such callers come"
    return view.error("gateway", message, door=door, rules=rules, suggestion="name it: targets: gateway")


def peer(view: View, caller: str) -> Peer:
    """Return the pods of a service, or of the gateway for ``outside`` (KeyError without one)."""
    settings = view.intents.settings
    if caller == OUTSIDE:
        gateway = settings.gateway
        if gateway is None:
            raise KeyError(caller)
        return Peer(
            namespace=gateway.namespace, labels=gateway.labels, service_account=gateway.service_account
        )
    place = settings.place(caller)
    return Peer(namespace=place.namespace, labels=place.labels, service_account=place.service_account)


def services_of(view: View, namespace: str) -> Iterator[ServiceIntents]:
    """Yield the services of a namespace, in the order of their names; canaries are no pods that anything calls."""
    return (one for one in view.intents.by_namespace.get(namespace, ()) if not one.service.is_canary)


def dns_peer(view: View) -> tuple[Peer | None, list[Diagnostic]]:
    """Return the pods of the cluster's DNS as the options name them; None, with an error, where the label is none."""
    found = _PAIR.fullmatch(view.option("dns_label"))
    if found is None:
        message = f"dns_label is KEY=VALUE, not {view.option('dns_label')!r}: no rule admits DNS"
        return None, [view.error("dns-label", message)]
    return Peer(namespace=view.option("dns_namespace"), labels={found[1]: found[2]}, service_account=""), []


def isolated_gateway(view: View) -> list[Diagnostic]:
    """Warn where the gateway stands in a namespace of services: what comes to it from outside is shut there as well."""
    gateway = view.intents.settings.gateway
    if gateway is None or gateway.namespace not in view.intents.namespaces:
        return []
    grants = (one for service in view.intents for door in service.doors for one in door.grants)
    rules = dict.fromkeys(rule for one in grants if one.caller == OUTSIDE for rule in one.rules)
    message = (
        f"the gateway stands in {gateway.namespace}, where everything is denied by default: what reaches it from "
        "outside, and with clusternetworkpolicy what it calls, is yours to open"
    )
    hint = "give the gateway a namespace of its own"
    return [view.warning("gateway-namespace", message, rules=rules, suggestion=hint)]
