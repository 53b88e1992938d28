# SPDX-License-Identifier: Apache-2.0
"""Who may come in: one rule for each distinct set of callers, with the doors that all of them may pass.

How Cilium puts rules together: each selector of ``fromEndpoints`` gets the rule's HTTP list for that port; lists for the same selector
and port are put into one; a caller that several selectors match may do what any of them allows.  So a caller in three sets may pass
the doors of all three, which is what is meant.  A rule of layer 4 for one of these peers on the same port would open it as a
whole: a service has either operations or a tcp port, and its policy holds rules of one sort only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.targets.cilium.expressions import method_expression, path_expression
from everyhop.targets.cilium.selectors import peer_selector
from everyhop.targets.meshes import wire_ports
from everyhop.targets.objects import grant_note
from everyhop.targets.reach import peer
from everyhop.targets.yaml import Noted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.targets.intents import Door, ServiceIntents
    from everyhop.targets.reach import Opened
    from everyhop.targets.view import View

NOTHING: Final[tuple[dict[str, Any], ...]] = ({},)
"""One empty rule: it admits nobody and makes the direction denied by default (an empty list would not)."""


def ingress_rules(
    view: View, service: ServiceIntents, doors: Sequence[Opened], guarded: frozenset[str]
) -> list[Any]:
    """Return the rules of a service, ordered by their callers; ``doors`` are those that are opened, with their grants."""
    sets: dict[tuple[str, ...], list[Opened]] = {}
    for door, grants in doors:
        sets.setdefault(tuple(grant.caller for grant in grants), []).append((door, grants))
    rules = [_rule(view, service, callers, sets[callers], guarded) for callers in sorted(sets)]
    return [*rules, *_probes(view, service, doors, guarded)] or list(NOTHING)


def _rule(
    view: View,
    service: ServiceIntents,
    callers: tuple[str, ...],
    doors: list[Opened],
    guarded: frozenset[str],
) -> Any:
    return {
        "fromEndpoints": [Noted(peer_selector(view, peer(view, caller)), caller) for caller in callers],
        "toPorts": [_port(view, service, doors, guarded)],
    }


def _probes(
    view: View, service: ServiceIntents, doors: Sequence[Opened], guarded: frozenset[str]
) -> list[Any]:
    networks = view.intents.settings.probe_networks
    probes = [(door, grants) for door, grants in doors if door.is_probe]
    if not networks or not probes:
        return []
    rule = {"fromCIDR": list(networks), "toPorts": [_port(view, service, probes, guarded)]}
    return [Noted(rule, "probes that come without an identity")]


def _port(
    view: View, service: ServiceIntents, doors: Sequence[Opened], guarded: frozenset[str]
) -> dict[str, Any]:
    ports = {"ports": [{"port": str(one), "protocol": "TCP"} for one in wire_ports(view, service.port)]}
    if is_encrypted(view) or service.service.tcp is not None:
        return Noted(ports, "; ".join(grant_note(door, *grants) for door, grants in doors))  # type: ignore[return-value]  # an item
    http = [Noted(_http(door, guarded), grant_note(door, *grants)) for door, grants in doors]
    return ports | {"rules": {"http": http}}


def _http(door: Door, guarded: frozenset[str]) -> dict[str, str]:
    if door.operation is None:
        raise AssertionError(
            f"{door} has no route"
        )  # pragma: no cover  # a service has either tcp or operations
    route = door.operation.route
    return {"method": method_expression(route), "path": path_expression(route, guarded).text}


def is_encrypted(view: View) -> bool:
    """Tell whether a mesh beside Cilium encrypts what Cilium's proxy would have to read."""
    return bool(view.option("traffic") == "encrypted")
