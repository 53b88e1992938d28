# SPDX-License-Identifier: Apache-2.0
"""Requests: refused unless they prove possession of a P-256 key; what they ask for is never read."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from tests.support.identity import NO_NAME, name, uris

from everyhop.core.errors import InputError, TrustError
from everyhop.x509 import build_csr, generate_private_key, verify_csr

DER = serialization.Encoding.DER


def request(key, digest=None, subject=NO_NAME, extension=None):
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, digest)


def test_a_false_signature_is_refused():
    der = bytearray(build_csr(generate_private_key()))
    der[-1] ^= 1
    with pytest.raises(TrustError):
        verify_csr(bytes(der))


def test_a_signature_by_another_key_is_refused():
    mine, theirs = generate_private_key(), generate_private_key()
    honest = request(mine, hashes.SHA256())
    stolen = request(theirs, hashes.SHA256())
    spki = lambda key: key.public_key().public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo)  # noqa: E731
    forged = honest.public_bytes(DER).replace(spki(mine), spki(theirs))
    assert x509.load_der_x509_csr(forged).public_key() == stolen.public_key()
    with pytest.raises(TrustError):
        verify_csr(forged)


@pytest.mark.parametrize(
    ("key", "digest"),
    [
        (rsa.generate_private_key(public_exponent=65537, key_size=2048), hashes.SHA256()),
        (ed25519.Ed25519PrivateKey.generate(), None),
        (ec.generate_private_key(ec.SECP384R1()), hashes.SHA256()),
        (ec.generate_private_key(ec.SECP256R1()), hashes.SHA384()),
        (ec.generate_private_key(ec.SECP256R1()), hashes.SHA224()),
    ],
    ids=["rsa", "ed25519", "p384", "sha384", "sha224"],
)
def test_other_keys_and_algorithms_are_refused(key, digest):
    with pytest.raises(InputError):
        verify_csr(request(key, digest).public_bytes(DER))


def test_what_is_not_one_small_request_is_refused():
    der = build_csr(generate_private_key())
    large = request(generate_private_key(), hashes.SHA256(), extension=uris("spiffe://a/" + "x" * 5000))
    pem = x509.load_der_x509_csr(der).public_bytes(serialization.Encoding.PEM)
    for data in (b"", der[:-1], der + b"\0", der[1:], pem, large.public_bytes(DER), b"0" * 5000):
        with pytest.raises(InputError):
            verify_csr(data)


def test_every_flipped_byte_is_refused():
    der = build_csr(generate_private_key())
    for place in range(len(der)):
        changed = bytearray(der)
        changed[place] ^= 0x40
        with pytest.raises((InputError, TrustError)):
            verify_csr(bytes(changed))


def test_possession_is_proved_whatever_else_is_asked_for():
    key = generate_private_key()
    assert verify_csr(build_csr(key)) == key.public_key()
    asking = request(key, hashes.SHA256(), name("root"), uris("spiffe://shop.example/service/root"))
    assert verify_csr(asking.public_bytes(DER)) == key.public_key()
