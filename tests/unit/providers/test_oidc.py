# SPDX-License-Identifier: Apache-2.0
"""Users' tokens: what is refused and with which code; which addresses are asked, how often and for how long."""

import base64
import hashlib
import hmac
import json
import threading
from datetime import timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.support.identity import NOW
from tests.support.oidc_issuer import EC, RSA, OidcIssuer, public_jwk

from everyhop.core.errors import InputError, TokenError, Unavailable
from everyhop.providers import oidc_keys
from everyhop.providers.oidc import OidcTokens
from everyhop.providers.oidc_keys import check_url, fetch, usable_keys

T = int(NOW.timestamp())


@pytest.fixture
def issuer():
    one = OidcIssuer()
    yield one
    one.close()


@pytest.fixture
def tokens(issuer):
    return OidcTokens(lambda: (issuer.policy(),))


def code_of(tokens, token, now=NOW):
    with pytest.raises(TokenError) as caught:
        tokens.verify(token, now=now)
    assert token == "" or token not in str(caught.value)
    return caught.value.token_code


def b64(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# --- claims -----------------------------------------------------------------------------------------------------------

CLAIMS = {
    "another issuer": ({"iss": "https://evil.example"}, "UNAUTHORIZED_ISSUER"),
    "the issuer with a slash": ({"iss": "{}/"}, "UNAUTHORIZED_ISSUER"),
    "no issuer": ({"iss": None}, "UNAUTHORIZED_ISSUER"),
    "another audience": ({"aud": "other"}, "AUDIENCE_MISMATCH"),
    "an audience that begins like ours": ({"aud": "shop-other"}, "AUDIENCE_MISMATCH"),
    "no audience": ({"aud": None}, "TOKEN_MALFORMED"),
    "an empty list of audiences": ({"aud": []}, "TOKEN_MALFORMED"),
    "an audience that is a number": ({"aud": ["shop", 7]}, "TOKEN_MALFORMED"),
    "a crowd of audiences": ({"aud": ["shop"] + ["x"] * 16, "azp": "shop"}, "TOKEN_MALFORMED"),
    "several audiences and no azp": ({"aud": ["shop", "other"]}, "AUDIENCE_MISMATCH"),
    "several audiences and another azp": ({"aud": ["shop", "other"], "azp": "other"}, "AUDIENCE_MISMATCH"),
    "several audiences and an azp that is a list": (
        {"aud": ["shop", "other"], "azp": ["shop"]},
        "AUDIENCE_MISMATCH",
    ),
    "expired": ({"exp": T - 5}, "TOKEN_EXPIRED"),
    "no end": ({"exp": None}, "TOKEN_MALFORMED"),
    "an end as text": ({"exp": str(T + 60)}, "TOKEN_MALFORMED"),
    "an end as a truth value": ({"exp": True}, "TOKEN_MALFORMED"),
    "an end beyond all time": ({"exp": 10**15}, "TOKEN_MALFORMED"),
    "an end before all time": ({"exp": -1}, "TOKEN_MALFORMED"),
    "issued in the future": ({"iat": T + 31}, "TOKEN_INVALID"),
    "no time of issue": ({"iat": None}, "TOKEN_MALFORMED"),
    "not valid yet": ({"nbf": T + 31}, "TOKEN_INVALID"),
    "nbf as text": ({"nbf": "now"}, "TOKEN_MALFORMED"),
    "no subject": ({"sub": None}, "TOKEN_MALFORMED"),
    "an empty subject": ({"sub": ""}, "TOKEN_MALFORMED"),
    "a long subject": ({"sub": "x" * 256}, "TOKEN_MALFORMED"),
    "a subject with a line break": ({"sub": "a\nb"}, "TOKEN_MALFORMED"),
    "roles that are an object": ({"roles": {"admin": True}}, "TOKEN_MALFORMED"),
    "roles that are numbers": ({"roles": [1]}, "TOKEN_MALFORMED"),
    "too many roles": ({"roles": ["r"] * 65}, "TOKEN_MALFORMED"),
    "an empty role": ({"roles": [""]}, "TOKEN_MALFORMED"),
    "amr as text": ({"amr": "pwd"}, "TOKEN_MALFORMED"),
    "acr as a list": ({"acr": ["1"]}, "TOKEN_MALFORMED"),
    "auth_time as text": ({"auth_time": "1"}, "TOKEN_MALFORMED"),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_claims(issuer, tokens, case):
    claims, code = CLAIMS[case]
    if claims.get("iss") == "{}/":
        claims = {"iss": issuer.url + "/"}
    try:
        token = issuer.token(**claims)
    except TypeError:
        # PyJWT refuses to write some of these; then by hand.
        payload = {"iss": issuer.url, "sub": "a", "aud": "shop", "iat": T, "exp": T + 60, **claims}
        token = jwt.api_jws.PyJWS().encode(
            json.dumps(payload).encode(), RSA, algorithm="RS256", headers={"kid": "r1"}
        )
    assert code_of(tokens, token) == code


# --- header and signature ---------------------------------------------------------------------------------------------


def forged(issuer, header, sign=lambda text: b"x" * 256):
    payload = {"iss": issuer.url, "sub": "a", "aud": "shop", "iat": T, "exp": T + 60}
    text = f"{b64(header)}.{b64(payload)}"
    return f"{text}.{b64(sign(text.encode()))}"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"typ": "logout+jwt"}, "TOKEN_INVALID"),
        ({"typ": "txntoken+jwt"}, "TOKEN_INVALID"),
        ({"typ": "dpop+jwt"}, "TOKEN_INVALID"),
        ({"typ": "secevent+jwt"}, "TOKEN_INVALID"),
        ({"jku": "https://evil.example/keys"}, "TOKEN_INVALID"),
        ({"jwk": public_jwk(EC)}, "TOKEN_INVALID"),
        ({"x5u": "https://evil.example"}, "TOKEN_INVALID"),
        ({"x5c": ["AAAA"]}, "TOKEN_INVALID"),
        ({"crit": ["exp"], "exp": 1}, "TOKEN_INVALID"),
        ({"b64": False}, "TOKEN_MALFORMED"),  # PyJWT leaves the payload out then
        ({"zip": "DEF"}, "TOKEN_INVALID"),
        ({"cty": "JWT"}, "TOKEN_INVALID"),
    ],
)
def test_headers(issuer, tokens, header, code):
    assert code_of(tokens, issuer.token(header=header)) == code
    assert not any("evil" in path for path in issuer.requests)


@pytest.mark.parametrize("alg", ["none", "None", "", "HS256", "RS512", "PS256", "ES256", "rs256", None, 7])
def test_algorithms_that_the_key_does_not_have(issuer, tokens, alg):
    assert code_of(tokens, forged(issuer, {"alg": alg, "kid": "r1", "typ": "JWT"})) == "TOKEN_INVALID"


def test_an_algorithm_that_the_policy_does_not_name(issuer):
    tokens = OidcTokens(lambda: (issuer.policy(algorithms=("ES256",)),))
    assert code_of(tokens, issuer.token()) == "TOKEN_INVALID"


def test_a_public_key_as_a_shared_secret(issuer, tokens):
    from cryptography.hazmat.primitives import serialization

    pem = RSA.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    token = forged(
        issuer,
        {"alg": "HS256", "kid": "r1", "typ": "JWT"},
        lambda text: hmac.digest(pem, text, hashlib.sha256),
    )
    assert code_of(tokens, token) == "TOKEN_INVALID"


def test_another_key_of_the_same_name(issuer, tokens):
    other = rsa.generate_private_key(65537, 2048)
    assert code_of(tokens, issuer.token(key=other)) == "TOKEN_INVALID"


def test_a_changed_claim(issuer, tokens):
    head, body, signature = issuer.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["roles"] = ["admin"]
    assert code_of(tokens, f"{head}.{b64(claims)}.{signature}") == "TOKEN_INVALID"


def test_claims_twice(issuer, tokens):
    body = f'{{"iss":"{issuer.url}","sub":"a","sub":"b","aud":"shop","iat":{T},"exp":{T + 60}}}'
    assert (
        code_of(tokens, f"{b64({'alg': 'RS256', 'kid': 'r1'})}.{b64(body.encode())}.AAAA")
        == "TOKEN_MALFORMED"
    )


@pytest.mark.parametrize("token", ["", "x", "a.b", "a.b.c.d", "." * 20_000, "e30.e30.", "é.é.é", "a.b.c.d.e"])
def test_nonsense(issuer, tokens, token):
    assert code_of(tokens, token) in {"TOKEN_MALFORMED", "UNAUTHORIZED_ISSUER"}
    assert issuer.requests == []


@pytest.mark.parametrize("kid", ["", 7, "k" * 257])
def test_names_of_keys_that_are_none(issuer, tokens, kid):
    assert code_of(tokens, forged(issuer, {"alg": "RS256", "kid": kid})) == "TOKEN_MALFORMED"


def test_without_a_name_there_must_be_one_key_only(issuer):
    token = issuer.token(kid=None)
    assert code_of(OidcTokens(lambda: (issuer.policy(),)), token) == "UNKNOWN_KEY_ID"
    issuer.keys = issuer.keys[:1]
    issuer.publish()
    assert OidcTokens(lambda: (issuer.policy(),)).verify(token, now=NOW).subject == "alice"


def test_nothing_is_asked_for_an_issuer_that_is_not_configured(issuer):
    assert code_of(OidcTokens(lambda: ()), issuer.token()) == "UNAUTHORIZED_ISSUER"
    assert issuer.requests == []


# --- documents --------------------------------------------------------------------------------------------------------


def unavailable(tokens, token, now=NOW):
    with pytest.raises(Unavailable) as caught:
        tokens.verify(token, now=now)
    return str(caught.value)


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://other.example"},
        {"issuer": None},
        {"jwks_uri": "http://example.com/keys"},
        {"jwks_uri": "http://169.254.169.254/latest"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://user:word@example.com/keys"},
        {"jwks_uri": "https://"},
        {"jwks_uri": "https://[::1"},
        {"jwks_uri": None},
        {"jwks_uri": ["https://example.com"]},
        {"jwks_uri": "https://example.com/" + "x" * 3000},
    ],
)
def test_discovery_documents_that_are_refused(issuer, tokens, discovery):
    issuer.discovery |= discovery
    issuer.publish()
    unavailable(tokens, issuer.token())
    assert issuer.requests == ["/.well-known/openid-configuration"]


def test_an_issuer_elsewhere_cannot_send_us_to_this_machine():
    for url in ("https://localhost/keys", "https://127.0.0.1:6443/x", "http://[::1]/x"):
        with pytest.raises(InputError):
            check_url(url, "https://idp.example")
    with pytest.raises(InputError):
        check_url("http://127.0.0.1/keys", "https://localhost")  # not down from https either
    assert check_url("https://keys.example/x", "https://idp.example")
    assert check_url("http://127.0.0.1:9/keys", "http://localhost:8")


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (404, b"{}", {}),
        (500, b"{}", {}),
        (302, b"", {"location": "/elsewhere"}),
        (301, b"", {"location": "https://evil.example/keys"}),
        (204, b"", {}),
        (200, b"", {}),
        (200, b"<html>", {}),
        (200, b"[]", {}),
        (200, b'{"keys": []}', {}),
        (200, b'{"keys": {}}', {}),
        (200, b'{"keys": [1, null]}', {}),
        (200, b'{"keys": [], "keys": []}', {}),
        (200, json.dumps({"keys": [{}] * 101}).encode(), {}),
        (200, b'{"keys": [' + b" " * (1024 * 1024 + 1) + b"]}", {}),
        (200, b"\x1f\x8b\x08", {"content-encoding": "gzip"}),
    ],
)
def test_key_documents_that_are_refused(issuer, tokens, status, body, headers):
    issuer.put("/keys", body, status, **headers)
    issuer.put("/elsewhere", {"keys": issuer.keys})
    unavailable(tokens, issuer.token())
    assert issuer.requests == ["/.well-known/openid-configuration", "/keys"]


def test_a_slow_answer(issuer, tokens, monkeypatch):
    monkeypatch.setattr(oidc_keys, "MAX_SECONDS", 0.2)
    issuer.delay = 1.0
    assert "did not answer" in unavailable(tokens, issuer.token()) or issuer.requests


def test_nobody_there():
    with pytest.raises(Unavailable):
        fetch("http://127.0.0.1:1/keys")


SMALL = rsa.generate_private_key(65537, 1024)


@pytest.mark.parametrize(
    "entry",
    [
        {**public_jwk(EC), "use": "enc", "kid": "x"},
        {**public_jwk(EC), "key_ops": ["encrypt"], "kid": "x"},
        {**public_jwk(EC), "key_ops": "verify", "kid": "x"},
        {**public_jwk(EC), "d": "AAAA", "kid": "x"},
        {**public_jwk(SMALL), "kid": "x"},
        {"kty": "oct", "k": "AAAA", "kid": "x"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "x"},
        {"kty": "RSA", "kid": "x"},
        {**public_jwk(EC), "kid": 7},
        "text",
    ],
)
def test_keys_that_are_passed_over(entry):
    good = public_jwk(RSA, kid="good")
    assert usable_keys({"keys": [entry, good]}).keys() == {"good", None}
    with pytest.raises(InputError):
        usable_keys({"keys": [entry]})


def test_keys_that_share_a_name_are_both_passed_over():
    other = ec.generate_private_key(ec.SECP256R1())
    keys = [public_jwk(EC, kid="a"), public_jwk(other, kid="a"), public_jwk(RSA, kid="b")]
    assert usable_keys({"keys": keys}).keys() == {"b"}


# --- how often --------------------------------------------------------------------------------------------------------


def test_ten_thousand_unknown_names_are_one_request(issuer, tokens):
    tokens.verify(issuer.token(), now=NOW)
    before = len(issuer.requests)
    late = NOW + timedelta(seconds=40)
    strange = [issuer.token(kid=f"k{n}") for n in range(50)]
    for n in range(10_000):
        with pytest.raises(TokenError):
            tokens.verify(strange[n % 50], now=late)
    assert len(issuer.requests) - before == 2  # discovery and keys, once
    assert tokens.verify(issuer.token(), now=late)


def test_many_threads_ask_once(issuer, tokens):
    issuer.delay = 0.1
    barrier, results = threading.Barrier(8), []

    def run():
        barrier.wait()
        results.append(tokens.verify(issuer.token(), now=NOW).subject)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["alice"] * 8
    assert len(issuer.requests) == 2


def test_a_new_key_is_found_after_the_cool_down(issuer, tokens):
    tokens.verify(issuer.token(), now=NOW)
    fresh = rsa.generate_private_key(65537, 2048)
    issuer.keys.append(public_jwk(fresh, kid="r2"))
    issuer.publish()
    token = issuer.token(key=fresh, kid="r2")
    assert code_of(tokens, token, NOW + timedelta(seconds=29)) == "UNKNOWN_KEY_ID"
    assert tokens.verify(token, now=NOW + timedelta(seconds=30)).subject == "alice"


def test_good_keys_outlive_an_outage_but_not_for_ever(issuer, tokens):
    tokens.verify(issuer.token(), now=NOW)
    issuer.answers.clear()
    for hours in (1, 12, 23):
        later = NOW + timedelta(hours=hours)
        assert tokens.verify(issuer.token(exp=T + 10**6), now=later)
    unavailable(tokens, issuer.token(exp=T + 10**6), NOW + timedelta(hours=25))


def test_a_key_that_was_withdrawn_is_gone_in_minutes(issuer, tokens):
    tokens.verify(issuer.token(), now=NOW)
    issuer.keys = issuer.keys[1:]
    issuer.publish()
    assert tokens.verify(issuer.token(), now=NOW + timedelta(seconds=299))
    later = NOW + timedelta(seconds=301)
    assert code_of(tokens, issuer.token(), later) == "UNKNOWN_KEY_ID"


def test_an_issuer_that_left_the_policy(issuer):
    configured = [issuer.policy()]
    tokens = OidcTokens(lambda: tuple(configured))
    tokens.verify(issuer.token(), now=NOW)
    configured.clear()
    assert code_of(tokens, issuer.token()) == "UNAUTHORIZED_ISSUER"
    configured.append(issuer.policy(jwks=f"{issuer.url}/keys"))
    assert tokens.verify(issuer.token(), now=NOW)
    assert len(tokens._keys) == 1


# --- what is believed -------------------------------------------------------------------------------------------------


def test_an_id_token(issuer, tokens):
    user = tokens.verify(
        issuer.token(
            acr="mfa",
            amr=["pwd", "otp"],
            auth_time=T - 60,
            email="alice@shop.example",
            email_verified=True,
            nonce="n",
            at_hash="h",
        ),
        now=NOW,
    )
    assert (user.subject, user.idp, user.roles) == ("alice", issuer.url, frozenset({"clerk"}))
    assert (user.acr, user.amr, user.auth_time) == ("mfa", ("pwd", "otp"), T - 60)
    assert (user.email, user.expires_at) == ("alice@shop.example", T + 3600)


@pytest.mark.parametrize("verified", [None, False, "true", 1])
def test_an_address_that_nobody_checked(issuer, tokens, verified):
    token = issuer.token(email="alice@shop.example", email_verified=verified)
    assert tokens.verify(token, now=NOW).email is None


@pytest.mark.parametrize(
    ("path", "claims", "roles"),
    [
        (("realm_access", "roles"), {"realm_access": {"roles": ["a", "b"]}}, {"a", "b"}),
        (("realm_access", "roles"), {}, set()),
        (("realm_access", "roles"), {"realm_access": {}}, set()),
        (("group",), {"group": "staff"}, {"staff"}),
    ],
)
def test_where_roles_are(issuer, path, claims, roles):
    tokens = OidcTokens(lambda: (issuer.policy(roles=path),))
    assert tokens.verify(issuer.token(**claims), now=NOW).roles == roles


def test_a_path_through_something_else(issuer):
    tokens = OidcTokens(lambda: (issuer.policy(roles=("roles", "inner")),))
    assert code_of(tokens, issuer.token()) == "TOKEN_MALFORMED"


def test_an_access_token_and_another_algorithm(issuer, tokens):
    token = issuer.token(EC, "ES256", "e1", header={"typ": "at+jwt"}, aud=["shop-mobile"])
    assert tokens.verify(token, now=NOW).subject == "alice"


def test_several_audiences(issuer, tokens):
    assert tokens.verify(issuer.token(aud=["shop", "other"], azp="shop"), now=NOW)


def test_a_fraction_of_a_second(issuer, tokens):
    assert tokens.verify(issuer.token(auth_time=T + 0.5), now=NOW).auth_time == T


def test_keys_at_an_address_of_the_policy(issuer):
    tokens = OidcTokens(lambda: (issuer.policy(jwks=f"{issuer.url}/keys"),))
    assert tokens.verify(issuer.token(), now=NOW)
    assert issuer.requests == ["/keys"]
