# SPDX-License-Identifier: Apache-2.0
"""DPoP proofs, refused clause by clause of RFC 9449 section 4.3."""

import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from tests.support.identity import NOW, FakeClock
from tests.support.tokens import AT
from tests.vectors.token_maker import ABSENT, b64, changed, es256, hs256, join, text

from everyhop.core.errors import TokenError
from everyhop.jose import public_key_to_jwk, thumbprint
from everyhop.tokens import MemoryReplayGuard, access_token_hash, verify_dpop

KEY = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
JWK = public_key_to_jwk(KEY.public_key())
PRIVATE = {**JWK, "d": b64(KEY.private_numbers().private_value.to_bytes(32, "big"))}
HEADER = {"typ": "dpop+jwt", "alg": "ES256", "jwk": JWK}
ATH = access_token_hash("a.b.c")
CLAIMS = {"jti": "p1", "htm": "POST", "htu": "https://pay.example/v1/charges", "iat": AT, "ath": ATH}


def proof(header=None, claims=None, sign=None):
    return join(changed(HEADER, header or {}), changed(CLAIMS, claims or {}), sign or es256(KEY))


def verify(text, guard=None, **changes):
    values = {
        "htm": "POST",
        "htu": "https://pay.example/v1/charges",
        "ath": ATH,
        "now": NOW,
        "replay": guard or MemoryReplayGuard(FakeClock()),
    }
    return verify_dpop(text, **{**values, **changes})


def code(*arguments, **changes):
    with pytest.raises(TokenError) as refusal:
        verify(*arguments, **changes)
    return str(refusal.value.token_code)


def test_a_good_one_names_its_key():
    assert verify(proof()) == thumbprint(KEY.public_key())


def test_rs256_too():
    jwk = public_key_to_jwk(RSA.public_key())
    made = proof(
        {"alg": "RS256", "jwk": jwk}, sign=lambda m: RSA.sign(m, padding.PKCS1v15(), hashes.SHA256())
    )
    assert verify(made) == thumbprint(RSA.public_key())


@pytest.mark.parametrize(
    ("claims", "answer"),
    [
        ({"htm": "GET"}, "TOKEN_INVALID"),
        ({"htm": "post"}, "TOKEN_INVALID"),
        ({"htm": ABSENT}, "TOKEN_MALFORMED"),
        ({"htm": 1}, "TOKEN_MALFORMED"),
        ({"htu": "https://pay.example/v1/charges/7"}, "TOKEN_INVALID"),
        ({"htu": "http://pay.example/v1/charges"}, "TOKEN_INVALID"),
        ({"htu": "https://pay.example:444/v1/charges"}, "TOKEN_INVALID"),
        ({"htu": "https://pay.example.evil/v1/charges"}, "TOKEN_INVALID"),
        ({"htu": "https://pay.example/v1/charges/"}, "TOKEN_INVALID"),
        ({"htu": "/v1/charges"}, "TOKEN_MALFORMED"),
        ({"htu": "https://u:p@pay.example/v1/charges"}, "TOKEN_MALFORMED"),
        ({"htu": "https://pay.example:x/v1/charges"}, "TOKEN_MALFORMED"),
        ({"htu": "https://pay.example/\n"}, "TOKEN_MALFORMED"),
        ({"htu": ABSENT}, "TOKEN_MALFORMED"),
        ({"iat": AT - 61}, "TOKEN_EXPIRED"),
        ({"iat": AT + 31}, "TOKEN_EXPIRED"),
        ({"iat": float(AT)}, "TOKEN_MALFORMED"),
        ({"iat": str(AT)}, "TOKEN_MALFORMED"),
        ({"iat": ABSENT}, "TOKEN_MALFORMED"),
        ({"jti": ABSENT}, "TOKEN_MALFORMED"),
        ({"jti": ""}, "TOKEN_MALFORMED"),
        ({"jti": "x" * 257}, "TOKEN_MALFORMED"),
        ({"ath": access_token_hash("another")}, "BINDING_MISMATCH"),
        ({"ath": ABSENT}, "BINDING_MISMATCH"),
        ({"ath": None}, "TOKEN_MALFORMED"),
    ],
)
def test_claims(claims, answer):
    assert code(proof(claims=claims)) == answer


@pytest.mark.parametrize(
    ("header", "answer"),
    [
        ({"typ": "JWT"}, "TOKEN_INVALID"),
        ({"typ": "at+jwt"}, "TOKEN_INVALID"),
        ({"typ": ABSENT}, "TOKEN_INVALID"),
        ({"alg": "none"}, "TOKEN_INVALID"),
        ({"alg": "HS256"}, "TOKEN_INVALID"),
        ({"alg": "ES384"}, "TOKEN_INVALID"),
        ({"alg": ABSENT}, "TOKEN_INVALID"),
        ({"jwk": ABSENT}, "TOKEN_MALFORMED"),
        ({"jwk": "text"}, "TOKEN_MALFORMED"),
        ({"jwk": {}}, "TOKEN_MALFORMED"),
        ({"jwk": PRIVATE}, "TOKEN_MALFORMED"),
        ({"jwk": {**JWK, "x5c": []}}, "TOKEN_MALFORMED"),
        ({"jwk": {"kty": "oct", "k": "AAAA"}}, "TOKEN_MALFORMED"),
        ({"jwk": {**JWK, "use": "enc"}}, "TOKEN_MALFORMED"),
        ({"jwk": {**JWK, "alg": "RS256"}}, "TOKEN_MALFORMED"),
        ({"jwk": public_key_to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key())}, "TOKEN_INVALID"),
        ({"kid": "k"}, "TOKEN_INVALID"),
        ({"crit": ["exp"]}, "TOKEN_INVALID"),
        ({"b64": False}, "TOKEN_INVALID"),
    ],
)
def test_header(header, answer):
    assert code(proof(header)) == answer


def test_a_secret_of_public_parts():
    assert code(proof({"alg": "HS256"}, sign=hs256(text(JWK)))) == "TOKEN_INVALID"


@pytest.mark.parametrize("form", ["", "a", "..", "a.b", "\udc80", "é", "[" * 5000, "a.b.c.d", '{"a":1}'])
def test_forms(form):
    assert code(form) == "TOKEN_MALFORMED"


def test_one_bit_and_doubles():
    good = proof()
    head, payload, signature = good.split(".")
    assert code(f"{head}.{payload}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}") == "TOKEN_INVALID"
    doubled = b64(json.dumps(CLAIMS).replace('"htm"', '"htm": "GET", "htm"').encode())
    assert code(join(HEADER, b"", es256(KEY)).replace("..", f".{doubled}.")) == "TOKEN_MALFORMED"
    assert code(good + "A" * 4096) == "TOKEN_MALFORMED"


def test_a_proof_is_good_once():
    guard = MemoryReplayGuard(FakeClock())
    verify(proof(), guard)
    assert code(proof(), guard) == "TOKEN_REPLAYED"
    verify(proof(claims={"jti": "p2"}), guard)
    # A token of ours that happens to have the name of a proof is not used up by it.
    assert guard.use("p1", AT + 60)


def test_a_guard_that_fails_refuses():
    class Broken:
        def use(self, jti, expires_at):
            raise OSError

    assert code(proof(), Broken()) == "TOKEN_REPLAYED"


def test_a_refused_proof_is_not_used_up():
    guard = MemoryReplayGuard(FakeClock())
    assert code(proof(), guard, htm="GET") == "TOKEN_INVALID"
    assert code(proof(), guard, ath=access_token_hash("x")) == "BINDING_MISMATCH"
    verify(proof(), guard)


def test_the_nonce_of_the_server():
    verify(proof(claims={"nonce": "n"}), nonce="n")
    assert code(proof(claims={"nonce": "o"}), nonce="n") == "TOKEN_INVALID"
    assert code(proof(), nonce="n") == "TOKEN_INVALID"


@pytest.mark.parametrize(
    "htu",
    [
        "https://pay.example/v1/charges?x=1",
        "https://pay.example/v1/charges#f",
        "https://PAY.example/v1/charges",
        "HTTPS://pay.example:443/v1/charges",
    ],
)
def test_spellings_of_one_address(htu):
    verify(proof(), htu=htu)


def test_without_a_token():
    verify(proof(claims={"ath": ABSENT}), ath=None)
    verify(proof(claims={"jti": "p3", "htu": "http://pay.example"}), htu="http://pay.example/", ath=None)
