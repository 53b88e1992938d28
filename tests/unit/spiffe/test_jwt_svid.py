# SPDX-License-Identifier: Apache-2.0
"""JWT-SVID validation: each MUST of JWT-SVID.md, broken alone; minting, checked by PyJWT."""

import json
from datetime import timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.identity import DOMAIN, DOMAIN_ID, NOW, WORKLOAD_ID, new_key

from everyhop.core.errors import InputError, SvidError
from everyhop.jose import Jwk
from everyhop.jose.encoding import encode_base64url
from everyhop.spiffe import SpiffeId, TrustDomain
from everyhop.spiffe.bundle import Bundle
from everyhop.spiffe.jwt_svid import mint_jwt_svid, peek_subject, validate_jwt_svid

KEY = new_key()
EPOCH = int(NOW.timestamp())
CLAIMS = {"sub": WORKLOAD_ID, "aud": ["payments"], "exp": EPOCH + 300, "iat": EPOCH}


def bundle(domain=DOMAIN, key=KEY, **members):
    jwk = Jwk(key=key.public_key(), kid="k", use="jwt-svid", **members)
    return Bundle(trust_domain=TrustDomain.parse(domain), x509_authorities=(), jwt_authorities={"k": jwk})


def token(claims=CLAIMS, header=None, key=KEY, alg="ES256"):
    merged = {"kid": "k", "typ": "JWT", **(header or {})}
    return jwt.PyJWS().encode(
        claims if isinstance(claims, bytes) else json.dumps(claims).encode(),
        key,
        algorithm=alg,
        headers={name: value for name, value in merged.items() if value is not ...},
    )


def check(text, *, audience="payments", now=NOW, trust=None, skew=timedelta(0)):
    return validate_jwt_svid(text, trust or bundle(), audience=audience, now=now, skew=skew)


def without(name):
    return {key: value for key, value in CLAIMS.items() if key != name}


@pytest.mark.parametrize(
    ("clause", "claims"),
    [
        ("3.1", without("sub")),
        ("3.1", {**CLAIMS, "sub": None}),
        ("3.1", {**CLAIMS, "sub": ["x"]}),
        ("3.1", {**CLAIMS, "sub": "orders"}),
        ("3.1", {**CLAIMS, "sub": "https://shop.example/service/orders"}),
        ("3.1", {**CLAIMS, "sub": WORKLOAD_ID + "/"}),
        ("3.1", {**CLAIMS, "sub": DOMAIN_ID}),
        ("3.1", {**CLAIMS, "sub": "spiffe://other.example/service/orders"}),
        ("3.2", without("aud")),
        ("3.2", {**CLAIMS, "aud": []}),
        ("3.2", {**CLAIMS, "aud": ""}),
        ("3.2", {**CLAIMS, "aud": None}),
        ("3.2", {**CLAIMS, "aud": [1, "payments"]}),
        ("3.2", {**CLAIMS, "aud": {"payments": 1}}),
        ("3.2", {**CLAIMS, "aud": "Payments"}),
        ("3.2", {**CLAIMS, "aud": "payments-2"}),
        ("3.2", {**CLAIMS, "aud": [["payments"]]}),
        ("3.3", without("exp")),
        ("3.3", {**CLAIMS, "exp": EPOCH}),
        ("3.3", {**CLAIMS, "exp": 0}),
        ("RFC 7519 2", {**CLAIMS, "exp": None}),
        ("RFC 7519 2", {**CLAIMS, "exp": str(EPOCH + 300)}),
        ("RFC 7519 2", {**CLAIMS, "exp": True}),
        ("RFC 7519 2", {**CLAIMS, "exp": -1}),
        ("RFC 7519 2", {**CLAIMS, "exp": 10**400}),
        ("RFC 7519 2", {**CLAIMS, "exp": 1e300}),
        ("RFC 7519 2", {**CLAIMS, "iat": "now"}),
        ("RFC 7519 4.1.5", {**CLAIMS, "nbf": EPOCH + 1}),
        ("RFC 7519 2", {**CLAIMS, "nbf": "soon"}),
    ],
)
def test_claims_that_break_one_clause(clause, claims):
    with pytest.raises(SvidError) as caught:
        check(token(claims))
    assert caught.value.message.startswith((f"JWT-SVID {clause}:", f"{clause}:"))


@pytest.mark.parametrize(
    ("clause", "header"),
    [
        ("2", {"crit": ["exp"]}),
        ("2", {"x5c": ["x"]}),
        ("2", {"jku": "https://elsewhere.example"}),
        ("2", {"jwk": {}}),
        ("2", {"cty": "JWT"}),
        ("2.3", {"typ": "at+jwt"}),
        ("2.3", {"typ": "jwt"}),
        ("2.3", {"typ": "wit+jwt"}),
        ("2.3", {"typ": 5}),
        ("2.2", {"kid": ...}),
        ("2.2", {"kid": ""}),
        ("6.2", {"kid": "other"}),
    ],
)
def test_headers_that_break_one_clause(clause, header):
    with pytest.raises(SvidError) as caught:
        check(token(header=header))
    assert caught.value.message.startswith(f"JWT-SVID {clause}:")


@pytest.mark.parametrize("typ", ["JWT", "JOSE", ...])
def test_the_types_that_the_standard_names(typ):
    header = {"typ": typ}
    if typ is ...:
        plain = jwt.PyJWS().encode(
            json.dumps(CLAIMS).encode(), KEY, headers={"kid": "k", "typ": None}, algorithm="ES256"
        )
        assert "typ" not in jwt.get_unverified_header(plain)
        assert check(plain)
    else:
        assert check(token(header=header))


def test_algorithms_outside_the_list():
    parts = ({"alg": "none", "kid": "k"}, CLAIMS)
    unsigned = ".".join(encode_base64url(json.dumps(part).encode()) for part in parts) + "."
    for text in (
        unsigned,
        token(key=b"x" * 32, alg="HS256"),
        token(key=ec.generate_private_key(ec.SECP384R1()), alg="ES384"),
    ):
        with pytest.raises(SvidError, match=r"2\.1"):
            check(text)


def test_another_key_of_the_same_name():
    with pytest.raises(SvidError, match=r"2\.1"):
        check(token(key=new_key()))


def test_payloads_that_are_no_claims():
    for payload in (b"", b"[]", b'{"sub":1,"sub":2}', b"\xff", b"{"):
        with pytest.raises(InputError):
            check(token(payload))


def test_a_token_that_is_too_large():
    with pytest.raises(InputError):
        check(token({**CLAIMS, "more": "x" * 8000}))


def test_an_empty_audience_of_ours_matches_nothing():
    with pytest.raises(SvidError, match=r"3\.2"):
        check(token({**CLAIMS, "aud": [""]}), audience="")


def test_time_is_exact_unless_skew_is_given():
    text = token({**CLAIMS, "nbf": EPOCH})
    assert check(text, now=NOW + timedelta(seconds=299, microseconds=999_999))
    with pytest.raises(SvidError, match="expired"):
        check(text, now=NOW + timedelta(seconds=300))
    assert check(text, now=NOW + timedelta(seconds=309), skew=timedelta(seconds=10))
    with pytest.raises(SvidError, match="expired"):
        check(text, now=NOW + timedelta(seconds=310), skew=timedelta(seconds=10))
    assert check(text, now=NOW - timedelta(seconds=10), skew=timedelta(seconds=10))


def test_the_latest_time_there_is():
    assert check(token({**CLAIMS, "exp": 253402300799}), skew=timedelta(seconds=60))


def test_what_holds():
    svid = check(token({**CLAIMS, "aud": "payments", "exp": EPOCH + 300.5, "extra": {"a": [1]}}))
    assert str(svid.spiffe_id) == WORKLOAD_ID
    assert svid.audience == ("payments",)
    assert svid.claims["extra"] == {"a": [1]}
    assert svid.token not in repr(svid)
    assert check(token({**CLAIMS, "aud": ["other", "payments"]})).audience == ("other", "payments")


def mint(**changed):
    values = {
        "spiffe_id": SpiffeId.parse(WORKLOAD_ID),
        "audience": ("payments",),
        "issued_at": NOW,
        "expires_at": NOW + timedelta(minutes=5),
        "token_id": "t1",
        "kid": "k",
        "key": KEY,
    }
    return mint_jwt_svid(**{**values, **changed})


@pytest.mark.parametrize(
    "changed",
    [
        {"audience": ()},
        {"audience": ("",)},
        {"audience": "payments"},
        {"audience": ("a", "a")},
        {"audience": ("a\n",)},
        {"audience": ("x" * 2049,)},
        {"audience": tuple(map(str, range(33)))},
        {"audience": tuple(f"{n:02}" + "x" * 1000 for n in range(9))},
        {"expires_at": NOW},
        {"spiffe_id": SpiffeId.parse(DOMAIN_ID)},
        {"key": ec.generate_private_key(ec.SECP384R1())},
    ],
)
def test_what_is_not_minted(changed):
    with pytest.raises(InputError):
        mint(**changed)


def test_what_is_minted():
    text = mint()
    assert jwt.get_unverified_header(text) == {"alg": "ES256", "kid": "k", "typ": "JWT"}
    claims = jwt.decode(
        text,
        KEY.public_key(),
        algorithms=["ES256"],
        audience="payments",
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims == {**CLAIMS, "jti": "t1"}
    assert check(text).kid == "k"
    assert str(peek_subject(text)) == WORKLOAD_ID


def test_peeking_believes_nothing_but_reads_only_spiffe_ids():
    with pytest.raises(SvidError):
        peek_subject(token({"sub": "x"}))
    with pytest.raises(InputError):
        peek_subject("x.y.z")
