# SPDX-License-Identifier: Apache-2.0
"""Objects member by member: an unknown or ill-typed one is an error, since the API server would drop it and so change its meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.manifests import Manifest


@dataclass(frozen=True, slots=True)
class Part:
    """A mapping inside of a manifest with the way to it."""

    manifest: Manifest
    where: str
    value: Mapping[str, Any]

    def wrong(self, message: str) -> InputError:
        """Return the error for this part."""
        where = f" {self.where}" if self.where else ""
        return InputError(f"{self.manifest.span}: {self.manifest}:{where}: {message}")

    def only(self, *names: str) -> None:
        """Refuse any other member."""
        unknown = sorted(set(self.value) - set(names))
        if unknown:
            raise self.wrong(f"unknown field {unknown[0]!r}")

    def text(self, name: str, default: str = "") -> str:
        """Return a text."""
        found = self.value.get(name, default)
        if not isinstance(found, str):
            raise self.wrong(f"{name} is no text")
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts, none of them empty."""
        found = self.value.get(name) or ()
        if not isinstance(found, list | tuple) or not all(isinstance(one, str) and one for one in found):
            raise self.wrong(f"{name} is no list of texts that are not empty")
        return tuple(found)

    def labels(self, name: str) -> Mapping[str, str]:
        """Return a mapping of texts."""
        found = self.value.get(name) or {}
        if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
            raise self.wrong(f"{name} is no mapping of texts")
        return found

    def part(self, name: str) -> Part | None:
        """Return a mapping below, None where there is none."""
        found = self.value.get(name)
        return None if found is None else self._part(name, found)

    def parts(self, name: str) -> tuple[Part, ...] | None:
        """Return a list of mappings below, None where there is none."""
        found = self.value.get(name)
        if found is None:
            return None
        if not isinstance(found, list):
            raise self.wrong(f"{name} is no list")
        return tuple(self._part(f"{name}[{index}]", one) for index, one in enumerate(found))

    def one_of(self, name: str, values: Iterable[str], default: str) -> str:
        """Return one of the values."""
        found = self.text(name, default)
        if found not in set(values):
            raise self.wrong(f"{name} is not {found[:40]!r}")
        return found

    def _part(self, name: str, found: object) -> Part:
        where = f"{self.where}.{name}" if self.where else name
        if not isinstance(found, dict):
            raise Part(self.manifest, where, {}).wrong("expected a mapping")
        return Part(self.manifest, where, found)


def spec_of(manifest: Manifest) -> Part:
    """Return the spec of an object, empty where it has none; raises InputError for unknown members beside it."""
    unknown = sorted(set(manifest.document) - {"apiVersion", "kind", "metadata", "spec", "status"})
    if unknown:
        raise Part(manifest, "", {}).wrong(f"unknown field {unknown[0]!r}")
    found = manifest.document.get("spec")
    if found is not None and not isinstance(found, dict):
        raise Part(manifest, "spec", {}).wrong("expected a mapping")
    return Part(manifest, "spec", found or {})
