# SPDX-License-Identifier: Apache-2.0
"""A suggestion as changed files, kept only where trying it shows that it does what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.authz.checks import run_tests
from everyhop.authz.engine import Engine
from everyhop.core.errors import InputError, PolicyError
from everyhop.policy import parse_policy
from everyhop.policy.edit import append_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from everyhop.authz.explanation import Edit
    from everyhop.policy.model import Snapshot


def with_entries(files: Mapping[str, bytes], edits: Iterable[Edit]) -> dict[str, bytes]:
    """Return the files with entries added; raises InputError where a file is not among them, or cannot take one."""
    changed = dict(files)
    for edit in edits:
        name = edit.span.file
        if name not in changed:
            raise InputError(f"{name} is not at hand")
        changed[name] = append_entry(changed[name], edit.path, edit.yaml)
    return changed


def try_edits(
    files: Mapping[str, bytes], edits: Iterable[Edit], holds: Callable[[Engine], bool]
) -> dict[str, bytes] | None:
    """Return the changed files, or None where they are no policy, fail its own tests, or ``holds`` says no."""
    try:
        changed = with_entries(files, edits)
    except InputError:
        return None
    engine = tried(changed)
    return changed if engine is not None and holds(engine) else None


def tried(files: Mapping[str, bytes]) -> Engine | None:
    """Return the engine of a changed policy, or None where it does not parse or one of its tests fails."""
    try:
        snapshot: Snapshot = parse_policy(files)
    except (PolicyError, InputError):
        return None
    engine = Engine(snapshot)
    return engine if all(result.is_passed for result in run_tests(snapshot, engine)) else None
