# SPDX-License-Identifier: Apache-2.0
"""Small policies compiled to a target, and the objects of the output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.crds import objects_of

from everyhop.policy import parse_policy
from everyhop.targets import compile_policy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.targets import Compilation


@dataclass(frozen=True)
class Compiled:
    """A compilation, with its objects read by a reader that is not ours."""

    compilation: Compilation

    @property
    def files(self) -> Mapping[str, bytes]:
        return {file.path: file.content for file in self.compilation.files}

    @property
    def objects(self) -> list[dict[str, Any]]:
        return list(objects_of(self.files.values()))

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.objects if one["kind"] == kind]

    def spec(self, kind: str, name: str) -> Any:
        """The spec of the one object of a kind and name; None where there is none."""
        found = [one for one in self.all(kind) if one["metadata"]["name"] == name]
        assert len(found) <= 1, f"{kind} {name} twice"
        return found[0].get("spec") if found else None

    @property
    def errors(self) -> set[str]:
        return {one.code for one in self.compilation.diagnostics if one.is_error}

    @property
    def warnings(self) -> set[str]:
        return {one.code for one in self.compilation.diagnostics if not one.is_error}


def compiled(target: str, policy: str, *beside: str) -> Compiled:
    """Compile the text of a policy (without version and trust domain, which are shop.example's)."""
    text = f"version: 1\ntrust_domain: shop.example\n{policy}"
    snapshot = parse_policy({"everyhop.yaml": text.encode()})
    return Compiled(compile_policy(snapshot, [target], beside=beside)[0])
