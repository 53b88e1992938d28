# SPDX-License-Identifier: Apache-2.0
"""Asking a witness to cosign: what is sent, and what its answers mean (c2sp.org/tlog-witness).  No IO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from everyhop.auditlog.checkpointing import nodes_of
from everyhop.core.errors import Conflict, InputError, ProofError, Unavailable
from everyhop.tlog import (
    AddCheckpoint,
    Note,
    Status,
    consistency_proof,
    parse_checkpoint,
    parse_signatures,
    parse_size,
)

if TYPE_CHECKING:
    from everyhop.auditlog.checkpoints import StoredCheckpoint
    from everyhop.auditlog.ports import LogTree
    from everyhop.tlog import CosignerKey, Signature

_OK = 200


@dataclass(slots=True)
class WitnessDialogue:
    """What is known of one witness: its key, and the size that it cosigned last, as far as it said."""

    key: CosignerKey
    size: int = 0

    def request(self, tree: LogTree, checkpoint: StoredCheckpoint) -> bytes:
        """Return the body that asks for a cosignature.

        Raises Conflict when the witness has cosigned more than there is: then this log was taken back.
        """
        if self.size > checkpoint.size:
            raise Conflict(
                f"the witness {self.key.name} has cosigned {self.size} records of this log, which has"
                f" {checkpoint.size}: it was taken back",
                hint="everyhop log verify",
            )
        proof = consistency_proof(self.size, checkpoint.size, nodes_of(tree, checkpoint.size))
        parsed, note = parse_checkpoint(checkpoint.note.encode())
        own = Note(text=note.text, signatures=tuple(s for s in note.signatures if s.name == parsed.origin))
        return AddCheckpoint(old=self.size, proof=tuple(proof), checkpoint=parsed, note=own).encode()

    def answer(self, checkpoint: StoredCheckpoint, status: int, body: bytes) -> tuple[Signature, ...] | None:
        """Return the cosignatures of an answer; None when the same is to be asked again, from another size.

        Raises Unavailable for an answer that helps nobody, Conflict when the witness knows another history.
        """
        if status == _OK:
            return self._cosigned(checkpoint, body)
        if status == Status.CONFLICT:
            try:
                size = parse_size(body)
            except InputError as error:
                raise Unavailable(f"the witness {self.key.name} does not say which size it has") from error
            if size == self.size:
                raise Unavailable(f"the witness {self.key.name} refuses the size that it names")
            self.size = size
            return None
        if status == Status.UNPROCESSABLE:
            raise Conflict(
                f"the witness {self.key.name} has cosigned {self.size} records that are not the beginning of this log",
                hint="one of two histories was rewritten: compare its checkpoint with everyhop log verify --against",
            )
        raise Unavailable(f"the witness {self.key.name} answers {status}")

    def _cosigned(self, checkpoint: StoredCheckpoint, body: bytes) -> tuple[Signature, ...]:
        try:
            lines = parse_signatures(body.decode("utf-8"))
            text = parse_checkpoint(checkpoint.note.encode())[1].text
            Note(text=text, signatures=lines).signed_by([self.key])
        except (InputError, ProofError, UnicodeDecodeError) as error:
            raise Unavailable(
                f"the witness {self.key.name} answers with no cosignature of its own"
            ) from error
        self.size = checkpoint.size
        return tuple(s for s in lines if (s.name, s.key_id) == (self.key.name, self.key.key_id))
