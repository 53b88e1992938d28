# SPDX-License-Identifier: Apache-2.0
"""OPA: a bundle that decides as everyhop's own engine does, for whoever has OPA at the enforcement points.

The rules are the same for every policy (:mod:`everyhop.targets.opa.rego`); the policy is data beside them, but for conditions,
which are lowered to Rego.  The input is stated by the enforcement point, which has verified it: docs/reference/targets-opa.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.targets.opa.bundle import bundle_files
from everyhop.targets.opa.data import Facts

if TYPE_CHECKING:
    from everyhop.targets.model import Diagnostic, File
    from everyhop.targets.view import View

__all__ = ["TARGET", "Opa"]


class Opa:
    """The compiler; one bundle as a directory."""

    name = "opa"
    summary = "an OPA bundle: rules in Rego v1, the policy as data, its tests"

    def compile(self, view: View) -> tuple[list[File], list[Diagnostic]]:
        """Return the files of the bundle, and what has no form in it."""
        facts = Facts(view)
        return bundle_files(view, facts), facts.diagnostics


TARGET: Final = Opa()
