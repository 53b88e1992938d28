# SPDX-License-Identifier: Apache-2.0
"""All rules over one object, over a request of the cluster's API, and over a whole directory of manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.admission.default_deny import DENY_KINDS, is_default_deny, missing_default_deny
from everyhop.admission.meshes import MESH_RULES
from everyhop.admission.model import Code, Document, Finding, ShapeError
from everyhop.admission.workloads import WORKLOAD_RULES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from everyhop.manifests import Manifest

RULES: Final = (*MESH_RULES, *WORKLOAD_RULES)


def judge(document: Document) -> tuple[Finding, ...]:
    """Return why an object should not be there; what has not the shape of its kind is a finding too."""
    group, kind = str(document.get("apiVersion", "")).rpartition("/")[0], str(document.get("kind", ""))
    found: list[Finding] = []
    for rule in RULES:
        if not rule.concerns(group, kind):
            continue
        try:
            found += [Finding(code=rule.code, path=path, message=text) for path, text in rule.check(document)]
        except ShapeError as error:
            message = f"this is not the shape of a {kind[:60]}, so nobody can say what it allows"
            found.append(Finding(code=Code.MALFORMED, path=str(error), message=message))
    return tuple(dict.fromkeys(found))


def judge_removal(old: Document, new: Document | None) -> tuple[Finding, ...]:
    """Return why an object should not go, or change to ``new``: it is what refuses by default."""
    group, kind = str(old.get("apiVersion", "")).rpartition("/")[0], str(old.get("kind", ""))
    if not any(one.group == group and kind in one.resources for one in DENY_KINDS):
        return ()
    try:
        if not is_default_deny(old) or (new is not None and is_default_deny(new)):
            return ()
    except ShapeError:
        return ()  # it refused nothing; what it becomes is judged for itself
    message = "this policy refuses what nothing else allows in its namespace; without it more may be open"
    return (Finding(code=Code.DEFAULT_DENY_REMOVED, path="spec", message=message),)


def judge_all(objects: Sequence[Manifest]) -> Iterator[tuple[Manifest, Finding]]:
    """Yield each object with each finding, and for each namespace with workloads whether something refuses by default."""
    for one in objects:
        for finding in judge(dict(one.document)):
            yield one, finding
    try:
        yield from missing_default_deny(objects)
    except ShapeError:
        return  # said above, of the object whose shape it is
