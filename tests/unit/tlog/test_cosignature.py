# SPDX-License-Identifier: Apache-2.0
"""Cosignatures: the time is signed with the text, and a witness's key signs nothing else."""

import pytest

from everyhop.core.errors import InputError, ProofError
from everyhop.core.secret import Secret
from everyhop.tlog.checkpoint import Checkpoint
from everyhop.tlog.cosignature import Cosigner, CosignerKey, time_of
from everyhop.tlog.keys import SignerKey, VerifierKey
from everyhop.tlog.note import Note, sign_note

TEXT = Checkpoint(origin="example.com/log", size=3, root=bytes(32)).text
KEY = SignerKey("witness.example/w1", Secret(b"w" * 32))
WITNESS = Cosigner(KEY)


def test_another_time_text_or_key_is_not_cosigned():
    made = WITNESS.cosign(TEXT, time=1_679_315_147).signature
    WITNESS.verifier.verify(TEXT, made)
    later = (1_679_315_148).to_bytes(8, "big") + made[8:]
    for text, signature in [
        (TEXT, later),
        (TEXT + "x\n", made),
        (TEXT, made[:-1]),
        (TEXT, made + b"\0"),
        (TEXT, bytes(8) + made[8:]),
        (TEXT, b"\xff" * 8 + made[8:]),
        (TEXT, b""),
        (TEXT, made[8:]),
    ]:
        with pytest.raises(ProofError):
            WITNESS.verifier.verify(text, signature)
    with pytest.raises(ProofError):
        Cosigner(SignerKey(KEY.name, Secret(b"x" * 32))).verifier.verify(TEXT, made)


def test_a_plain_signature_is_no_cosignature_and_the_other_way_round():
    plain = sign_note(TEXT, [KEY])
    cosigned = Note(text=TEXT, signatures=(WITNESS.cosign(TEXT, time=5),))
    with pytest.raises(ProofError):
        plain.signed_by([WITNESS.verifier])
    with pytest.raises(ProofError):
        cosigned.signed_by([KEY.verifier])
    assert KEY.key_id != WITNESS.verifier.key_id


@pytest.mark.parametrize("time", [0, -1, 2**63])
def test_times_that_no_cosignature_has(time):
    with pytest.raises(InputError):
        WITNESS.cosign(TEXT, time=time)


def test_the_vkey_of_a_witness_is_of_its_own_type():
    text = str(WITNESS.verifier)
    assert CosignerKey.parse(text) == WITNESS.verifier
    for kind, other in ((VerifierKey, text), (CosignerKey, str(KEY.verifier))):
        with pytest.raises(InputError):
            kind.parse(other)


def test_the_message_is_the_one_of_the_specification():
    signature = WITNESS.cosign(TEXT, time=1_679_315_147)
    assert signature.signature[8:] == KEY.sign_bytes(b"cosignature/v1\ntime 1679315147\n" + TEXT.encode())
    assert time_of(signature.signature) == 1_679_315_147
