# SPDX-License-Identifier: Apache-2.0
"""Who a workload is to Cilium: labels with their source, and selectors over those.

A pod has its own labels, its namespace, its service account and its namespace's labels, all of source ``k8s``; whoever may write a
pod's labels writes its identity.  What is no pod is ``reserved:world``, or ``reserved:host`` and ``reserved:remote-node`` for
addresses of nodes.  A selector's key without a source means any source.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.evaluators.labels import read_selector
from everyhop.evaluators.model import labels_of_namespace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.evaluators.labels import Selector
    from everyhop.evaluators.model import Workload

NAMESPACE: Final = "io.kubernetes.pod.namespace"
ACCOUNT: Final = "io.cilium.k8s.policy.serviceaccount"
CLUSTER: Final = "io.cilium.k8s.policy.cluster"
NAMESPACE_LABELS: Final = "io.cilium.k8s.namespace.labels"
_RESERVED: Final = "reserved:"
_SOURCES: Final = ("any", "k8s", "reserved")
WORLD: Final[Mapping[str, str]] = MappingProxyType({"reserved:world": "", "any:world": ""})
NODE: Final[Mapping[str, str]] = MappingProxyType(
    {"reserved:host": "", "any:host": "", "reserved:remote-node": "", "any:remote-node": ""}
)


def labels_of(workload: Workload, cluster: str) -> Mapping[str, str]:
    """Return the labels of a pod, each under its source and under ``any``."""
    own = {
        **{f"{NAMESPACE_LABELS}.{key}": value for key, value in labels_of_namespace(workload).items()},
        **workload.labels,
        # What Cilium adds is not to be overwritten by a label of the pod.
        NAMESPACE: workload.namespace,
        ACCOUNT: workload.service_account,
        CLUSTER: cluster,
    }
    return {f"{source}:{key}": value for key, value in own.items() for source in ("k8s", "any")}


def read_labels(value: object, where: str) -> Selector:
    """Read a selector over labels with sources; raises InputError for a source that no workload here has."""
    return read_selector(value, where).renamed(lambda key: _with_source(key, where))


def _with_source(key: str, where: str) -> str:
    source, colon, rest = key.partition(":")
    if not colon:
        return f"any:{key}"
    if source not in _SOURCES or not rest:
        raise InputError(f"{where}: labels of the source {source[:40]!r} are not read here")
    return key


def in_namespace(selector: Selector, namespace: str | None) -> Selector:
    """Return the selector of peers as a policy of a namespace (None: clusterwide) means it (``getEndpointSelector``).

    Without a word of namespaces a peer is in the policy's own, and of a clusterwide policy in any, but never outside.
    """
    keys = selector.keys()
    if any(key.startswith(_RESERVED) for key in keys):
        return selector
    bare = [key.partition(":")[2] for key in keys]
    if NAMESPACE in bare:
        return selector
    if namespace is None:
        return selector.and_exists(f"k8s:{NAMESPACE}")
    if any(key.startswith(NAMESPACE_LABELS) for key in bare):
        return selector
    return selector.and_equal(f"k8s:{NAMESPACE}", namespace)
