# SPDX-License-Identifier: Apache-2.0
"""Keys of notes: one spelling, one type, and nothing of a private key in an error."""

import pytest

from everyhop.core.errors import InputError, ProofError
from everyhop.core.secret import Secret
from everyhop.tlog.cosignature import CosignerKey
from everyhop.tlog.encoding import encode_base64
from everyhop.tlog.keys import SignerKey, VerifierKey

NAME = "example.com/log"
KEY = SignerKey(NAME, Secret(bytes(range(32))))
VKEY = str(KEY.verifier)
SKEY = KEY.encode().reveal().decode()
NAME_PART, ID_PART, KEY_PART = VKEY.split("+", 2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "++",
        NAME,
        f"{NAME}+{ID_PART}",
        f"{NAME}+{ID_PART}+",
        f"{NAME}+{ID_PART.upper()}0+{KEY_PART}",
        f"{NAME}+00000000+{KEY_PART}",
        f"{NAME}+{int(ID_PART, 16):X}+{KEY_PART}".replace(ID_PART, "x"),
        f"example.com/lag+{ID_PART}+{KEY_PART}",
        f"+{ID_PART}+{KEY_PART}",
        f"a b+{ID_PART}+{KEY_PART}",
        f"{VKEY} ",
        f"{VKEY}\n",
        f"{VKEY}=",
        f"{NAME}+{ID_PART}+{encode_base64(b'')}",
        f"{NAME}+{ID_PART}+{encode_base64(bytes([1]) + bytes(31))}",
        f"{NAME}+{ID_PART}+{encode_base64(bytes([1]) + bytes(33))}",
        f"{NAME}+{ID_PART}+{encode_base64(bytes([2]) + KEY.verifier.public)}",
        str(CosignerKey(NAME, KEY.verifier.public)),
        VKEY + "A" * 2000,
        SKEY,
    ],
)
def test_what_is_no_verifier_key(text):
    with pytest.raises(InputError):
        VerifierKey.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        VKEY.encode(),
        b"PRIVATE+KEY+",
        SKEY.encode()[1:],
        SKEY.encode() + b"\n",
        SKEY.encode() + b"\xff",
        SKEY.replace(ID_PART, "00000000").encode(),
        SKEY.replace(NAME, "example.com/lag").encode(),
        f"PRIVATE+KEY+{NAME}+{ID_PART}+{encode_base64(bytes([1]) + bytes(31))}".encode(),
        f"PRIVATE+KEY+{NAME}+{ID_PART}+{encode_base64(bytes([4]) + bytes(range(32)))}".encode(),
        SKEY.encode() + b"A" * 2000,
    ],
)
def test_what_is_no_signer_key(text):
    with pytest.raises(InputError) as refused:
        SignerKey.parse(Secret(text))
    secret_part = SKEY.rpartition("+")[2]
    assert secret_part not in str(refused.value)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\tb", "a\0b", "x" * 256, "\ud800", "é" * 128])
def test_names_that_name_no_key(name):
    with pytest.raises(InputError):
        VerifierKey(name, bytes(32))


def test_a_signature_is_for_one_text_and_one_key():
    signature = KEY.sign("x\n")
    KEY.verifier.verify("x\n", signature)
    other = SignerKey(NAME, Secret(bytes(32)))
    for verifier, text, given in [
        (KEY.verifier, "y\n", signature),
        (KEY.verifier, "x\n", signature[:-1]),
        (KEY.verifier, "x\n", signature + b"\0"),
        (KEY.verifier, "x\n", b""),
        (KEY.verifier, "x\n", bytes(64)),
        (other.verifier, "x\n", signature),
        (VerifierKey(NAME, b"\xff" * 32), "x\n", signature),
    ]:
        with pytest.raises(ProofError):
            verifier.verify(text, given)


def test_keys_come_back():
    assert VerifierKey.parse(VKEY) == KEY.verifier
    read = SignerKey.parse(Secret(SKEY.encode()))
    assert (read.name, read.key_id, read.sign("x\n")) == (NAME, KEY.key_id, KEY.sign("x\n"))
    assert SKEY not in repr(KEY)


def test_a_seed_has_32_bytes():
    with pytest.raises(InputError):
        SignerKey(NAME, Secret(bytes(31)))
