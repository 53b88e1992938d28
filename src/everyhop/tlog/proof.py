# SPDX-License-Identifier: Apache-2.0
"""Proofs that travel (c2sp.org/tlog-proof): that one leaf is in a log, checked by whoever holds the log's public key.

The ``extra`` line carries what the verifier needs to compute the leaf.  It is authenticated by nothing but the proof
itself: only after :func:`verify_proof` of the leaf made from it does it count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from everyhop.core.errors import InputError
from everyhop.tlog.checkpoint import SignedCheckpoint, open_checkpoint
from everyhop.tlog.encoding import decode_base64, decode_hash, decode_number, encode_base64
from everyhop.tlog.merkle import HASH_BYTES, MAX_PROOF, MAX_SIZE, verify_inclusion
from everyhop.tlog.note import MAX_NOTE_BYTES, Verifier

HEADER: Final = "c2sp.org/tlog-proof@v1"
MAX_EXTRA_BYTES: Final = 64 * 1024
MAX_PROOF_BYTES: Final = MAX_NOTE_BYTES + 2 * MAX_EXTRA_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafProof:
    """An inclusion proof with the checkpoint it leads to, both unchecked; ``note`` is the checkpoint's bytes."""

    index: int
    hashes: tuple[bytes, ...]
    note: bytes
    extra: bytes | None = None

    def __post_init__(self) -> None:
        """Refuse what has no text; raises InputError."""
        if not 0 <= self.index <= MAX_SIZE or len(self.hashes) > MAX_PROOF:
            raise InputError(f"a proof has an index and at most {MAX_PROOF} hashes")
        if any(len(value) != HASH_BYTES for value in self.hashes) or len(self.extra or b"") > MAX_EXTRA_BYTES:
            raise InputError(f"a proof has hashes of {HASH_BYTES} bytes, and {MAX_EXTRA_BYTES} further bytes")

    def encode(self) -> bytes:
        """Return the file."""
        lines = [HEADER]
        if self.extra is not None:
            lines.append(f"extra {encode_base64(self.extra)}")
        lines.append(f"index {self.index}")
        lines += [encode_base64(value) for value in self.hashes]
        return "".join(f"{line}\n" for line in (*lines, "")).encode() + self.note

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a file.  Raises InputError for one that is no proof; the checkpoint in it is not read yet."""
        if len(data) > MAX_PROOF_BYTES:
            raise InputError(f"a proof has at most {MAX_PROOF_BYTES} bytes")
        head, divider, note = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise InputError("not a proof of a transparency log") from error
        if not divider or lines[0] != HEADER:
            raise InputError("not a proof of a transparency log", hint=f"its first line is {HEADER}")
        extra, rest = _extra(lines[1:])
        if not rest or not rest[0].startswith("index "):
            raise InputError("the proof does not say the index of its leaf")
        index = decode_number(rest[0].removeprefix("index "))
        return cls(index=index, hashes=tuple(map(decode_hash, rest[1:])), note=note, extra=extra)


def _extra(lines: Sequence[str]) -> tuple[bytes | None, Sequence[str]]:
    if lines and lines[0].startswith("extra "):
        return decode_base64(lines[0].removeprefix("extra ")), lines[1:]
    return None, lines


def verify_proof(proof: LeafProof, leaf: bytes, verifiers: Iterable[Verifier]) -> SignedCheckpoint:
    """Check that a log whose key is known has the leaf with this hash; return the checkpoint that says so.

    Raises InputError when the checkpoint cannot be read, ProofError when it is not signed by a known key or the leaf
    does not follow from it.
    """
    signed = open_checkpoint(proof.note, verifiers)
    verify_inclusion(leaf, proof.index, signed.checkpoint.size, signed.checkpoint.root, proof.hashes)
    return signed
