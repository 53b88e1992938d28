# SPDX-License-Identifier: Apache-2.0
"""Where a service may go: the services of which it may pass some door, hosts outside, and the names that it needs for that.

The rule with ``rules.dns`` stands in the same policy as ``toFQDNs``: Cilium learns addresses from answers that its DNS proxy sees, and
it sees those only of pods that such a rule selects.  Names are those of what may be called, completed as a resolver completes them
(``ndots:5``), so DNS carries nothing else out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from everyhop.targets.cilium.selectors import peer_selector
from everyhop.targets.meshes import control_planes, wire_ports
from everyhop.targets.objects import grant_note
from everyhop.targets.reach import peer
from everyhop.targets.yaml import Noted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from everyhop.policy.targets import Egress
    from everyhop.targets.reach import Peer, Reach
    from everyhop.targets.view import View


def egress_rules(view: View, reach: Reach, caller: str, dns: Peer | None) -> list[Any]:
    """Return the rules of a service (or of the gateway, for ``outside``), empty where it calls nobody."""
    called = reach.called(caller)
    hosts = reach.egress(caller)
    planes = control_planes(view)
    rules: list[Any] = []
    for service, doors in called:
        ports = [_port(one) for one in wire_ports(view, service.port)]
        rule = {"toEndpoints": [peer_selector(view, peer(view, service.name))], "toPorts": [{"ports": ports}]}
        rules.append(Noted(rule, "; ".join(grant_note(door, grant) for door, grant in doors)))
    rules += [_host(one) for one in hosts]
    for plane in planes:
        rule = {
            "toEndpoints": [peer_selector(view, plane.peer)],
            "toPorts": [{"ports": [_port(one) for one in plane.ports]}],
        }
        rules.append(Noted(rule, f"{plane.name}: the mesh's proxy needs it"))
    if rules and dns is not None:
        namespaces = {service.place.namespace for service, _ in called}
        namespaces |= {plane.peer.namespace for plane in planes}
        names = _names(view, peer(view, caller).namespace, sorted(namespaces), hosts)
        rules.append(_dns(view, dns, names))
    return rules


def _port(port: int) -> dict[str, str]:
    return {"port": str(port), "protocol": "TCP"}


def _host(egress: Egress) -> Noted:
    """Return the rule for a host: its addresses, and TLS for its name only, as other names may share the address."""
    rule = {
        "toFQDNs": [{"matchName": egress.host}],
        "toPorts": [{"ports": [_port(egress.port)], "serverNames": [egress.host]}],
    }
    where = "" if egress.span is None else f" at {egress.span.file}:{egress.span.line}"
    return Noted(rule, f"egress {egress.name}{where}")


def _dns(view: View, dns: Peer, names: list[dict[str, str]]) -> Noted:
    rule = {
        "toEndpoints": [peer_selector(view, dns)],
        "toPorts": [{"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": names}}],
    }
    return Noted(rule, "names of what may be called, as a resolver completes them")


def _names(
    view: View, namespace: str, namespaces: Iterable[str], hosts: Iterable[Egress]
) -> list[dict[str, str]]:
    domain = view.intents.settings.cluster_domain
    search = (f"{namespace}.svc.{domain}", f"svc.{domain}", domain)
    patterns: dict[str, None] = {}
    for one in namespaces:
        for pattern in _patterns(one, domain, search):
            patterns[pattern] = None
    exact = dict.fromkeys(name for one in hosts for name in _completed(one.host, search))
    return [*({"matchPattern": one} for one in patterns), *({"matchName": one} for one in exact)]


def _patterns(namespace: str, domain: str, search: tuple[str, ...]) -> Iterator[str]:
    """Yield the names of a namespace's services (and of pods behind a headless one), and what a search list makes of them."""
    full = f"*.{namespace}.svc.{domain}"
    yield full
    yield f"*.{full}"
    for short in (f"*.{namespace}", f"*.{namespace}.svc", full):
        for pattern in _completed(short, search)[1:]:
            if pattern != full:
                yield pattern


def _completed(name: str, search: tuple[str, ...]) -> tuple[str, ...]:
    return (name, *(f"{name}.{one}" for one in search))
