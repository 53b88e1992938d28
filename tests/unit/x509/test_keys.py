# SPDX-License-Identifier: Apache-2.0
"""Keys: only P-256, only unencrypted PKCS#8, and nothing of them in an error."""

import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from everyhop.core.errors import InputError
from everyhop.core.secret import Secret
from everyhop.x509 import (
    decode_private_key,
    decode_public_key,
    encode_private_key,
    encode_public_key,
    generate_private_key,
    key_identifier,
    private_key_to_pem,
)

DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM
PKCS8, SPKI = serialization.PrivateFormat.PKCS8, serialization.PublicFormat.SubjectPublicKeyInfo
PLAIN = serialization.NoEncryption()


def pkcs8(key, encryption=PLAIN):
    return key.private_bytes(DER, PKCS8, encryption)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\0" * 2000,
        pkcs8(ec.generate_private_key(ec.SECP384R1())),
        pkcs8(ec.generate_private_key(ec.SECP256K1())),
        pkcs8(ed25519.Ed25519PrivateKey.generate()),
        pkcs8(ec.generate_private_key(ec.SECP256R1()), serialization.BestAvailableEncryption(b"pw")),
        ec.generate_private_key(ec.SECP256R1()).private_bytes(PEM, PKCS8, PLAIN),
        pkcs8(ec.generate_private_key(ec.SECP256R1())) + b"\0",
        pkcs8(ec.generate_private_key(ec.SECP256R1()))[:-1],
    ],
    ids=["empty", "tag", "large", "p384", "k256", "ed25519", "encrypted", "pem", "trailing", "cut"],
)
def test_other_private_keys_are_refused_without_quoting_them(data):
    with pytest.raises(InputError) as caught:
        decode_private_key(Secret(data))
    assert caught.value.__cause__ is None


def test_other_public_keys_are_refused():
    weak = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    right = encode_public_key(generate_private_key().public_key())
    for data in (
        b"",
        b"\x30\x03",
        weak.public_bytes(DER, SPKI),
        other.public_bytes(DER, SPKI),
        right + b"x",
        b"0" * 1025,
    ):
        with pytest.raises(InputError):
            decode_public_key(data)


def test_keys_come_back_as_they_went():
    key = generate_private_key()
    again = decode_private_key(encode_private_key(key))
    assert again.private_numbers() == key.private_numbers()
    assert decode_public_key(encode_public_key(key.public_key())) == key.public_key()


def test_pem_is_what_openssl_calls_a_private_key():
    pem = private_key_to_pem(encode_private_key(generate_private_key())).reveal()
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    serialization.load_pem_private_key(pem, None)


def test_identifier_is_the_cut_hash_of_the_point():
    public = generate_private_key().public_key()
    point = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    assert key_identifier(public) == hashlib.sha256(point).digest()[:20]
