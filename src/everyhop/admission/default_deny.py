# SPDX-License-Identifier: Apache-2.0
"""The default deny of a namespace: what it looks like in each system, and whether it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.admission.meshes import CILIUM, ISTIO, NETWORKING, is_bound
from everyhop.admission.model import WORKLOADS, Code, Document, Finding, Kinds, items, mapping

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from everyhop.manifests import Manifest

DENY_KINDS: Final = (
    Kinds(ISTIO, {"AuthorizationPolicy": "authorizationpolicies"}),
    Kinds(NETWORKING, {"NetworkPolicy": "networkpolicies"}),
)
LINKERD_ANNOTATION: Final = "config.linkerd.io/default-inbound-policy"
_MAKES_PODS: Final = frozenset(kind for one in WORKLOADS for kind in one.resources)


def is_default_deny(document: Document) -> bool:
    """Tell whether an object refuses what nothing else allows in its whole namespace.

    An Istio AuthorizationPolicy of ALLOW without selector and rules; a NetworkPolicy that selects every pod for ingress and
    allows nothing.  Raises ShapeError for what has not the shape of its kind.
    """
    spec = mapping(document.get("spec"), "spec")
    group = str(document.get("apiVersion", "")).rpartition("/")[0]
    kind = document.get("kind")
    if group == ISTIO and kind == "AuthorizationPolicy":
        return (
            spec.get("action", "ALLOW") == "ALLOW"
            and not is_bound(spec)
            and not items(spec.get("rules"), "spec.rules")
        )
    if group == NETWORKING and kind == "NetworkPolicy":
        selector = mapping(spec.get("podSelector"), "spec.podSelector")
        types = items(spec.get("policyTypes"), "spec.policyTypes") or ["Ingress"]
        return (
            not any(selector.values())
            and "Ingress" in types
            and not items(spec.get("ingress"), "spec.ingress")
        )
    return False


def missing_default_deny(objects: Iterable[Manifest]) -> Iterator[tuple[Manifest, Finding]]:
    """Yield the first workload of each namespace in which nothing refuses by default, with what is missing.

    In Cilium every endpoint that a policy selects refuses by default, so a CiliumNetworkPolicy for every pod counts; in Linkerd the
    namespace's annotation does.
    """
    workloads: dict[str, Manifest] = {}
    denied = set()
    for one in objects:
        document = dict(one.document)
        if one.kind in _MAKES_PODS:
            workloads.setdefault(one.namespace, one)
        if one.kind == "Namespace" and one.annotations.get(LINKERD_ANNOTATION) == "deny":
            denied.add(one.name)
        elif is_default_deny(document) or _selects_every_endpoint(document):
            denied.add(one.namespace)
    for namespace, workload in sorted(workloads.items()):
        if namespace not in denied:
            message = f"nothing refuses by default in {namespace}: add a deny-all policy"
            yield (
                workload,
                Finding(code=Code.DEFAULT_DENY_MISSING, path="metadata.namespace", message=message),
            )


def _selects_every_endpoint(document: Document) -> bool:
    group = str(document.get("apiVersion", "")).rpartition("/")[0]
    if group != CILIUM or document.get("kind") != "CiliumNetworkPolicy":
        return False
    spec = mapping(document.get("spec"), "spec")
    selector = mapping(spec.get("endpointSelector"), "spec.endpointSelector")
    enabled = mapping(spec.get("enableDefaultDeny"), "spec.enableDefaultDeny").get("ingress", True)
    return (
        "endpointSelector" in spec
        and not any(selector.values())
        and "ingress" in spec
        and enabled is not False
    )
