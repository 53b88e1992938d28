# SPDX-License-Identifier: Apache-2.0
"""Any text gives a TokenError or a right token; what is near a good token is refused; others agree on what is taken.

The others are PyJWT and joserfc, asked for the same issuer, audience and time.
"""

import json

import joserfc.errors
import joserfc.jwk
import joserfc.jwt
import jwt
import pytest
from hypothesis import example, given, strategies as st
from tests.support.identity import NOW, FakeClock
from tests.support.tokens import (
    AT,
    DOMAIN,
    EC_SIGNER,
    ISSUER,
    KEY_SET,
    KEYS,
    MINT,
    ORDERS,
    RSA_SIGNER,
    STOREFRONT,
    X5T,
    mint_access,
    mint_txn,
)
from tests.vectors.token_maker import b64

from everyhop.core.errors import InputError, TokenError
from everyhop.jose import decode_base64url
from everyhop.jose.strict_json import parse_claims, parse_json_object
from everyhop.tokens import (
    Expectation,
    MemoryReplayGuard,
    TokenMint,
    TokenVerifier,
    parse_jwks,
    verify_access_token,
    verify_dpop,
    verify_line,
    verify_txn_token,
)

GOOD = mint_access()
GOOD_TXN = mint_txn()
ANYWHERE = st.integers(0, len(GOOD) - 1)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n\0"
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=40)
SCOPE_TOKENS = st.text("abcdefghij.:*/-_!#", min_size=1, max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
CLAIM_NAMES = st.sampled_from(
    ["iss", "sub", "client_id", "aud", "scope", "jti", "iat", "exp", "nbf", "cnf", "txn", "act", "x"]
)


def verify(token):
    return verify_access_token(token, KEYS, issuer=ISSUER, now=NOW)


def signed(header, payload):
    signing_input = f"{b64(header)}.{b64(payload)}"
    return f"{signing_input}.{b64(EC_SIGNER.sign(signing_input.encode()))}"


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")) | st.text(ALPHABET, max_size=300))
@example("." * 8000)
@example("\udc80.\udc80.\udc80")
def test_any_text_is_refused_and_nothing_else_is_raised(text):
    guard = MemoryReplayGuard(FakeClock())
    verifier = TokenVerifier(KEYS, issuer=ISSUER, trust_domain=DOMAIN, clock=FakeClock())
    for check in (
        verify,
        lambda t: verify_txn_token(t, KEYS, issuer=ISSUER, trust_domain=DOMAIN, now=NOW),
        lambda t: verify_dpop(t, htm="GET", htu="https://a/", ath=None, now=NOW, replay=guard),
        lambda t: verifier.access(t, Expectation(audience="payments")),
        verifier.transaction,
    ):
        try:
            check(text)
        except TokenError:
            continue
        raise AssertionError(text)
    assert verify_line(text, KEY_SET, issuer=ISSUER, service="payments", now=NOW)["ok"] is False


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_signed_payload_and_header(data):
    for token in (signed({"alg": "ES256", "kid": "k1", "typ": "at+jwt"}, data), signed(data, b"{}")):
        try:
            verify(token)
        except TokenError:
            continue
        raise AssertionError(data)


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps({"keys": [value]}).encode()))
def test_any_key_set_is_refused_as_input(data):
    try:
        parse_jwks(data)
    except InputError:
        return
    raise AssertionError(data)


@given(ANYWHERE, st.sampled_from(ALPHABET))
def test_one_character_changed(place, character):
    token = GOOD[:place] + character + GOOD[place + 1 :]
    if token == GOOD:
        return
    try:
        verify(token)
    except TokenError:
        return
    raise AssertionError(token)


@given(ANYWHERE, ANYWHERE, st.integers(0, 3))
def test_a_piece_cut_out_or_doubled(first, second, repeat):
    start, end = sorted((first, second))
    token = GOOD[:start] + GOOD[start:end] * repeat + GOOD[end:]
    if token == GOOD:
        return
    try:
        verify(token)
    except TokenError:
        return
    raise AssertionError(token)


@given(st.integers(0, 511))
def test_one_bit_of_the_signature(bit):
    head, _, signature = GOOD.rpartition(".")
    raw = bytearray(decode_base64url(signature))
    raw[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(TokenError) as refusal:
        verify(f"{head}.{b64(bytes(raw))}")
    assert refusal.value.token_code == "TOKEN_INVALID"


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps({"a": value}).encode()))
@example(b'{"a":1,"a":1}')
@example(b'{"a":{"b":[{"c":1,"c":1}]}}')
@example(b'{ "a" : 1 }')
@example('{"é":"\\u00e9"}'.encode())
def test_the_quick_reader_and_the_long_one_agree(data):
    answers = []
    for read in (parse_claims, parse_json_object):
        try:
            answers.append(read(data))
        except InputError:
            answers.append(None)
    assert answers[0] == answers[1]


def theirs(token, audience):
    """What PyJWT and joserfc make of a token, or None when they refuse."""
    found = []
    try:
        found.append(
            jwt.decode(
                token,
                EC_SIGNER.public().key,
                algorithms=["ES256"],
                audience=audience,
                issuer=ISSUER,
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        )
    except jwt.PyJWTError:
        found.append(None)
    try:
        key = joserfc.jwk.import_key(EC_SIGNER.public().to_members())
        claims = joserfc.jwt.decode(token, key, algorithms=["ES256"]).claims
        registry = joserfc.jwt.JWTClaimsRegistry(
            now=lambda: AT,
            iss={"essential": True, "value": ISSUER},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
        )
        registry.validate(claims)
        found.append(claims)
    except (joserfc.errors.JoseError, ValueError):
        found.append(None)
    return found


@given(
    NAMES,
    st.sets(SCOPE_TOKENS, max_size=5),
    NAMES,
    st.none() | NAMES,
    st.integers(1, 3600),
    st.lists(NAMES, max_size=3),
)
def test_a_good_token_is_good_everywhere_and_says_the_same(audience, scope, jti, txn, life, chain):
    actors = [ORDERS, *chain] if chain else []
    token = mint_access(
        audience=audience,
        scope=sorted(scope),
        jti=jti,
        txn=txn,
        expires_at=AT + life,
        subject="alice" if chain else ORDERS,
        actors=actors,
    )
    ours = verify(token)
    assert (ours.audience, ours.scope, ours.jti, ours.txn) == (audience, scope, jti, txn)
    assert ours.actors == tuple(actors)
    for claims in theirs(token, audience):
        assert claims is not None
        assert (claims["jti"], claims["aud"], claims["exp"]) == (jti, audience, AT + life)
        assert set(claims.get("scope", "").split()) == scope


@given(st.dictionaries(CLAIM_NAMES, JSON, max_size=3), st.sets(CLAIM_NAMES, max_size=1))
def test_what_we_take_they_take_with_the_same_claims(changes, left_out):
    claims = json.loads(decode_base64url(GOOD.split(".")[1]))
    claims = {name: value for name, value in {**claims, **changes}.items() if name not in left_out}
    token = signed({"alg": "ES256", "kid": "k1", "typ": "at+jwt"}, json.dumps(claims).encode())
    try:
        ours = verify(token)
    except TokenError:
        return
    for found in theirs(token, ours.audience):
        assert found is not None
        assert (found["sub"], found["client_id"], found["exp"]) == (
            ours.subject,
            ours.client_id,
            ours.expires_at,
        )


@given(
    st.lists(st.text("abcxyz-_", min_size=1, max_size=12), max_size=8), st.sampled_from(["user", "client"])
)
def test_transactions_come_back(roles, kind):
    made = mint_txn(tctx={"idp": "https://idp.example", "kind": kind, "roles": roles})
    token = verify_txn_token(made, KEYS, issuer=ISSUER, trust_domain=DOMAIN, now=NOW)
    assert (list(token.roles), token.kind, token.requester) == (roles, kind, STOREFRONT)


@given(ANYWHERE, st.sampled_from(ALPHABET))
def test_one_character_of_a_transaction_changed(place, character):
    place %= len(GOOD_TXN)
    token = GOOD_TXN[:place] + character + GOOD_TXN[place + 1 :]
    if token == GOOD_TXN:
        return
    try:
        verify_txn_token(token, KEYS, issuer=ISSUER, trust_domain=DOMAIN, now=NOW)
    except TokenError:
        return
    raise AssertionError(token)


def test_rs256_is_good_everywhere():
    token = mint_access(TokenMint(RSA_SIGNER))
    key = RSA_SIGNER.public().key
    options = {"verify_exp": False, "verify_iat": False}
    claims = jwt.decode(token, key, algorithms=["RS256"], audience="payments", options=options)
    assert claims["cnf"] == {"x5t#S256": X5T}
    assert verify(token).x5t == X5T
    assert MINT.alg == "ES256"
