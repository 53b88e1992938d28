# SPDX-License-Identifier: Apache-2.0
"""A policy compiled to one target of Kubernetes, and a small reading of what comes out.

The reading of Cilium here is a second one, for the tests of its compiler alone; :mod:`everyhop.evaluators` has the full ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.crds import objects_of

from everyhop.policy import parse_policy
from everyhop.targets import compile_policy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.policy.model import Snapshot
    from everyhop.targets import Compilation


@dataclass(frozen=True)
class Pod:
    """A pod as the network sees it."""

    namespace: str
    account: str
    labels: Mapping[str, str]


def pod_of(snapshot: Snapshot, service: str) -> Pod:
    """The pod of a service where the policy's chapter puts it."""
    place = snapshot.targets.place(service)
    return Pod(place.namespace, place.service_account, place.labels)


def compiled(policy: str, target: str, *beside: str) -> Compilation:
    """A policy's text compiled to one target."""
    return compile_policy(parse_policy({"everyhop.yaml": policy.encode()}), [target], beside=beside)[0]


def objects(compilation: Compilation, kind: str | None = None) -> dict[str, dict[str, Any]]:
    """The objects of a compilation, ``namespace/name`` (or ``name``) to the object, of one kind."""
    found = {}
    for one in objects_of(file.content for file in compilation.files):
        if kind is None or one["kind"] == kind:
            metadata = one["metadata"]
            namespace = metadata.get("namespace")
            key = metadata["name"] if namespace is None else f"{namespace}/{metadata['name']}"
            assert key not in found, key
            found[key] = one
    return found


def codes(compilation: Compilation, *, errors: bool | None = None) -> list[str]:
    """The codes of the diagnostics without the target's name; of errors only, or of warnings only."""
    return [
        one.code.partition(".")[2]
        for one in compilation.diagnostics
        if errors is None or one.is_error is errors
    ]


# --- Cilium, as far as our output goes ------------------------------------------------------------------------------


def cilium_ingress(
    policies: Iterable[dict[str, Any]], source: Pod, target: Pod, port: int, method: str, path: str
) -> bool:
    """Whether Cilium lets an HTTP request in; a rule of layer 4 for the peer and port lets everything in."""
    is_denied_by_default = False
    allowed = False
    for policy in policies:
        spec = policy["spec"]
        if (
            not _selects(spec["endpointSelector"], target)
            or policy["metadata"]["namespace"] != target.namespace
        ):
            continue
        is_denied_by_default |= bool(spec["ingress"])
        for rule in spec["ingress"]:
            if any(_peer(one, source) for one in rule.get("fromEndpoints", ())):
                allowed |= any(_port(one, port, method, path) for one in rule["toPorts"])
    return allowed or not is_denied_by_default


def cilium_egress(policies: Iterable[dict[str, Any]], source: Pod, target: Pod, port: int) -> bool:
    """Whether Cilium lets a connection out."""
    for policy in policies:
        spec = policy["spec"]
        if (
            not _selects(spec["endpointSelector"], source)
            or policy["metadata"]["namespace"] != source.namespace
        ):
            continue
        for rule in spec["egress"]:
            if any(_peer(one, target) for one in rule.get("toEndpoints", ())) and any(
                item["port"] == str(port) for one in rule["toPorts"] for item in one["ports"]
            ):
                return True
    return False


def _labels(pod: Pod) -> dict[str, str]:
    found = {f"k8s:{key}": value for key, value in pod.labels.items()}
    found["k8s:io.kubernetes.pod.namespace"] = pod.namespace
    found["k8s:io.cilium.k8s.policy.serviceaccount"] = pod.account
    return found


def _selects(selector: dict[str, Any], pod: Pod) -> bool:
    assert set(selector) <= {"matchLabels"}
    labels = _labels(pod)
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _peer(selector: dict[str, Any], pod: Pod) -> bool:
    assert "k8s:io.kubernetes.pod.namespace" in selector["matchLabels"], "a peer without its namespace"
    return _selects(selector, pod)


def _port(entry: dict[str, Any], port: int, method: str, path: str) -> bool:
    if all(one["port"] != str(port) for one in entry["ports"]):
        return False
    if "rules" not in entry:
        return True
    rules = entry["rules"]["http"]
    assert rules, "an empty list would admit everything"
    return any(re.fullmatch(one["method"], method) and re.fullmatch(one["path"], path) for one in rules)
