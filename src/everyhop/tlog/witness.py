# SPDX-License-Identifier: Apache-2.0
"""The witness protocol (c2sp.org/tlog-witness): the message ``add-checkpoint``, and the rules by which it is judged.

:func:`judge` is pure.  Who calls it holds a lock from before it reads the last checkpoint until the new one is on the
disk: otherwise two requests at a time could take the witness back.  ``sign-subtree``, which is optional, is not
implemented.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from everyhop.core.errors import InputError, ProofError
from everyhop.tlog.checkpoint import Checkpoint, parse_checkpoint
from everyhop.tlog.encoding import decode_hash, decode_number, encode_base64
from everyhop.tlog.merkle import EMPTY_ROOT, MAX_PROOF, verify_consistency
from everyhop.tlog.note import MAX_NOTE_BYTES, Note, Verifier

PATH: Final = "/add-checkpoint"
SIZE_TYPE: Final = "text/x.tlog.size"
MAX_REQUEST_BYTES: Final = MAX_NOTE_BYTES + 64 * (MAX_PROOF + 2)
_OLD: Final = "old "


class Status(IntEnum):
    """Answers of a witness that are no cosignature; the value is the HTTP status."""

    BAD_REQUEST = 400  # cannot be read, or an old size larger than the new one
    FORBIDDEN = 403  # not signed by a key that is trusted for this log
    NOT_FOUND = 404  # a log that this witness does not know
    CONFLICT = 409  # the old size is not the last one that was cosigned
    UNPROCESSABLE = 422  # not consistent with the last one


class RefusedError(Exception):
    """A request that is not cosigned.

    ``size`` is the last size that was cosigned where the status is CONFLICT.  ``evidence`` tells that the log has
    signed something that does not follow from what it signed before: worth keeping.
    """

    def __init__(
        self, status: Status, message: str, *, size: int | None = None, evidence: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.size = size
        self.evidence = evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCheckpoint:
    """A request: the checkpoint, the size that the sender thinks the witness has, and the proof between both."""

    old: int
    proof: tuple[bytes, ...]
    checkpoint: Checkpoint
    note: Note

    def encode(self) -> bytes:
        """Return the body of the request."""
        lines = [f"{_OLD}{self.old}", *(encode_base64(value) for value in self.proof), ""]
        return ("".join(f"{line}\n" for line in lines) + self.note.encode()).encode()

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read the body of a request.  Raises InputError."""
        if len(body) > MAX_REQUEST_BYTES:
            raise InputError(f"a request has at most {MAX_REQUEST_BYTES} bytes")
        head, divider, rest = body.partition(b"\n\n")
        try:
            old, *proof = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise InputError("not a request to add a checkpoint") from error
        if not divider or not old.startswith(_OLD) or len(proof) > MAX_PROOF:
            raise InputError("a request is an old size, at most 63 hashes, an empty line and a checkpoint")
        checkpoint, note = parse_checkpoint(rest)
        return cls(
            old=decode_number(old.removeprefix(_OLD)),
            proof=tuple(decode_hash(line) for line in proof),
            checkpoint=checkpoint,
            note=note,
        )


def judge(
    request: AddCheckpoint, *, logs: Mapping[str, Sequence[Verifier]], last: Checkpoint | None
) -> Checkpoint:
    """Return the checkpoint to be cosigned.

    ``logs`` are the keys of each log that the witness knows, by origin; ``last`` is what it cosigned last for this
    origin.  Raises RefusedError, whose status is the first that the protocol names for the request.
    """
    checkpoint = request.checkpoint
    if checkpoint.origin not in logs:
        raise RefusedError(Status.NOT_FOUND, "this witness does not know the log")
    try:
        request.note.signed_by(logs[checkpoint.origin])
    except ProofError as error:
        raise RefusedError(Status.FORBIDDEN, error.message) from error
    if request.old > checkpoint.size:
        raise RefusedError(Status.BAD_REQUEST, "the old size is larger than that of the checkpoint")
    size, root = (0, EMPTY_ROOT) if last is None else (last.size, last.root)
    if request.old != size:
        raise RefusedError(Status.CONFLICT, f"the last size that was cosigned is {size}", size=size)
    try:
        verify_consistency(size, root, checkpoint.size, checkpoint.root, request.proof)
    except ProofError as error:
        # Two roots of one size are proof that the log has two histories; a bad proof may be its sender's mistake.
        forked = size == checkpoint.size and root != checkpoint.root
        raise RefusedError(Status.UNPROCESSABLE, error.message, evidence=forked) from error
    return checkpoint


def parse_size(body: bytes) -> int:
    """Read the size in an answer 409.  Raises InputError."""
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError as error:
        raise InputError("not a size") from error
    if not text.endswith("\n"):
        raise InputError("a size is a number and a newline")
    return decode_number(text[:-1])
