# SPDX-License-Identifier: Apache-2.0
"""Objects in force against compiled ones, field by field, after what servers fill in by themselves.

An object is known by group, kind, namespace and name; the version in which it is read or written does not matter.  Order does not
matter in the lists of these kinds (they are alternatives), except for rules that are tried in their order.
"""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from everyhop.proving.drift_model import Change

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from everyhop.manifests import Manifest


class Key(NamedTuple):
    """What an object is known by; ``namespace`` is empty for one of the cluster."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


OF_CLUSTER: Final = frozenset(
    {
        "CiliumClusterwideNetworkPolicy", "ClusterIssuer", "ClusterNetworkPolicy", "ClusterRole", "ClusterRoleBinding",
        "ClusterSPIFFEID", "ClusterStaticEntry", "ClusterFederatedTrustDomain", "ConstraintTemplate", "Namespace",
        "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration", "GatewayClass",
        "CSIDriver",
    }
)  # fmt: skip
"""Kinds without a namespace."""

_CONSTRAINTS: Final = "constraints.gatekeeper.sh"
_ORDERED: Final = frozenset(
    {"ClusterNetworkPolicy", "ConfigMap", "DaemonSet", "Deployment", "StatefulSet", "VirtualService"}
)
_BUILT_IN: Final = frozenset(
    {"", "apps", "networking.k8s.io", "rbac.authorization.k8s.io", "admissionregistration.k8s.io"}
)
"""Groups whose servers drop empty lists; elsewhere an empty list may mean something else than none (Cilium: nobody)."""

_NO_SPEC: Final = ("apiVersion", "kind", "metadata", "status")
_ISTIO_ALLOW: Final = MappingProxyType({"action": "ALLOW"})

_DEFAULTS: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = MappingProxyType(
    {
        ("security.istio.io", "AuthorizationPolicy"): _ISTIO_ALLOW,
        ("policy.linkerd.io", "Server"): {"accessPolicy": "deny", "proxyProtocol": "unknown"},
        ("networking.k8s.io", "NetworkPolicy"): {"podSelector": {}},
    }
)
"""What the server or the controller takes where a member of ``spec`` is missing."""

_ANYWHERE: Final = MappingProxyType(
    {
        "ports": ("protocol", "TCP"),
        "parentRefs": ("group", "gateway.networking.k8s.io"),
        "backendRefs": ("weight", 1),
    }
)
"""What is filled in, where it is missing, in the items of lists of these names."""


def key_of(one: Manifest) -> Key:
    """Return what an object is known by."""
    cluster = one.kind in OF_CLUSTER or one.group == _CONSTRAINTS
    return Key(one.group, one.kind, "" if cluster else one.namespace, one.name)


def changes_between(wanted: Manifest, found: Manifest) -> tuple[Change, ...]:
    """Return what is different in meaning, by path."""
    ordered = wanted.kind in _ORDERED
    left, right = _meaning(wanted), _meaning(found)
    return tuple(_differ("", left, right, ordered=ordered))


def _meaning(one: Manifest) -> dict[str, Any]:
    """Return what an object says: all but its status and what servers write into its metadata."""
    meaning = {key: value for key, value in one.document.items() if key not in _NO_SPEC}
    defaults = _DEFAULTS.get((one.group, one.kind), {})
    if "spec" in meaning or defaults:
        spec = meaning.get("spec")
        meaning["spec"] = _filled({**defaults, **(spec if isinstance(spec, dict) else {})}, one)
    if one.kind == "NetworkPolicy":
        _fill_policy_types(meaning["spec"])
    notes = {
        key: value
        for key, value in one.annotations.items()
        if key == "istio.io/dry-run"
        or key.startswith(("config.linkerd.io/", "retry.linkerd.io/", "timeout.linkerd.io/"))
    }
    if notes:
        meaning["metadata"] = {"annotations": notes}
    return meaning


def _fill_policy_types(spec: dict[str, Any]) -> None:
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _filled(value: Any, one: Manifest, name: str = "") -> Any:
    if isinstance(value, dict):
        return {
            key: _filled(inner, one, key)
            for key, inner in value.items()
            if inner is not None and not (inner == [] and one.group in _BUILT_IN)
        }
    if isinstance(value, list):
        items = [_filled(inner, one) for inner in value]
        fill = _ANYWHERE.get(name)
        if fill is not None and (name != "ports" or one.kind == "NetworkPolicy"):
            items = [{fill[0]: fill[1], **item} if isinstance(item, dict) else item for item in items]
        return items
    return value


def _differ(path: str, left: Any, right: Any, *, ordered: bool) -> Iterator[Change]:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted({*left, *right}):
            inner = f"{path}.{key}" if path else key
            yield from _differ(inner, left.get(key), right.get(key), ordered=ordered)
    elif isinstance(left, list) and isinstance(right, list):
        yield from _differ_lists(path, left, right, ordered=ordered)
    elif _canonical(left) != _canonical(right):
        yield Change(path=path, wanted=left, found=right)


def _differ_lists(path: str, left: list[Any], right: list[Any], *, ordered: bool) -> Iterator[Change]:
    if ordered and len(left) == len(right):
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from _differ(f"{path}[{index}]", one, other, ordered=ordered)
        return
    lost, new = _without(left, right), _without(right, left)
    if ordered and not (lost or new) and left != right:
        yield Change(path=path, wanted=left, found=right)
    elif len(lost) == len(new) == 1 and isinstance(lost[0], dict) and isinstance(new[0], dict):
        yield from _differ(f"{path}[{right.index(new[0])}]", lost[0], new[0], ordered=ordered)
    else:
        for one in lost:
            yield Change(path=f"{path}[]", wanted=one, found=None)
        for one in new:
            yield Change(path=f"{path}[{right.index(one)}]", wanted=None, found=one)


def _without(left: Iterable[Any], right: Iterable[Any]) -> list[Any]:
    """Return the items of one list that the other has not, each as often as it is missing."""
    rest = [_canonical(one) for one in right]
    found = []
    for one in left:
        text = _canonical(one)
        if text in rest:
            rest.remove(text)
        else:
            found.append(one)
    return found


def _canonical(value: Any) -> str:
    """Return one text for everything that means the same: members sorted, and items of lists too."""
    return json.dumps(_sorted(value), sort_keys=True, default=str)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return sorted(
            (_sorted(inner) for inner in value), key=lambda one: json.dumps(one, sort_keys=True, default=str)
        )
    return value
