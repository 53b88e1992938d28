# SPDX-License-Identifier: Apache-2.0
"""What verifying a log found: faults told apart, each with the first place where it shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Fault(StrEnum):
    """What is wrong with a log."""

    ALTERED = "altered"  # a line is not the one that was sealed
    COLUMNS = "columns"  # what a record is found by says something else than its line
    MISSING = "missing"  # a record is gone
    REORDERED = "reordered"  # records stand in each other's places
    INSERTED = "inserted"  # a record that was never sealed
    TREE = "tree"  # the stored tree contradicts itself
    TRUNCATED = "truncated"  # the end is gone, and what is left says so
    RESTORED = "restored"  # an older state, in order by itself
    REWRITTEN = "rewritten"  # in order by itself, and not what was signed for
    FORK = "fork"  # the key signed for two histories
    FORGED = "forged"  # a checkpoint names the log's key, which did not sign it


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fault.

    ``index`` is the first bad leaf, from 0 (the record of place ``index + 1``), None where no place can be named;
    ``last`` the last one it can concern.  ``count`` says how many places show it.  ``evidence`` holds signed
    checkpoints, whole, which prove it to others.
    """

    fault: Fault
    message: str
    index: int | None = None
    last: int | None = None
    count: int = 1
    evidence: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "fault": self.fault.value,
            "message": self.message,
            "index": self.index,
            "last": self.last,
            "count": self.count,
            "evidence": list(self.evidence),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was looked at and what was found.

    ``signed`` is the size of the largest checkpoint that a trusted key signed and the log contains; what comes behind
    it is in order by itself only.  ``unverified`` says why something could not be judged.
    """

    origin: str | None
    size: int
    root: bytes | None
    signed: int
    first_kept: int = 0
    findings: tuple[Finding, ...] = ()
    unverified: tuple[str, ...] = ()
    checkpoints: int = 0
    witnesses: tuple[str, ...] = field(default=())

    @property
    def outcome(self) -> str:
        """Return ``intact``, ``tampered`` or ``unverified``; a fault that was found counts more than one that was not."""
        if self.findings:
            return "tampered"
        return "unverified" if self.unverified else "intact"

    @property
    def first_bad(self) -> int | None:
        """Return the first bad leaf of all findings, None where none names a place."""
        return min((f.index for f in self.findings if f.index is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "outcome": self.outcome,
            "origin": self.origin,
            "size": self.size,
            "root": None if self.root is None else self.root.hex(),
            "signed": self.signed,
            "first_kept": self.first_kept,
            "checkpoints": self.checkpoints,
            "witnesses": list(self.witnesses),
            "first_bad": self.first_bad,
            "findings": [finding.to_dict() for finding in self.findings],
            "unverified": list(self.unverified),
        }
