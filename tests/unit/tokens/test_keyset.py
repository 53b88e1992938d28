# SPDX-License-Identifier: Apache-2.0
"""Key sets: what is pinned, what makes two sets equal, and keys that come and go."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.tokens import EC_SIGNER, KEY_SET, RSA_SIGNER
from tests.vectors.hostile_jwks import good_ec, good_rsa

from everyhop.core.errors import InputError, TokenError
from everyhop.jose import Algorithm, Jwk, public_key_to_jwk
from everyhop.tokens import HeldKeys, KeySet, PinnedKey, StaticKeys, key_set_of, parse_jwks


def document(*keys):
    return json.dumps({"keys": keys}).encode()


def test_keys_that_are_refused_one_by_one():
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    for jwk in (
        Jwk(key=key, kid=None, use="sig"),
        Jwk(key=key, kid="k", use="enc"),
        Jwk(key=key, kid="k", use="sig", alg=Algorithm.RS256),
        Jwk(key=other, kid="k", use="sig"),
        Jwk(key=other, kid="k", use="sig", alg=Algorithm.ES384),
    ):
        with pytest.raises(InputError):
            PinnedKey.pin(jwk)
    assert PinnedKey.pin(Jwk(key=other, kid="k", use="sig"), algorithms=frozenset(Algorithm)).alg == "ES384"


def test_rsa_is_pinned_to_one_algorithm_even_where_more_are_accepted():
    jwk = Jwk(key=RSA_SIGNER.public().key, kid="r", use="sig")
    assert PinnedKey.pin(jwk, algorithms=frozenset(Algorithm)).alg == "RS256"
    assert PinnedKey.pin(jwk, algorithms=frozenset({Algorithm.PS256})).alg == "PS256"


def test_a_set_refuses_doubles_and_crowds():
    one = PinnedKey.pin(EC_SIGNER.public())
    with pytest.raises(InputError):
        KeySet([one, one])
    crowd = [PinnedKey.pin(Jwk(key=one.jwk.key, kid=f"k{n}", use="sig")) for n in range(33)]
    with pytest.raises(InputError):
        KeySet(crowd)
    assert len(KeySet(crowd[:16]).kids) == 16


def test_the_version_names_the_content():
    first, second = good_ec(), good_rsa()
    assert parse_jwks(document(first, second)).version == parse_jwks(document(second, first)).version
    assert parse_jwks(document(first)).version != parse_jwks(document({**first, "kid": "other"})).version
    assert parse_jwks(document(first)).version != parse_jwks(document(first, second)).version
    assert key_set_of({"keys": [first]}).version == parse_jwks(document(first)).version


def test_sound_keys_that_are_not_used_here_are_passed_over():
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    foreign = [
        {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43, "kid": "ed"},
        {**public_key_to_jwk(other), "kid": "p384", "alg": "ES384"},
        {**good_rsa("ps"), "alg": "PS256"},
    ]
    keys = parse_jwks(document(*foreign, good_ec()))
    assert keys.kids == {"k1"}
    assert keys.version == parse_jwks(document(good_ec())).version
    with pytest.raises(InputError):
        parse_jwks(document(*foreign))


def test_find_and_without():
    assert KEY_SET.find("k1").alg == "ES256"
    assert KEY_SET.find("nobody") is None
    assert KEY_SET.without({"k1"}).kids == {"r1"}
    assert KEY_SET.without({"nobody"}).version == KEY_SET.version


def test_held_keys_change_at_once():
    held = HeldKeys(KEY_SET)
    assert held.key("k1") is KEY_SET.find("k1")
    held.replace(KEY_SET.without({"k1"}))
    assert held.current("k1") is None
    assert held.keys.kids == {"r1"}
    with pytest.raises(TokenError) as refusal:
        held.key("k1")
    assert refusal.value.token_code == "UNKNOWN_KEY_ID"
    assert not hasattr(StaticKeys(KEY_SET), "replace")
