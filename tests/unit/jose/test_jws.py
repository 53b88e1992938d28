# SPDX-License-Identifier: Apache-2.0
"""Signatures: every way of lying to a verifier that we know, then PyJWT as the second opinion."""

import hashlib
import hmac
import json

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given, strategies as st

from everyhop.core.errors import InputError, TrustError
from everyhop.jose import Algorithm, Jwk, encode_base64url, parse_compact, sign_es256, verify_jws
from everyhop.jose.algorithms import _der, is_signed_by

HEADERS = frozenset({"alg", "kid", "typ"})
KEY = ec.generate_private_key(ec.SECP256R1())
JWK = Jwk(key=KEY.public_key(), kid="k", use=None)
PAYLOAD = b'{"sub":"x"}'
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def b64(value):
    return encode_base64url(value if isinstance(value, bytes) else json.dumps(value).encode())


def raw_es256(message, key=KEY):
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def token(header, payload=PAYLOAD, sign=raw_es256):
    signing_input = f"{b64(header)}.{b64(payload)}"
    return f"{signing_input}.{b64(sign(signing_input.encode()))}"


def check(text, key=JWK):
    return verify_jws(parse_compact(text), key, headers=HEADERS)


GOOD = token({"alg": "ES256", "kid": "k"})
TWICE = b'{"alg":"ES256","alg":"none"}'
HEAD, BODY, SIGNATURE = GOOD.split(".")


def test_the_good_one_is_good():
    assert check(GOOD) == PAYLOAD


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        f"{HEAD}.{BODY}",
        f"{GOOD}.",
        f"{GOOD}.{SIGNATURE}",
        f"{HEAD}.{BODY}.{SIGNATURE}=",
        f" {GOOD}",
        f"{GOOD}\n",
        f"{HEAD}=.{BODY}.{SIGNATURE}",
        f"{HEAD}.{BODY}.{SIGNATURE[:-1]}" + ("B" if SIGNATURE[-1] != "B" else "D"),
        f"{b64([])}.{BODY}.{SIGNATURE}",
        f"{b64(b'[')}.{BODY}.{SIGNATURE}",
        f"{b64(TWICE)}.{BODY}.{SIGNATURE}",
        "é" + GOOD,
        json.dumps({"payload": BODY, "protected": HEAD, "signature": SIGNATURE}),
        "A" * 20_000,
    ],
)
def test_what_does_not_parse_is_refused(text):
    with pytest.raises(InputError):
        parse_compact(text)


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "k"},
        {"alg": "none", "kid": "k"},
        {"alg": "None", "kid": "k"},
        {"alg": "", "kid": "k"},
        {"alg": None, "kid": "k"},
        {"alg": ["ES256"], "kid": "k"},
        {"alg": "es256", "kid": "k"},
        {"alg": "HS256", "kid": "k"},
        {"alg": "ES384", "kid": "k"},
        {"alg": "RS256", "kid": "k"},
        {"alg": "EdDSA", "kid": "k"},
        {"alg": "ES256", "kid": "other"},
        {"alg": "ES256", "kid": None},
        {"alg": "ES256", "kid": ["k"]},
        {"alg": "ES256", "kid": "k", "crit": ["exp"]},
        {"alg": "ES256", "kid": "k", "b64": False},
        {"alg": "ES256", "kid": "k", "jwk": {}},
        {"alg": "ES256", "kid": "k", "jku": "https://elsewhere.example"},
        {"alg": "ES256", "kid": "k", "x5c": []},
        {"alg": "ES256", "kid": "k", "zip": "DEF"},
        {"alg": "ES256", "kid": "k", "cty": "JWT"},
    ],
    ids=json.dumps,
)
def test_rightly_signed_but_wrong_headers_are_refused(header):
    with pytest.raises(TrustError):
        check(token(header))


def der_signature(message):
    return KEY.sign(message, ec.ECDSA(hashes.SHA256()))


def hmac_with_the_public_key(message):
    pem = KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hmac.new(pem, message, hashlib.sha256).digest()


@pytest.mark.parametrize(
    "sign",
    [
        lambda _: b"",
        lambda _: bytes(64),
        lambda _: b"\0" * 31 + b"\1" + b"\0" * 31 + b"\1",
        lambda _: ORDER.to_bytes(32, "big") * 2,
        lambda _: b"\xff" * 64,
        lambda message: raw_es256(message)[:-1],
        lambda message: raw_es256(message) + b"\0",
        lambda message: b"\0" + raw_es256(message),
        lambda message: raw_es256(message)[32:] + raw_es256(message)[:32],
        lambda message: raw_es256(message + b"x"),
        lambda message: raw_es256(message, ec.generate_private_key(ec.SECP256R1())),
        der_signature,
        hmac_with_the_public_key,
    ],
)
def test_false_signatures_are_refused(sign):
    with pytest.raises(TrustError):
        check(token({"alg": "ES256", "kid": "k"}, sign=sign))


def test_a_changed_payload_is_refused():
    with pytest.raises(TrustError):
        check(f"{HEAD}.{b64({'sub': 'y'})}.{SIGNATURE}")


def test_a_key_narrowed_to_another_algorithm_verifies_nothing():
    narrowed = Jwk.from_members({**JWK.to_members(), "alg": "ES384"})
    with pytest.raises(TrustError):
        check(GOOD, narrowed)


def test_an_algorithm_of_another_type_of_key_verifies_nothing():
    assert not is_signed_by(JWK.key, Algorithm.RS256, b"", b"")
    assert not is_signed_by(JWK.key, Algorithm.ES384, b"", b"")


def test_signing_takes_p256_only():
    with pytest.raises(InputError):
        sign_es256(ec.generate_private_key(ec.SECP384R1()), {}, PAYLOAD)


def test_the_header_cannot_choose_the_algorithm_of_the_signer():
    jws = parse_compact(sign_es256(KEY, {"alg": "none", "kid": "k"}, PAYLOAD))
    assert jws.header["alg"] == "ES256"


RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEYS = {
    "ES256": KEY,
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
}


@pytest.mark.parametrize(
    "alg", ["ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
)
def test_what_pyjwt_signs_we_verify(alg):
    key = EC_KEYS.get(alg, RSA_KEY)
    ours = Jwk(key=key.public_key(), kid="k", use=None)
    text = jwt.encode({"sub": "x"}, key, algorithm=alg, headers={"kid": "k"})
    assert json.loads(check(text, ours)) == {"sub": "x"}
    with pytest.raises(TrustError):
        check(text[:-8] + "AAAAAAAA", ours)


def test_pss_with_another_salt_is_refused():
    def short_salt(message):
        return RSA_KEY.sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), 20), hashes.SHA256())

    with pytest.raises(TrustError):
        check(
            token({"alg": "PS256", "kid": "k"}, sign=short_salt),
            Jwk(key=RSA_KEY.public_key(), kid="k", use=None),
        )


def test_what_we_sign_pyjwt_verifies():
    text = sign_es256(KEY, {"kid": "k", "typ": "JWT"}, PAYLOAD)
    assert jwt.decode(text, KEY.public_key(), algorithms=["ES256"]) == {"sub": "x"}
    assert jwt.get_unverified_header(text) == {"kid": "k", "typ": "JWT", "alg": "ES256"}


def test_rfc_7515_appendix_a3():
    jwk = Jwk.from_members(
        {
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        }
    )
    text = (
        "eyJhbGciOiJFUzI1NiJ9"
        ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
        ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    )
    assert b'"iss":"joe"' in check(text, jwk)


def test_a_prepared_check_is_of_the_key_and_its_algorithm():
    from everyhop.jose.algorithms import signature_check

    check = signature_check(KEY.public_key(), Algorithm.ES256)
    assert check(raw_es256(b"m"), b"m")
    assert not check(raw_es256(b"m"), b"n")
    with pytest.raises(InputError):
        signature_check(KEY.public_key(), Algorithm.RS256)


@given(st.integers(0, 66), st.data())
def test_der_by_hand_is_der(width, data):
    r, s = (data.draw(st.binary(min_size=width, max_size=width)) for _ in range(2))
    assert _der(r, s) == encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
