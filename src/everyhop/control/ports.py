# SPDX-License-Identifier: Apache-2.0
"""What the control plane needs from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from everyhop.auditlog.model import Scalar
    from everyhop.control.proposals import Actor
    from everyhop.core.problems import Problem
    from everyhop.policy.model import Snapshot


class SnapshotStore(Protocol):
    """Every snapshot that was ever in force."""

    def save(
        self,
        content: bytes,
        content_hash: str,
        source: str,
        at: datetime,
        *,
        by: str | None = None,
        detail: Mapping[str, Scalar] | None = None,
    ) -> bool:
        """Put a snapshot in force and record it, durably; False when it is the latest already."""

    def load(self, content_hash: str) -> bytes:
        """Return an encoded snapshot; raises NotFound."""

    def in_force_since(self, content_hash: str) -> datetime | None:
        """Return when a snapshot last came into force, or None."""

    def latest(self) -> bytes | None:
        """Return the one put in force last, or None."""


class PolicySource(Protocol):
    """Where the policy text lives."""

    @property
    def name(self) -> str:
        """Return the file or directory as the user named it."""

    def fingerprint(self) -> object:
        """Return a value that changes when a file is added, removed or written; cheap, no reading."""

    def actor(self) -> Actor:
        """Return who is taken for the author of the text: the owner of the file."""

    def read(self) -> Mapping[str, bytes]:
        """Return the content of each file by its shown name; raises InputError when it cannot be read."""


class PolicyRules(Protocol):
    """Parsing and testing a policy, supplied by the pure rooms."""

    def parse(self, files: Mapping[str, bytes]) -> Snapshot:
        """Return the snapshot, or raise PolicyError with every problem."""

    def failed_tests(self, snapshot: Snapshot) -> list[Problem]:
        """Run the policy's own tests; return one problem per failed test."""
