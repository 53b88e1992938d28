# SPDX-License-Identifier: Apache-2.0
"""An object of Kubernetes as a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from everyhop.core.problems import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One object: ``api_version`` with its group, ``kind``, its names, and the whole of it as JSON values.

    ``namespace`` is "default" where none is written; objects without a namespace (cluster scoped) have it too, and nobody
    should ask.  ``document`` is not to be changed.
    """

    api_version: str
    kind: str
    name: str
    namespace: str
    document: Mapping[str, Any] = field(repr=False)
    span: Span = field(compare=False)

    @property
    def group(self) -> str:
        """Return the API group, empty for the core."""
        group, slash, _ = self.api_version.rpartition("/")
        return group if slash else ""

    @property
    def spec(self) -> Mapping[str, Any]:
        """Return ``spec``, empty where there is none or it is no mapping."""
        spec = self.document.get("spec")
        return spec if isinstance(spec, dict) else MappingProxyType({})

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Return ``metadata``."""
        metadata = self.document.get("metadata")
        return metadata if isinstance(metadata, dict) else MappingProxyType({})

    @property
    def labels(self) -> Mapping[str, str]:
        """Return the labels."""
        labels = self.metadata.get("labels")
        return labels if isinstance(labels, dict) else MappingProxyType({})

    @property
    def annotations(self) -> Mapping[str, str]:
        """Return the annotations."""
        found = self.metadata.get("annotations")
        return found if isinstance(found, dict) else MappingProxyType({})

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Manifests:
    """Objects in the order in which they were read."""

    objects: Sequence[Manifest]

    def of(self, kind: str, *groups: str) -> tuple[Manifest, ...]:
        """Return the objects of a kind, of any of the API groups (none given: of any group)."""
        return tuple(one for one in self.objects if one.kind == kind and (not groups or one.group in groups))

    def __iter__(self) -> Iterator[Manifest]:
        return iter(self.objects)

    def __len__(self) -> int:
        return len(self.objects)
