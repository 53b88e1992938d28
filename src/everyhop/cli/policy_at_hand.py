# SPDX-License-Identifier: Apache-2.0
"""Which policy a command speaks of, and its text where that is at hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from everyhop.cli.arguments import admin

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from everyhop.policy.model import Snapshot

DEFAULT: Final = Path("everyhop.yaml")


@dataclass(frozen=True, slots=True)
class PolicyAtHand:
    """A snapshot, and the files that mean it (None where they are not here)."""

    snapshot: Snapshot
    files: Mapping[str, bytes] | None


def read_policy(path: Path) -> PolicyAtHand:
    """Return the policy of a file or directory; raises PolicyError, InputError."""
    from everyhop.runtime.policy_files import PolicyFiles, PureRules

    files = PolicyFiles(path).read()
    return PolicyAtHand(PureRules().parse(files), files)


def policy_at_hand(args: argparse.Namespace) -> PolicyAtHand:
    """Return the policy that ``--policy`` names, else the one in force, else ``./everyhop.yaml``.

    The one in force has its text at hand where ``./everyhop.yaml`` means exactly it.  Raises Unavailable, PolicyError,
    InputError.
    """
    from everyhop.core.errors import EveryhopError, Unavailable
    from everyhop.policy import decode_snapshot

    if args.policy is not None:
        return read_policy(args.policy)
    try:
        snapshot = decode_snapshot(admin(args).get_bytes("/v1/snapshot"))
    except Unavailable:
        if not DEFAULT.exists():
            raise
        return read_policy(DEFAULT)
    try:
        here = read_policy(DEFAULT)
    except EveryhopError:
        return PolicyAtHand(snapshot, None)
    return here if here.snapshot.hash == snapshot.hash else PolicyAtHand(snapshot, None)
