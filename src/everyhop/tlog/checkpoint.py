# SPDX-License-Identifier: Apache-2.0
"""Checkpoints (c2sp.org/tlog-checkpoint): the size and root of a log, as the text of a signed note."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from everyhop.core.errors import InputError, ProofError
from everyhop.tlog.encoding import MAX_NAME_BYTES, decode_hash, decode_number, encode_base64, is_text
from everyhop.tlog.merkle import HASH_BYTES, MAX_SIZE
from everyhop.tlog.note import Note, Verifier, parse_note

_LINES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The head of a log: of the first ``size`` leaves of ``origin``, the tree has this ``root`` (32 bytes)."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what has no text; raises InputError."""
        origin_bytes = len(self.origin.encode("utf-8", "surrogatepass"))
        if not 0 < origin_bytes <= MAX_NAME_BYTES or not 0 <= self.size <= MAX_SIZE:
            raise InputError("a checkpoint has an origin of 1 to 255 bytes and a size of 0 to 2^63 - 1")
        if len(self.root) != HASH_BYTES or not all(
            _is_line(line) for line in (self.origin, *self.extensions)
        ):
            raise InputError("a checkpoint has a root of 32 bytes, and lines without control characters")

    @property
    def text(self) -> str:
        """Return the text that is signed, with its last newline."""
        lines = (self.origin, str(self.size), encode_base64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of a note.  Raises InputError for one that is no checkpoint's."""
        lines = text.split("\n")
        if lines.pop() or len(lines) < _LINES:
            raise InputError("a checkpoint is an origin, a size and a root, a line each")
        return cls(
            origin=lines[0],
            size=decode_number(lines[1]),
            root=decode_hash(lines[2]),
            extensions=tuple(lines[_LINES:]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCheckpoint:
    """A checkpoint that a known key of its log has signed; ``keys`` are the ids of those that did, as hex."""

    checkpoint: Checkpoint
    note: Note
    keys: tuple[str, ...]


def parse_checkpoint(data: bytes) -> tuple[Checkpoint, Note]:
    """Read a checkpoint that nobody vouches for yet.  Raises InputError."""
    note = parse_note(data)
    return Checkpoint.parse(note.text), note


def open_checkpoint(data: bytes, verifiers: Iterable[Verifier]) -> SignedCheckpoint:
    """Read a checkpoint and check that its log signed it.

    The name of a key is the origin it may sign for, so the key of one log never vouches for another.  Raises
    InputError for bytes that are no checkpoint; ProofError when no known key of its origin signed, or one is named
    that did not.
    """
    checkpoint, note = parse_checkpoint(data)
    own = [verifier for verifier in verifiers if verifier.name == checkpoint.origin]
    if not own:
        raise ProofError(f"no key is known for the log {checkpoint.origin}")
    signed = note.signed_by(own)
    return SignedCheckpoint(
        checkpoint=checkpoint, note=note, keys=tuple(verifier.key_id.hex() for verifier, _ in signed)
    )


def _is_line(line: str) -> bool:
    return bool(line) and all(is_text(c) for c in line)
