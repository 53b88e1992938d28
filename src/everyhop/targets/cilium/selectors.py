# SPDX-License-Identifier: Apache-2.0
"""Pods as Cilium selects them: by labels of the source ``k8s``, always with namespace and service account.

A selector without the namespace means the policy's own, and a label without a source means any source; neither is left to that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.targets.reach import Peer
    from everyhop.targets.view import View

NAMESPACE: Final = "k8s:io.kubernetes.pod.namespace"
ACCOUNT: Final = "k8s:io.cilium.k8s.policy.serviceaccount"
CLUSTER: Final = "k8s:io.cilium.k8s.policy.cluster"


def peer_selector(view: View, peer: Peer) -> dict[str, Any]:
    """Return the selector for the pods of a peer, in this cluster alone where the option ``cluster`` names it."""
    labels = _labels(peer.labels) | {NAMESPACE: peer.namespace}
    if peer.service_account:
        labels[ACCOUNT] = peer.service_account
    if view.option("cluster"):
        labels[CLUSTER] = view.option("cluster")
    return {"matchLabels": labels}


def endpoint_selector(peer: Peer) -> dict[str, Any]:
    """Return the selector for the pods that a policy of their own namespace is about.

    With the account no pod belongs to two services, so no rule of one can add to those of another.
    """
    return {"matchLabels": _labels(peer.labels) | {ACCOUNT: peer.service_account}}


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    return {f"k8s:{key}": value for key, value in sorted(labels.items())}
