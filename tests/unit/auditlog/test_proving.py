# SPDX-License-Identifier: Apache-2.0
"""Receipts: made from a real database, believed without it, and worth nothing once anything in them changed."""

import dataclasses

import pytest
from tests.support.sealed_log import SealedLog

from everyhop.auditlog.proving import make_receipt, verify_receipt
from everyhop.core.errors import InputError, NotFound, ProofError, Unavailable
from everyhop.core.secret import Secret
from everyhop.tlog import Cosigner, LeafProof, Signature, SignerKey, parse_note

WITNESS = Cosigner(SignerKey("witness.example/w1", Secret(b"w" * 32)))


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    root = tmp_path_factory.mktemp("log")
    root.chmod(0o700)
    made = SealedLog(root)
    made.append(700)
    made.sign()
    yield made
    made.close()


def receipt(log, name="agent-300"):
    return make_receipt(log.storage.log_tree, name, log.signer.origin)


def test_a_receipt_that_was_changed_proves_nothing(log):
    proof = receipt(log)
    trusted = log.signer.verifiers
    line = proof.extra.replace(b'"allow[', b'"allow]')
    other = receipt(log, "agent-301")
    for changed in (
        dataclasses.replace(proof, extra=line),
        dataclasses.replace(proof, extra=other.extra),
        dataclasses.replace(proof, index=300),
        dataclasses.replace(proof, hashes=proof.hashes[:-1]),
        dataclasses.replace(proof, note=proof.note.replace(b"\n700\n", b"\n701\n")),
    ):
        with pytest.raises(ProofError):
            verify_receipt(changed.encode(), trusted=trusted)
    with pytest.raises(ProofError):
        verify_receipt(proof.encode(), trusted=[SignerKey(log.signer.origin, Secret(b"x" * 32)).verifier])
    with pytest.raises(ProofError):
        verify_receipt(proof.encode(), trusted=[])


@pytest.mark.parametrize("data", [b"", b"c2sp.org/tlog-proof@v1\n", b"\xff"])
def test_bytes_that_are_no_receipt(log, data):
    with pytest.raises(InputError):
        verify_receipt(data, trusted=log.signer.verifiers)


def test_a_proof_without_its_record(log):
    with pytest.raises(InputError, match="does not hold the record"):
        verify_receipt(dataclasses.replace(receipt(log), extra=None).encode(), trusted=log.signer.verifiers)


def test_no_receipt_of_what_is_not_there_or_not_signed_for(log):
    with pytest.raises(NotFound):
        receipt(log, "nobody")
    with pytest.raises(Unavailable, match="not signed for yet"):
        make_receipt(log.storage.log_tree, "agent-300", "another/origin")
    log.append(1, producer="late")
    with pytest.raises(Unavailable, match="not signed for yet"):
        receipt(log, "late-1")


def test_no_receipt_is_made_of_an_altered_log(log):
    log.execute("UPDATE records SET line = CAST(replace(line, 'agent', 'other') AS BLOB) WHERE n = 5")
    with pytest.raises(ProofError, match="record 5"):
        receipt(log, "agent-5")


def test_no_receipt_of_a_record_that_goes_in_this_moment(log):
    class Going:
        index_of = log.storage.log_tree.index_of
        latest_checkpoint = log.storage.log_tree.latest_checkpoint

        def lines(self, start, end):
            yield [None] * (end - start)

    with pytest.raises(NotFound):
        make_receipt(Going(), "agent-300", log.signer.origin)


def test_a_receipt_is_all_that_is_needed(log):
    data = receipt(log).encode()
    proven = verify_receipt(data, trusted=log.signer.verifiers)
    assert (proven.record.id, proven.index, proven.checkpoint.size) == ("agent-300", 299, 700)
    assert proven.witnesses == ()
    assert LeafProof.parse(data).encode() == data


def test_witnesses_of_a_receipt(log):
    proof = receipt(log)
    note = parse_note(proof.note)
    cosigned = note.with_signatures([WITNESS.cosign(note.text, time=9)]).encode().encode()
    forged = Signature(name=WITNESS.verifier.name, key_id=WITNESS.verifier.key_id, signature=bytes(72))
    spoiled = note.with_signatures([forged]).encode().encode()
    ask = {"trusted": log.signer.verifiers, "witnesses": [WITNESS.verifier]}
    assert verify_receipt(dataclasses.replace(proof, note=cosigned).encode(), **ask).witnesses == (
        "witness.example/w1",
    )
    assert verify_receipt(proof.encode(), **ask).witnesses == ()
    with pytest.raises(ProofError, match="did not cosign"):
        verify_receipt(dataclasses.replace(proof, note=spoiled).encode(), **ask)
