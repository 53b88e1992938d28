# SPDX-License-Identifier: Apache-2.0
"""Objects of Cilium and of Kubernetes' own network policies that widen beside the compiled ones.

Semantics: rules of all policies add up; in Cilium a rule for a port without layer 7 cancels what another says of layer 7 there,
``enableDefaultDeny: false`` takes a policy out of the default deny, and entities such as ``all`` and ``world`` are everybody
(docs.cilium.io, policy language; field notes section 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.proving.drift_model import Finding, Severity
from everyhop.proving.drift_scope import CILIUM, KUBERNETES, Scope, finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from everyhop.manifests import Manifest

_WIDE: Final = frozenset(
    {"all", "world", "cluster", "host", "remote-node", "unmanaged", "world-ipv4", "world-ipv6"}
)
_SOURCE: Final = "k8s:"


def look(scope: Scope, others: Sequence[Manifest], in_force: Sequence[Manifest]) -> Iterator[Finding]:
    """Yield what is to be said of ``others`` (foreign or changed objects); what else is in force does not matter here."""
    del in_force
    for one in others:
        if one.group == KUBERNETES and one.kind == "NetworkPolicy":
            yield from _network(scope, one)
        elif one.group == CILIUM:
            specs = one.document.get("specs")
            for spec in [one.spec, *(specs if isinstance(specs, list) else ())]:
                if isinstance(spec, dict) and spec:
                    yield from _cilium(scope, one, spec)
        elif one.kind == "ClusterNetworkPolicy":
            actions = {
                str(rule.get("action"))
                for side in ("ingress", "egress")
                for rule in one.spec.get(side) or ()
                if isinstance(rule, dict)
            }
            if "Accept" in actions:
                message = "what it accepts passes before the policy's own rules, or after them"
                yield finding(one, "clusternetworkpolicy.extra-accept", Severity.WIDENS, message)
            else:
                message = "what it denies is taken from what the policy allows"
                yield finding(one, "clusternetworkpolicy.extra-deny", Severity.DRIFTS, message)


def _network(scope: Scope, one: Manifest) -> Iterator[Finding]:
    services = scope.selected(one, _labels(one.spec.get("podSelector")))
    if not services:
        message = "it selects no service of the policy"
        yield finding(one, "networkpolicy.unknown-workload", Severity.DRIFTS, message)
        return
    for side, peers in (("ingress", "from"), ("egress", "to")):
        rules = [rule for rule in one.spec.get(side) or () if isinstance(rule, dict)]
        if any(not rule.get(peers) for rule in rules):
            words = "lets everybody in" if side == "ingress" else "lets out to everywhere"
            yield finding(
                one, "networkpolicy.allow-all", Severity.WIDENS, f"a rule of its {side} {words}", services
            )
        elif rules:
            message = f"what its {side} allows is added to the policy"
            yield finding(one, "networkpolicy.extra-allow", Severity.WIDENS, message, services)


def _cilium(scope: Scope, one: Manifest, spec: Mapping[str, Any]) -> Iterator[Finding]:
    selector = spec.get("endpointSelector")
    services = scope.selected(one, _labels(selector))
    default = spec.get("enableDefaultDeny")
    off = sorted(
        side for side, value in (default if isinstance(default, dict) else {}).items() if value is False
    )
    if off:
        message = f"enableDefaultDeny is false for {' and '.join(off)}: it asks for no default deny"
        yield finding(one, "cilium.no-default-deny", Severity.WIDENS, message, services)
    if not services:
        yield finding(one, "cilium.unknown-workload", Severity.DRIFTS, "it selects no service of the policy")
        return
    for side, peer in (("ingress", "from"), ("egress", "to")):
        for rule in spec.get(side) or ():
            if isinstance(rule, dict):
                yield from _cilium_rule(one, side, peer, rule, services)
    if spec.get("ingressDeny") or spec.get("egressDeny"):
        message = "what it denies is taken from what the policy allows"
        yield finding(one, "cilium.extra-deny", Severity.DRIFTS, message, services)


def _cilium_rule(
    one: Manifest, side: str, peer: str, rule: Mapping[str, Any], services: Sequence[str]
) -> Iterator[Finding]:
    entities = {str(entity) for entity in rule.get(f"{peer}Entities") or ()}
    wide = sorted(entities & _WIDE)
    peers = [key for key in rule if key.startswith(peer) and key != "toPorts"]
    if not peers and not rule.get("toPorts"):
        return  # an empty rule asks for the default deny and opens nothing
    if wide:
        yield finding(
            one, "cilium.entities", Severity.WIDENS, f"its {side} is open to {', '.join(wide)}", services
        )
    elif not peers:
        yield finding(
            one,
            "cilium.allow-all",
            Severity.WIDENS,
            f"a rule of its {side} names nobody, so all are meant",
            services,
        )
    else:
        yield finding(
            one,
            "cilium.extra-allow",
            Severity.WIDENS,
            f"what its {side} allows is added to the policy",
            services,
        )
    ports = rule.get("toPorts")
    if side == "ingress" and (
        not ports or any(isinstance(entry, dict) and not entry.get("rules") for entry in ports)
    ):
        message = (
            "a rule without layer 7: for its peers it cancels what others say of layer 7 on the same port"
        )
        yield finding(one, "cilium.l4-over-l7", Severity.WIDENS, message, services)


def _labels(selector: Any) -> Mapping[str, Any] | None:
    """Return the labels that a selector asks for; those with a source (``k8s:app``) without it."""
    labels = selector.get("matchLabels") if isinstance(selector, dict) else None
    if not isinstance(labels, dict):
        return None
    return {str(key).removeprefix(_SOURCE).removeprefix("any:"): value for key, value in labels.items()}
