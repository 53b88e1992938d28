# SPDX-License-Identifier: Apache-2.0
"""Proofs that travel: whole or refused, and worth nothing for another leaf, index or log."""

import dataclasses

import pytest

from everyhop.core.errors import InputError, ProofError, TrustError
from everyhop.core.secret import Secret
from everyhop.tlog.checkpoint import Checkpoint
from everyhop.tlog.encoding import encode_base64
from everyhop.tlog.keys import SignerKey
from everyhop.tlog.merkle import leaf_hash, node_hash
from everyhop.tlog.note import sign_note
from everyhop.tlog.proof import HEADER, MAX_EXTRA_BYTES, MAX_PROOF_BYTES, LeafProof, verify_proof

KEY = SignerKey("example.com/fancylog", Secret(b"k" * 32))
LEAVES = [leaf_hash(b"a"), leaf_hash(b"b"), leaf_hash(b"c")]
PAIR = node_hash(LEAVES[0], LEAVES[1])
ROOT = node_hash(PAIR, LEAVES[2])
NOTE = sign_note(Checkpoint(origin=KEY.name, size=3, root=ROOT).text, [KEY]).encode().encode()
PROOF = LeafProof(index=1, hashes=(LEAVES[0], LEAVES[2]), note=NOTE, extra=b"b")
HASH = encode_base64(LEAVES[0])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        NOTE,
        b"\n\n" + NOTE,
        f"{HEADER}\n\n".encode() + NOTE,
        f"{HEADER}\nindex\n\n".encode() + NOTE,
        f"{HEADER}\nindex 01\n\n".encode() + NOTE,
        f"{HEADER}\nindex -1\n\n".encode() + NOTE,
        f"{HEADER}\nindex 1\r\n\n".encode() + NOTE,
        f"{HEADER}\n index 1\n\n".encode() + NOTE,
        f"{HEADER}\n{HASH}\n\n".encode() + NOTE,
        f"{HEADER} \nindex 1\n\n".encode() + NOTE,
        f"{HEADER.replace('1', '2')}\nindex 1\n\n".encode() + NOTE,
        f"{HEADER}\nextra\nindex 1\n\n".encode() + NOTE,
        f"{HEADER}\nextra YQ\nindex 1\n\n".encode() + NOTE,
        f"{HEADER}\nextra YQ==\nextra YQ==\nindex 1\n\n".encode() + NOTE,
        f"{HEADER}\nindex 1\nextra YQ==\n\n".encode() + NOTE,
        f"{HEADER}\nindex 1\nAAAA\n\n".encode() + NOTE,
        f"{HEADER}\nindex 1\n{HASH} \n\n".encode() + NOTE,
        (f"{HEADER}\nindex 1\n" + f"{HASH}\n" * 64 + "\n").encode() + NOTE,
        f"{HEADER}\nindex 1\n{HASH}\n".encode(),
        f"{HEADER}\nindex 1\né\n\n".encode() + NOTE,
        b"x" * (MAX_PROOF_BYTES + 1),
    ],
)
def test_bytes_that_are_no_proof(data):
    with pytest.raises(InputError):
        LeafProof.parse(data)


@pytest.mark.parametrize(
    "members",
    [
        {"index": -1},
        {"index": 2**63},
        {"hashes": (b"",)},
        {"hashes": (ROOT,) * 64},
        {"extra": bytes(MAX_EXTRA_BYTES + 1)},
    ],
)
def test_proofs_without_a_text(members):
    with pytest.raises(InputError):
        dataclasses.replace(PROOF, **members)


@pytest.mark.parametrize(
    "members",
    [
        {"index": 0},
        {"index": 2},
        {"index": 3},
        {"hashes": ()},
        {"hashes": PROOF.hashes[::-1]},
        {"hashes": (*PROOF.hashes, ROOT)},
        {"note": NOTE.replace(b"\n3\n", b"\n4\n")},
        {"note": NOTE[:-1]},
        {"note": b""},
        {"note": NOTE.replace(b"fancylog\n", b"otherlog\n", 1)},
    ],
)
def test_a_proof_that_was_changed(members):
    with pytest.raises((TrustError, InputError)):
        verify_proof(dataclasses.replace(PROOF, **members), leaf_hash(b"b"), [KEY.verifier])


def test_another_leaf_and_a_log_that_is_not_known():
    with pytest.raises(ProofError):
        verify_proof(PROOF, leaf_hash(b"x"), [KEY.verifier])
    with pytest.raises(ProofError):
        verify_proof(PROOF, leaf_hash(b"b"), [SignerKey(KEY.name, Secret(b"o" * 32)).verifier])


@pytest.mark.parametrize("extra", [None, b"", b"b", bytes(MAX_EXTRA_BYTES)])
def test_a_proof_comes_back_and_holds(extra):
    proof = dataclasses.replace(PROOF, extra=extra)
    read = LeafProof.parse(proof.encode())
    assert read == proof
    signed = verify_proof(read, leaf_hash(b"b"), [KEY.verifier])
    assert signed.checkpoint.size == 3


def test_a_log_of_one_needs_no_hashes():
    note = sign_note(Checkpoint(origin=KEY.name, size=1, root=LEAVES[0]).text, [KEY]).encode().encode()
    proof = LeafProof.parse(LeafProof(index=0, hashes=(), note=note).encode())
    verify_proof(proof, LEAVES[0], [KEY.verifier])
