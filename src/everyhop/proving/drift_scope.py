# SPDX-License-Identifier: Apache-2.0
"""Which objects matter for a target, and what a rule is asked about one of them."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from everyhop.proving.drift_model import Finding, Severity
from everyhop.proving.drift_objects import Key, key_of
from everyhop.targets.objects import MANAGED_BY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from everyhop.manifests import Manifest
    from everyhop.policy.targets import Placement
    from everyhop.targets.intents import Intents
    from everyhop.targets.view import View

SECURITY: Final = "security.istio.io"
NETWORKING: Final = "networking.istio.io"
LINKERD: Final = "policy.linkerd.io"
GATEWAY: Final = "gateway.networking.k8s.io"
CILIUM: Final = "cilium.io"
KUBERNETES: Final = "networking.k8s.io"

_ISTIO: Final = (
    (SECURITY, "AuthorizationPolicy"),
    (SECURITY, "PeerAuthentication"),
    (SECURITY, "RequestAuthentication"),
    (NETWORKING, "Sidecar"),
    (NETWORKING, "DestinationRule"),
)
_NETWORK: Final = ((KUBERNETES, "NetworkPolicy"),)
_CLUSTER_NETWORK: Final = (("policy.networking.k8s.io", "ClusterNetworkPolicy"),)

WATCHED: Final[Mapping[str, tuple[tuple[str, str], ...]]] = MappingProxyType(
    {
        "istio": _ISTIO,
        "ambient": _ISTIO,
        "linkerd": (
            (LINKERD, "Server"),
            (LINKERD, "HTTPRoute"),
            (LINKERD, "AuthorizationPolicy"),
            (LINKERD, "MeshTLSAuthentication"),
            (LINKERD, "NetworkAuthentication"),
            (LINKERD, "ServerAuthorization"),
            (LINKERD, "EgressNetwork"),
            (GATEWAY, "HTTPRoute"),
            (GATEWAY, "GRPCRoute"),
            ("", "Namespace"),
        ),
        "cilium": ((CILIUM, "CiliumNetworkPolicy"), (CILIUM, "CiliumClusterwideNetworkPolicy"), *_NETWORK),
        "networkpolicy": _NETWORK,
        "clusternetworkpolicy": (*_CLUSTER_NETWORK, *_NETWORK),
    }
)
"""The kinds that decide in a target, by group and kind; kinds that a policy compiles to are looked at as well."""

CONTEXT: Final = (
    ("", "Namespace"),
    ("", "Pod"),
    ("apps", "Deployment"),
    ("apps", "StatefulSet"),
    ("apps", "DaemonSet"),
)
"""Kinds that only tell what the others mean."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a policy stands for in one target: its services by namespace, and the namespaces whose objects reach them."""

    view: View

    @property
    def intents(self) -> Intents:
        """Return the intents of the policy."""
        return self.view.intents

    @property
    def target(self) -> str:
        """Return the target's name."""
        return self.view.target

    @property
    def root(self) -> str | None:
        """Return the mesh's root namespace, where the target has one."""
        return str(self.view.option("root_namespace")) if self.target in {"istio", "ambient"} else None

    def places(self, namespace: str | None) -> Iterator[tuple[str, Placement]]:
        """Yield the services of a namespace, or all (None)."""
        for name in self.intents.names:
            place = self.intents.settings.place(name)
            if namespace in {None, place.namespace}:
                yield name, place

    def reaches(self, one: Manifest) -> bool:
        """Tell whether an object stands where it may speak of the policy's services."""
        key = key_of(one)
        if not key.namespace:
            return one.kind != "Namespace" or one.name in self.intents.namespaces
        return key.namespace in self.intents.namespaces or key.namespace == self.root

    def selected(self, one: Manifest, labels: Mapping[str, Any] | None) -> tuple[str, ...]:
        """Return the services of an object's namespace (of all, for the root) that labels may select; None selects all.

        A selector with labels that a service's placement does not name may select its pods all the same.
        """
        namespace = None if key_of(one).namespace in {"", self.root} else one.namespace
        found = []
        for name, place in self.places(namespace):
            if all(place.labels.get(key, value) == value for key, value in (labels or {}).items()):
                found.append(name)
        return tuple(found)


def is_ours(one: Manifest) -> bool:
    """Tell whether an object says of itself that everyhop made it."""
    return one.labels.get(MANAGED_BY) == "everyhop"


def finding(
    one: Manifest, code: str, severity: Severity, message: str, services: Sequence[str] = ()
) -> Finding:
    """Return a finding about an object in force; ``services`` are those that it concerns."""
    tail = f" ({', '.join(services[:5])}{', …' if len(services) > 5 else ''})" if services else ""  # noqa: PLR2004  # a line
    return Finding(
        code=code, severity=severity, subject=str(key_of(one)), message=message + tail, span=one.span
    )


__all__ = ["CONTEXT", "WATCHED", "Key", "Scope", "finding", "is_ours"]
