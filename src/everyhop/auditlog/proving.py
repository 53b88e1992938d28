# SPDX-License-Identifier: Apache-2.0
"""Receipts: one record with the proof that it is in the log, for whoever has nothing but the log's public key.

A receipt is a ``.tlog-proof`` (c2sp.org/tlog-proof) whose extra line is the record's own line, which is the leaf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from everyhop.auditlog.checkpointing import nodes_of
from everyhop.auditlog.codec import decode_record
from everyhop.core.errors import InputError, NotFound, ProofError, Unavailable
from everyhop.tlog import Checkpoint, LeafProof, inclusion_proof, leaf_hash, verify_inclusion, verify_proof

if TYPE_CHECKING:
    from everyhop.auditlog.model import Record
    from everyhop.auditlog.ports import LogTree
    from everyhop.tlog import Verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """A record that is in a log: its index, the checkpoint that says so, and the witnesses that cosigned that."""

    record: Record
    index: int
    checkpoint: Checkpoint
    witnesses: tuple[str, ...]


def make_receipt(tree: LogTree, record_id: str, origin: str) -> LeafProof:
    """Return the receipt of a record, against the newest checkpoint of ``origin``.

    Raises NotFound for a record that is not there, Unavailable for one that is not signed for yet, ProofError when
    the stored tree does not prove it: then the log was altered.
    """
    index = tree.index_of(record_id)
    newest = tree.latest_checkpoint(origin)
    if newest is None or newest.size <= index:
        raise Unavailable(
            "the record is not signed for yet", hint="a second later it is, while the server runs"
        )
    (line,) = next(iter(tree.lines(index, index + 1)))
    if line is None:
        raise NotFound(f"there is no record {record_id[:80]}")
    hashes = inclusion_proof(index, newest.size, nodes_of(tree, newest.size))
    try:
        verify_inclusion(leaf_hash(line), index, newest.size, newest.root, hashes)
    except ProofError as error:
        raise ProofError(
            f"the log was altered: record {index + 1} does not follow from what was signed",
            hint="everyhop log verify",
        ) from error
    return LeafProof(index=index, hashes=tuple(hashes), note=newest.note.encode(), extra=line)


def verify_receipt(data: bytes, *, trusted: Sequence[Verifier], witnesses: Sequence[Verifier] = ()) -> Proven:
    """Check a receipt and return what it proves.

    Raises InputError for bytes that are no receipt, ProofError when it does not prove its record by a trusted key.
    """
    proof = LeafProof.parse(data)
    if proof.extra is None:
        raise InputError("the proof does not hold the record that it is about")
    signed = verify_proof(proof, leaf_hash(proof.extra), trusted)
    cosigned: tuple[str, ...] = ()
    if witnesses:
        try:
            cosigned = tuple(verifier.name for verifier, _ in signed.note.signed_by(witnesses))
        except ProofError as error:
            if any(
                (s.name, s.key_id) in {(w.name, w.key_id) for w in witnesses} for s in signed.note.signatures
            ):
                raise ProofError("a witness is named that did not cosign") from error
    return Proven(
        record=decode_record(proof.extra), index=proof.index, checkpoint=signed.checkpoint, witnesses=cosigned
    )
