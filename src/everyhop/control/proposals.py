# SPDX-License-Identifier: Apache-2.0
"""Who changes the policy, what is held back, and the rules by which it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from everyhop.auditlog.model import Event


class Origin(StrEnum):
    """By which way a policy comes."""

    FILE = "file"  # the watched file, or the text at the start
    COMMAND = "command"  # somebody at the owner's door


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who changes something: the uid that the kernel names, or the owner of the watched file; None where it is not known."""

    origin: Origin
    uid: int | None = None

    @property
    def name(self) -> str:
        """Return it as records show it."""
        who = "unknown" if self.uid is None else f"uid:{self.uid}"
        return f"file:{who}" if self.origin is Origin.FILE else who


UNKNOWN_FILE = Actor(origin=Origin.FILE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRules:
    """Which changes are held back: a wider text that comes by file, and what nobody else has approved."""

    confirm_wider: bool = False
    two_person: bool = False

    @property
    def is_guarded(self) -> bool:
        """Tell whether a text that comes by file is looked at before it is put in force."""
        return self.confirm_wider or self.two_person


class Proposal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy that waits for approval: ``document`` is what ``encode_snapshot`` gave, ``base`` the hash in force then."""

    hash: str
    base: str
    source: str
    proposer: str
    uid: int | None
    at: str
    summary: str
    counts: dict[str, int]
    document: bytes

    def to_dict(self) -> dict[str, Any]:
        """Return what status shows."""
        return {
            "snapshot": self.hash,
            "base": self.base,
            "source": self.source,
            "proposer": self.proposer,
            "at": self.at,
            "summary": self.summary,
            "counts": self.counts,
        }


class ProposalStore(Protocol):
    """The one proposal that waits.  Each change is written together with its record."""

    def get(self) -> bytes | None:
        """Return it, encoded, or None."""

    def put(self, proposal: bytes, event: Event) -> None:
        """Let a proposal wait, in place of one that may be there."""

    def clear(self, event: Event | None) -> None:
        """Let none wait."""

    def note(self, event: Event) -> None:
        """Record something that changes nothing, such as a refusal."""


def encode(proposal: Proposal) -> bytes:
    """Return a proposal as bytes for a store."""
    return msgspec.json.encode(proposal)


def decode(content: bytes) -> Proposal:
    """Return a proposal from a store; raises msgspec.MsgspecError for anything else."""
    return msgspec.json.decode(content, type=Proposal)
