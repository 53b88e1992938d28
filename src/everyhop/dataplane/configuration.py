# SPDX-License-Identifier: Apache-2.0
"""The files of a sidecar as the resources that Envoy is given.

The files are what counts and what a person reads; this is a translation and adds nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from everyhop.dataplane._protobuf import encode_resource
from everyhop.dataplane._resources import type_url
from everyhop.dataplane.files import DIRECTORIES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CLUSTER: Final = type_url("envoy.config.cluster.v3.Cluster")
ENDPOINTS: Final = type_url("envoy.config.endpoint.v3.ClusterLoadAssignment")
LISTENER: Final = type_url("envoy.config.listener.v3.Listener")
ROUTES: Final = type_url("envoy.config.route.v3.RouteConfiguration")
FILTER: Final = type_url("envoy.config.core.v3.TypedExtensionConfig")


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource: its version (of its content) and its bytes."""

    version: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All resources of a sidecar by type URL and name; ``label`` is the hash of the policy they enforce."""

    label: str
    resources: Mapping[str, Mapping[str, Resource]]

    def of(self, kind: str) -> Mapping[str, Resource]:
        """Return the resources of one type."""
        return self.resources.get(kind, {})


def load_configuration(directory: Path, previous: Configuration | None = None) -> Configuration:
    """Read the files that :func:`everyhop.dataplane.files.write_files` has written.

    Give the ``previous`` configuration so that what has not changed is not translated again.  Raises OSError, and
    ``msgspec.DecodeError`` or KeyError when the files are not ours.
    """
    known = (
        {}
        if previous is None
        else {r.version: r for kind in previous.resources.values() for r in kind.values()}
    )
    found: dict[str, dict[str, Resource]] = {}
    label = ""
    for name in DIRECTORIES:
        for path in sorted((directory / name).glob("*.json")):
            document = msgspec.json.decode(path.read_bytes())
            if name == "ecds":
                label = document["version_info"]
            for resource in document["resources"]:
                version = hashlib.sha256(msgspec.json.encode(resource)).hexdigest()[:16]
                kind = resource["@type"]
                encoded = known.get(version) or Resource(version, encode_resource(resource)[1])
                found.setdefault(kind, {})[resource.get("name") or resource["cluster_name"]] = encoded
    return Configuration(label=label, resources=found)
