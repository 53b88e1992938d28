# SPDX-License-Identifier: Apache-2.0
"""From files of another system to the text of a policy, which is checked before it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.authz import run_tests
from everyhop.core.errors import InputError, PolicyError
from everyhop.importing.istio import import_istio
from everyhop.importing.model import Imported, Wishes
from everyhop.importing.networkpolicy import import_network_policies
from everyhop.importing.otterize import import_otterize
from everyhop.importing.spire import import_spire
from everyhop.importing.writing import write_policy
from everyhop.manifests import read_manifests
from everyhop.policy import parse_policy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.importing.model import Draft

ORIGINS: Final = ("istio", "networkpolicy", "otterize", "spire")
"""What can be imported."""


def import_policy(origin: str, files: Mapping[str, bytes], wishes: Wishes | None = None) -> Imported:
    """Import files, name to content; the text that is returned parses and passes the tests that it carries.

    Raises InputError for files that the source's system would refuse itself, or that name no workload at all.
    """
    if origin not in ORIGINS:
        raise InputError(f"nothing can be imported from {origin[:40]!r}", hint="from: " + ", ".join(ORIGINS))
    draft = _draft(origin, files, wishes or Wishes())
    text = write_policy(draft, origin)
    snapshot = parse_policy({"imported.yaml": text})
    problems = [problem for result in run_tests(snapshot) if (problem := result.problem()) is not None]
    if problems:  # a test follows from the source and not from the rules: the two readings differ
        raise PolicyError(problems)
    return Imported(text=text, parts=tuple(draft.parts))


def _draft(origin: str, files: Mapping[str, bytes], wishes: Wishes) -> Draft:
    if origin == "spire":
        return import_spire(files, wishes)
    manifests = read_manifests(files)
    if origin == "networkpolicy":
        return import_network_policies(manifests, wishes)
    return import_istio(manifests, wishes) if origin == "istio" else import_otterize(manifests, wishes)
