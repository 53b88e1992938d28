# SPDX-License-Identifier: Apache-2.0
"""Bundles: what refuses the document, what refuses one entry, what is kept."""

import json
from base64 import b64encode
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.identity import DOMAIN, TestCa, new_key

from everyhop.core.errors import InputError
from everyhop.jose import Jwk, public_key_to_jwk
from everyhop.spiffe import TrustDomain
from everyhop.spiffe.bundle import Bundle, decode_bundle, encode_bundle, encode_jwt_bundle

TD = TrustDomain.parse(DOMAIN)
CA = TestCa()
KEY = new_key().public_key()
X509 = {**public_key_to_jwk(CA.key.public_key()), "use": "x509-svid", "x5c": [b64encode(CA.der).decode()]}
JWT = {**public_key_to_jwk(KEY), "use": "jwt-svid", "kid": "k"}


def decode(document):
    return decode_bundle(TD, document if isinstance(document, bytes) else json.dumps(document).encode())


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys":[],"keys":[]}',
        {"keys": {}},
        {"keys": None},
        {"keys": [JWT] * 257},
        {"keys": [], "spiffe_sequence": "1"},
        {"keys": [], "spiffe_sequence": 1.5},
        {"keys": [], "spiffe_sequence": True},
        {"keys": [], "spiffe_sequence": -1},
        {"keys": [], "spiffe_sequence": 2**64},
        {"keys": [], "spiffe_refresh_hint": "60"},
        {"keys": [], "spiffe_refresh_hint": -1},
        {"keys": [], "spiffe_refresh_hint": 10**12},
        b'{"keys":[]' + b" " * 1024 * 1024 + b"}",
    ],
)
def test_documents_that_are_refused(document):
    with pytest.raises(InputError):
        decode(document)


@pytest.mark.parametrize(
    "entry",
    [
        5,
        None,
        {},
        {**X509, "use": "other"},
        {**X509, "use": None},
        {k: v for k, v in X509.items() if k != "use"},
        {k: v for k, v in X509.items() if k != "kty"},
        {**X509, "kty": "OKP"},
        {k: v for k, v in X509.items() if k != "x5c"},
        {**X509, "x5c": []},
        {**X509, "x5c": "x"},
        {**X509, "x5c": [5]},
        {**X509, "x5c": ["!"]},
        {**X509, "x5c": [b64encode(b"no certificate").decode()]},
        {**X509, "x5c": [b64encode(CA.leaf()).decode()]},
        {**X509, "x5c": [b64encode(CA.der).decode().replace("M", "M\n", 1)]},
        {**JWT, "use": "wit-svid"},
        {**JWT, "kty": "oct", "k": "AAAA"},
        {**JWT, "crv": "P-1"},
        {**JWT, "d": "AAAA"},
        {k: v for k, v in JWT.items() if k != "kid"},
    ],
)
def test_entries_that_are_passed_over_alone(entry):
    bundle = decode({"keys": [entry, X509, JWT]})
    assert bundle.x509_authorities == (CA.der,)
    assert set(bundle.jwt_authorities) == {"k"}
    assert decode({"keys": [entry]}) == Bundle(trust_domain=TD, x509_authorities=(), jwt_authorities={})


def test_two_keys_of_one_name_are_trusted_neither():
    other = {**public_key_to_jwk(new_key().public_key()), "use": "jwt-svid", "kid": "k"}
    assert not decode({"keys": [JWT, other]}).jwt_authorities


def test_an_empty_bundle_trusts_nothing():
    assert not decode({"keys": []}).x509_authorities


def test_only_the_first_certificate_counts():
    second = TestCa(common="second")
    entry = {**X509, "x5c": [*X509["x5c"], b64encode(second.der).decode()]}
    assert decode({"keys": [entry, X509]}).x509_authorities == (CA.der,)


def test_unknown_members_are_ignored():
    bundle = decode({"keys": [{**JWT, "x": JWT["x"], "later": {"a": 1}}], "later": [1]})
    assert bundle.jwt_authorities["k"].key == KEY


def full():
    return Bundle(
        trust_domain=TD,
        x509_authorities=(CA.der, TestCa(common="next").der),
        jwt_authorities={
            "k": Jwk(key=KEY, kid="k", use="jwt-svid"),
            "j": Jwk(key=ec.generate_private_key(ec.SECP384R1()).public_key(), kid="j", use="jwt-svid"),
        },
        sequence=2**63 - 1,
        refresh_hint=timedelta(seconds=300),
    )


def test_bundles_come_back():
    bundle = full()
    assert decode(encode_bundle(bundle)) == bundle
    assert bundle.x509_der == b"".join(bundle.x509_authorities)


def test_the_jwt_bundle_holds_jwt_keys_only():
    keys = json.loads(encode_jwt_bundle(full()))["keys"]
    assert {(key["use"], key["kid"]) for key in keys} == {("jwt-svid", "k"), ("jwt-svid", "j")}


def test_a_bundle_cannot_be_changed():
    with pytest.raises(TypeError):
        full().jwt_authorities["x"] = None
