# SPDX-License-Identifier: Apache-2.0
"""The files of a sidecar as the resources that Envoy is given.

The files are what counts and what a person reads; this is a translation and adds nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

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
    """All resources of a sidecar by type URL and name; ``label`` is the hash of the policy they enforce.

    ``blocks`` is the number of the blocks that are laid over them.
    """

    label: str
    resources: Mapping[str, Mapping[str, Resource]]
    blocks: int = 0

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
            document = _file.decode(path.read_bytes())
            if name == "ecds" and document.version_info:
                label = document.version_info
            for raw in document.resources:
                version = hashlib.sha256(raw).hexdigest()[:16]
                about = _about.decode(raw)
                encoded = known.get(version) or Resource(
                    version, encode_resource(_decode(about.kind, raw))[1]
                )
                found.setdefault(about.kind, {})[about.name or about.cluster_name] = encoded
    return Configuration(label=label, resources=found)


def resource_of(document: dict[str, Any]) -> Resource:
    """Return a resource that no file holds; its version is of its content, as those of files."""
    version = hashlib.sha256(msgspec.json.encode(document)).hexdigest()[:16]
    return Resource(version, encode_resource(document)[1])


class _File(msgspec.Struct):
    version_info: str
    resources: list[msgspec.Raw]


class _About(msgspec.Struct):
    kind: str = msgspec.field(name="@type")
    name: str = ""
    cluster_name: str = ""


class _Map(msgspec.Struct, forbid_unknown_fields=True):
    map: dict[str, msgspec.Raw]


class _Tree(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    input: Any
    exact_match_map: _Map | None = None
    prefix_match_map: _Map | None = None
    custom_match: Any = None


class _OnMatch(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    matcher: _Matcher | None = None
    action: Any = None


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    predicate: Any
    on_match: _OnMatch


class _List(msgspec.Struct, forbid_unknown_fields=True):
    matchers: list[_Entry]


class _Matcher(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    matcher_tree: _Tree | None = None
    matcher_list: _List | None = None
    on_no_match: _OnMatch | None = None


class _Filter(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    kind: str = msgspec.field(name="@type")
    matcher: _Matcher | None = None
    shadow_matcher: _Matcher | None = None


class _NamedFilter(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    typed_config: _Filter
    kind: str = msgspec.field(name="@type")


class _AboutFilter(msgspec.Struct):
    typed_config: _About


_POLICY: Final = type_url("envoy.extensions.filters.http.rbac.v3.RBAC")
_filter_kind: Final = msgspec.json.Decoder(_AboutFilter)
_file: Final = msgspec.json.Decoder(_File)
_about: Final = msgspec.json.Decoder(_About)
_filter: Final = msgspec.json.Decoder(_NamedFilter)


def _decode(kind: str, raw: msgspec.Raw) -> dict[str, Any]:
    """Return a resource as JSON values; the large maps of a policy keep their values as text."""
    if kind != FILTER or _filter_kind.decode(raw).typed_config.kind != _POLICY:
        resource: dict[str, Any] = msgspec.json.decode(raw)
        return resource
    plain: dict[str, Any] = msgspec.to_builtins(_filter.decode(raw), builtin_types=(msgspec.Raw,))
    return plain
