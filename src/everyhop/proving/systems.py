# SPDX-License-Identifier: Apache-2.0
"""The systems that can be proven, each by its evaluator over manifests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from everyhop.evaluators.model import Outcome, Workload
from everyhop.manifests import read_manifests

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from everyhop.core.problems import Span
    from everyhop.evaluators.model import Evaluator
    from everyhop.manifests import Manifests
    from everyhop.policy.targets import TargetSettings
    from everyhop.proving.model import Ask
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

_UNSEEN: Outcome = Outcome(allowed=True, why="it does not see what leaves")


@dataclass(frozen=True, kw_only=True)
class System:
    """One target as it stands on the hops that are proven.

    ``diagnostics`` are those of compiling the policy to it, ``places`` the file and line of each object by its name.
    ``isolates``: it holds pods to the policy where they call too, not only where they are called.  ``lets_nodes``: what comes from a pod's own node is never refused, whoever sends it there.  ``normalise`` is what its proxies make
    of a path before they decide on it and forward it (None: nothing), itself None for a path that they refuse.  ``is_own_form``: it sees SPIFFE IDs as the policy writes them, not as the mesh does.
    """

    name: str
    evaluator: Evaluator
    view: View
    diagnostics: Sequence[Diagnostic] = ()
    places: Mapping[str, Span] = field(default_factory=dict)
    is_own_form: bool = False
    normalise: Callable[[str], str | None] | None = None
    sees_egress: bool = True
    isolates: bool = False
    lets_nodes: bool = False

    def evaluate(self, ask: Ask) -> Outcome:
        """Return what the system does with a request."""
        if (ask.is_egress and not self.sees_egress) or (ask.is_bound and not self.isolates):
            return _UNSEEN
        request = ask.request
        if self.is_own_form and request.peer is not None:
            request = replace(request, peer=ask.caller.own_peer)
        return self.evaluator.evaluate(request)

    def place(self, outcome: Outcome) -> str | None:
        """Return the file and line of the object that decided, None where there is none."""
        if outcome.by is None:
            return None
        words = outcome.by.split(" ")
        span = next(
            (
                self.places[name]
                for n in range(len(words), 0, -1)
                if (name := " ".join(words[:n])) in self.places
            ),
            None,
        )
        return None if span is None else f"{span.file}:{span.line}"


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a system is made of: its target, what it may open, the files, and what compiling said."""

    target: str
    view: View
    files: Mapping[str, bytes]
    diagnostics: Sequence[Diagnostic] = ()

    @cached_property
    def manifests(self) -> Manifests:
        """Return the objects of the files; raises InputError where they are none."""
        return read_manifests(self.files)

    @property
    def settings(self) -> TargetSettings:
        """Return the chapter ``targets``."""
        return self.view.intents.settings

    def option(self, name: str) -> Any:
        """Return an option of the target."""
        return self.view.option(name)

    def system(self, evaluator: Evaluator, **further: Any) -> System:
        """Return the system of an evaluator over these manifests."""
        places = {str(one): one.span for one in self.manifests}
        return System(
            name=self.target,
            evaluator=evaluator,
            view=self.view,
            diagnostics=self.diagnostics,
            places=places,
            **further,
        )


def dns_of(systems: Iterable[System]) -> Workload | None:
    """Return a pod of the cluster's DNS as a target that isolates pods is told of it, None where none does."""
    for system in systems:
        if system.isolates:
            key, _, value = system.view.option("dns_label").partition("=")
            namespace = system.view.option("dns_namespace")
            return Workload(
                name="dns", namespace=namespace, service_account="dns", labels={key: value}, ip="10.96.0.10"
            )
    return None


Builder = Callable[[Material], System]
"""Makes a system; raises InputError for files that it would reject."""


def _network_policy(material: Material) -> System:
    from everyhop.evaluators.network_policy import NetworkPolicyEvaluator

    networks = material.settings.probe_networks
    return material.system(
        NetworkPolicyEvaluator(material.manifests, node_networks=networks), isolates=True, lets_nodes=True
    )


def _cluster_network_policy(material: Material) -> System:
    from everyhop.evaluators.cluster_network_policy import ClusterNetworkPolicyEvaluator

    networks = material.settings.probe_networks
    return material.system(
        ClusterNetworkPolicyEvaluator(material.manifests, node_networks=networks),
        isolates=True,
        lets_nodes=True,
    )


def _cilium(material: Material) -> System:
    from everyhop.evaluators.cilium import CiliumEvaluator

    networks = material.settings.probe_networks
    evaluator = CiliumEvaluator(material.manifests, node_networks=networks)
    return material.system(evaluator, isolates=True, lets_nodes=True, normalise=_as_cilium)


def _as_cilium(path: str) -> str | None:
    from everyhop.evaluators.cilium.http import seen_path

    return seen_path(path, normalises=True)


def _istio(material: Material) -> System:
    from everyhop.evaluators.istio import Istio

    evaluator = Istio(
        material.manifests,
        trust_domain=material.view.intents.trust_domain,
        aliases=material.option("trust_domain_aliases"),
        root_namespace=material.option("root_namespace"),
    )
    return material.system(evaluator, normalise=_as_istio, sees_egress=False)


def _as_istio(path: str) -> str | None:
    from everyhop.evaluators.envoy_paths import normalized
    from everyhop.evaluators.istio import Normalization

    return normalized(path, Normalization.BASE)


def _linkerd(material: Material) -> System:
    from everyhop.evaluators.linkerd import LinkerdEvaluator, Mesh

    mesh = Mesh(
        control_plane_namespace=material.option("control_plane_namespace"),
        trust_domain=material.view.intents.trust_domain,
    )
    return material.system(LinkerdEvaluator(material.manifests, mesh=mesh))


def _ambient(material: Material) -> System:
    from everyhop.evaluators.istio import Ambient

    waypoint = material.option("waypoint")
    evaluator = Ambient(
        material.manifests,
        trust_domain=material.view.intents.trust_domain,
        aliases=material.option("trust_domain_aliases"),
        root_namespace=material.option("root_namespace"),
        uses=dict.fromkeys(material.view.intents.namespaces, waypoint) if waypoint else {},
    )
    return material.system(evaluator, normalise=_as_istio, sees_egress=False)


BUILDERS: Final[Mapping[str, Builder]] = MappingProxyType(
    {
        "istio": _istio,
        "ambient": _ambient,
        "linkerd": _linkerd,
        "cilium": _cilium,
        "networkpolicy": _network_policy,
        "clusternetworkpolicy": _cluster_network_policy,
    }
)
"""The systems that this room makes, by target."""
