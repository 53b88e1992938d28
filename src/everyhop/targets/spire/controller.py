# SPDX-License-Identifier: Apache-2.0
"""ClusterSPIFFEIDs for the SPIRE controller manager: one a service, never without selectors.

A ClusterSPIFFEID without selectors gives its ID to every pod of the cluster.  Namespace and labels select the pods here, and
further selectors of the entry demand the service account too, since whoever writes labels would be the service otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.targets.objects import obj, object_name, yaml_file
from everyhop.targets.spire.entries import dns_name, is_of_unix
from everyhop.targets.yaml import Document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.targets.intents import ServiceIntents
    from everyhop.targets.model import File
    from everyhop.targets.view import View

_VERSION: Final = "spire.spiffe.io/v1alpha1"
_NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
"""The label that the API server itself keeps on every namespace."""


def cluster_ids(view: View) -> File:
    """Return ``spire/clusterspiffeids.yaml``."""
    return yaml_file(view, "spire/clusterspiffeids.yaml", list(_documents(view)))


def go_duration(seconds: int) -> str:
    """Return a time as Go writes it, so that what is read back is what was written."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    parts = ([f"{hours}h"] if hours else []) + ([f"{minute}m"] if hours or minute else [])
    return "".join([*parts, f"{second}s"])


def is_selectable(service: ServiceIntents) -> bool:
    """Tell whether a service's pods can be selected: it has labels."""
    return bool(service.place.labels)


def _documents(view: View) -> Iterator[Document]:
    for one in view.intents:
        if not one.service.is_canary and not is_of_unix(one.service) and is_selectable(one):
            span = one.service.span
            yield Document(_cluster_id(view, one), (f"{one.name} at {span.file}:{span.line}",))


def _cluster_id(view: View, one: ServiceIntents) -> dict[str, Any]:
    place = one.place
    spec: dict[str, Any] = {
        "spiffeIDTemplate": str(one.service.spiffe_id),
        "namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: place.namespace}},
        "podSelector": {"matchLabels": dict(sorted(place.labels.items()))},
        "workloadSelectorTemplates": [f"k8s:ns:{place.namespace}", f"k8s:sa:{place.service_account}"],
        "ttl": go_duration(view.option("ttl")),
        "jwtTtl": go_duration(view.option("jwt_ttl")),
    }
    name = dns_name(view, one.name)
    if name is not None:
        spec["dnsNameTemplates"] = [name]
    if view.option("class_name"):
        spec["className"] = view.option("class_name")
    return obj(view, _VERSION, "ClusterSPIFFEID", object_name("service", one.name), None, spec)
