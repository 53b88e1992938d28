# SPDX-License-Identifier: Apache-2.0
"""What a good access token says, to the second and to the byte; the refusals are in test_hostile.py."""

import json
from datetime import timedelta

import pytest
from tests.support.identity import NOW
from tests.support.tokens import AT, EC_SIGNER, ISSUER, KEYS, ORDERS, RSA_SIGNER, STOREFRONT, X5T, mint_access
from tests.vectors.token_maker import Maker, Signer

from everyhop.core.errors import TokenError
from everyhop.tokens import TokenMint, verify_access_token
from everyhop.tokens.limits import MAX_TOKEN_BYTES

CLAIMS = {
    "iss": ISSUER,
    "sub": ORDERS,
    "client_id": ORDERS,
    "aud": "payments",
    "jti": "j",
    "iat": AT,
    "exp": AT + 300,
}
MAKE = Maker(Signer(EC_SIGNER._key, "k1"), CLAIMS)


def verify(token, now=NOW):
    return verify_access_token(token, KEYS, issuer=ISSUER, now=now)


def code(token, now=NOW):
    with pytest.raises(TokenError) as refusal:
        verify(token, now)
    return refusal.value.token_code


def test_every_claim_arrives():
    token = verify(mint_access(txn="t1", subject="alice", actors=[ORDERS, STOREFRONT]))
    assert token.issuer == ISSUER
    assert (token.subject, token.client_id, token.actors) == ("alice", ORDERS, (ORDERS, STOREFRONT))
    assert (token.audience, token.scope) == ("payments", {"payments.charge"})
    assert (token.jti, token.txn, token.kid) == ("j1", "t1", "k1")
    assert (token.issued_at, token.expires_at, token.not_before) == (AT, AT + 300, None)
    assert (token.x5t, token.jkt) == (X5T, None)


def test_rs256_is_taken_from_its_own_key():
    assert verify(mint_access(TokenMint(RSA_SIGNER))).kid == "r1"


def test_what_may_be_left_out():
    token = verify(MAKE.good())
    assert (token.scope, token.x5t, token.jkt, token.txn, token.actors) == (frozenset(), None, None, None, ())


def test_claims_that_nobody_knows_are_tolerated():
    assert verify(MAKE.with_claims(**{"https://example/x": {"a": [1, 2.5, None]}})).jti == "j"


def test_json_may_be_written_with_blanks_and_escapes():
    text = json.dumps({**CLAIMS, "note": "é\u2028"}, indent=2).replace("payments", "p\\u0061yments").encode()
    assert verify(MAKE.with_payload(text)).audience == "payments"


@pytest.mark.parametrize(("late", "refused"), [(0, None), (304, None), (305, "TOKEN_EXPIRED")])
def test_exp_to_the_second(late, refused):
    now = NOW + timedelta(seconds=late)
    assert (code(MAKE.good(), now) if refused else None) == refused
    if refused is None:
        verify(MAKE.good(), now)


@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_the_start_to_the_second(name):
    verify(MAKE.with_claims(**{name: AT + 30}))
    assert code(MAKE.with_claims(**{name: AT + 31})) == "TOKEN_INVALID"


def test_the_lifetime_to_the_second():
    verify(MAKE.with_claims(exp=AT + 3600))
    assert code(MAKE.with_claims(exp=AT + 3601)) == "TOKEN_INVALID"


def test_the_size_to_the_byte():
    room = next(n for n in range(6000, 0, -1) if len(MAKE.with_claims(pad="a" * n)) <= MAX_TOKEN_BYTES)
    verify(MAKE.with_claims(pad="a" * room))
    assert code(MAKE.with_claims(pad="a" * (room + 2))) == "TOKEN_MALFORMED"


def test_four_actors_and_no_more():
    chain = [ORDERS, "a", "b", "c"]
    assert verify(mint_access(subject="alice", actors=chain)).actors == tuple(chain)


def test_a_nested_scope_is_not_a_list_of_characters():
    assert verify(MAKE.with_claims(scope="a b")).scope == {"a", "b"}


def test_ids_to_the_character():
    verify(MAKE.with_claims(jti="j" * 256))
    assert code(MAKE.with_claims(jti="j" * 257)) == "TOKEN_MALFORMED"


def test_another_error_inside_becomes_a_refusal():
    class Broken:
        def key(self, kid):
            raise RecursionError

        def current(self, kid):
            raise ZeroDivisionError

    with pytest.raises(TokenError) as refusal:
        verify_access_token(MAKE.good(), Broken(), issuer=ISSUER, now=NOW)
    assert refusal.value.token_code == "TOKEN_MALFORMED"
    assert "RecursionError" in refusal.value.message


def test_the_cache_of_headers_holds_good_ones_only_and_is_bounded():
    from everyhop.tokens import compact

    compact._seen_headers.clear()
    assert code(MAKE.with_header(typ="JWT")) == "TOKEN_INVALID"
    assert code(MAKE.with_signature(lambda raw: raw[::-1])) == "TOKEN_INVALID"
    assert not compact._seen_headers
    verify(MAKE.good())
    assert len(compact._seen_headers) == 1
    for n in range(100):
        verify(MAKE.with_raw_header(json.dumps(MAKE.header, indent=n + 1).encode()))
    assert len(compact._seen_headers) <= 64
