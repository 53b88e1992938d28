# SPDX-License-Identifier: Apache-2.0
"""Transparency logs as C2SP writes them down: trees, tiles, signed notes, proofs, the witness protocol.  Pure."""

from everyhop.tlog.checkpoint import Checkpoint, SignedCheckpoint, open_checkpoint, parse_checkpoint
from everyhop.tlog.cosignature import Cosigner, CosignerKey, time_of
from everyhop.tlog.keys import SignerKey, VerifierKey
from everyhop.tlog.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    Frontier,
    NodeReader,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    split_hashes,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from everyhop.tlog.note import Note, Signature, Signer, Verifier, parse_note, parse_signatures, sign_note
from everyhop.tlog.proof import LeafProof, verify_proof
from everyhop.tlog.tiles import (
    MAX_ENTRY_BYTES,
    Tile,
    TileNodes,
    bundles_of,
    encode_bundle,
    read_bundle,
    read_tile,
    root_of,
    tiles_of,
    width_of,
)
from everyhop.tlog.witness import AddCheckpoint, RefusedError, Status, judge, parse_size

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "MAX_ENTRY_BYTES",
    "AddCheckpoint",
    "Checkpoint",
    "Cosigner",
    "CosignerKey",
    "Frontier",
    "LeafProof",
    "NodeReader",
    "Note",
    "RefusedError",
    "Signature",
    "SignedCheckpoint",
    "Signer",
    "SignerKey",
    "Status",
    "Tile",
    "TileNodes",
    "Verifier",
    "VerifierKey",
    "bundles_of",
    "consistency_proof",
    "encode_bundle",
    "inclusion_proof",
    "judge",
    "leaf_hash",
    "node_hash",
    "open_checkpoint",
    "parse_checkpoint",
    "parse_note",
    "parse_signatures",
    "parse_size",
    "read_bundle",
    "read_tile",
    "root_of",
    "sign_note",
    "split_hashes",
    "tiles_of",
    "time_of",
    "tree_root",
    "verify_consistency",
    "verify_inclusion",
    "verify_proof",
    "width_of",
]
