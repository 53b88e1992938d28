# SPDX-License-Identifier: Apache-2.0
"""Keys: what is no usable public key is refused, also when it almost is."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from everyhop.core.errors import InputError
from everyhop.jose import Jwk, algorithms_for, encode_base64url, public_key_to_jwk, thumbprint

EC = public_key_to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key())
RSA = public_key_to_jwk(rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key())
WEAK = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"kty": "oct", "k": "AAAA"},
        {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43},
        {**EC, "kty": "ec"},
        {**EC, "crv": "secp256k1"},
        {**EC, "crv": "P-384"},
        {**EC, "crv": None},
        {**EC, "x": EC["y"]},
        {**EC, "x": encode_base64url(b"\0" * 32)},
        {**EC, "x": EC["x"] + "="},
        {**EC, "x": EC["x"][:-4]},
        {**EC, "y": 5},
        {**EC, "d": "AAAA"},
        {**EC, "kid": 5},
        {**EC, "kid": ""},
        {**EC, "kid": "x" * 513},
        {**EC, "alg": "HS256"},
        {**EC, "alg": "none"},
        {**EC, "alg": 5},
        {**EC, "use": ["jwt-svid"]},
        {k: v for k, v in EC.items() if k != "y"},
        public_key_to_jwk(WEAK),
        {**RSA, "e": "Aw"},
        {**RSA, "e": "AA"},
        {**RSA, "e": "AAEAAQ"},
        {**RSA, "e": encode_base64url(b"\x01" + b"\0" * 8)},
        {**RSA, "n": "AA" + RSA["n"]},
        {**RSA, "n": encode_base64url(b"\xff" * 2000)},
        {**RSA, "n": ""},
        {**RSA, "p": "AAAA"},
    ],
)
def test_what_is_no_public_key_we_accept(members):
    with pytest.raises(InputError):
        Jwk.from_members(members)


def test_the_algorithm_comes_from_the_key():
    assert Jwk.from_members(EC).algorithms == {"ES256"}
    assert Jwk.from_members({**EC, "alg": "ES256"}).algorithms == {"ES256"}
    assert Jwk.from_members({**EC, "alg": "RS256"}).algorithms == frozenset()
    assert len(Jwk.from_members(RSA).algorithms) == 6
    assert Jwk.from_members({**RSA, "alg": "PS256"}).algorithms == {"PS256"}
    for curve, name in ((ec.SECP384R1(), "ES384"), (ec.SECP521R1(), "ES512")):
        assert algorithms_for(ec.generate_private_key(curve).public_key()) == {name}
    assert algorithms_for(ec.generate_private_key(ec.SECP256K1()).public_key()) == frozenset()


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_ec_keys_come_back(curve):
    key = ec.generate_private_key(curve).public_key()
    jwk = Jwk.from_members({**public_key_to_jwk(key), "kid": "k", "use": "jwt-svid", "unknown": [1]})
    assert (jwk.key, jwk.kid, jwk.use) == (key, "k", "jwt-svid")
    assert Jwk.from_members(jwk.to_members()) == jwk


def test_rsa_keys_come_back():
    jwk = Jwk.from_members({**RSA, "alg": "PS384", "kid": "r"})
    assert Jwk.from_members(jwk.to_members()) == jwk


def test_a_curve_without_a_name_here_is_refused():
    with pytest.raises(InputError):
        public_key_to_jwk(ec.generate_private_key(ec.SECP256K1()).public_key())


def test_thumbprint_depends_on_the_key_alone():
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    jwk = Jwk(key=key, kid="a", use=None)
    assert thumbprint(jwk.key) == thumbprint(key)
    assert len(thumbprint(key)) == 43
