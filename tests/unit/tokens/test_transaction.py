# SPDX-License-Identifier: Apache-2.0
"""Transaction tokens: forged, stale or odd ones are refused with their code; a good one says what it says."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.identity import NOW, FakeClock
from tests.vectors.hostile_tokens import Signer, hostile_txn_tokens, txn_maker
from tests.vectors.token_maker import ABSENT

from everyhop.core.errors import TokenError
from everyhop.jose import Jwk
from everyhop.tokens import KeySet, PinnedKey, Revocations, StaticKeys, TokenVerifier, verify_txn_token

SIGNER = Signer(ec.generate_private_key(ec.SECP256R1()), "k1")
KEYS = StaticKeys(KeySet([PinnedKey.pin(Jwk(key=SIGNER.key.public_key(), kid="k1", use="sig"))]))
ISSUER, DOMAIN = "https://127.0.0.1:8443", "shop.example"
PEER = "spiffe://shop.example/service/storefront"
COMMON = {"issuer": ISSUER, "trust_domain": DOMAIN, "requester": PEER, "now": int(NOW.timestamp())}
MAKE = txn_maker(SIGNER, **COMMON)


def verify(token):
    return verify_txn_token(token, KEYS, issuer=ISSUER, trust_domain=DOMAIN, now=NOW)


def verifier(**changes):
    return TokenVerifier(KEYS, issuer=ISSUER, trust_domain=DOMAIN, clock=FakeClock(NOW), **changes)


@pytest.mark.parametrize("case", hostile_txn_tokens(SIGNER, **COMMON), ids=lambda case: case.name)
def test_each_is_refused_with_its_code(case):
    for check in (verify, verifier().transaction):
        with pytest.raises(TokenError) as refusal:
            check(case.token)
        assert refusal.value.token_code == case.code


def test_the_set_is_named_uniquely():
    cases = hostile_txn_tokens(SIGNER, **COMMON)
    assert len(cases) >= 110
    assert len({case.name for case in cases}) == len(cases)


def test_a_good_one():
    token = verify(MAKE.good())
    assert (token.subject, token.requester, token.roles, token.kind) == ("alice", PEER, ("clerk",), "user")
    assert token.scope == {"orders.create"}
    assert token.context["amr"] == ["pwd"]
    assert token.request_context == {"ip": "192.0.2.1"}
    with pytest.raises(TypeError):
        token.context["roles"] = ["admin"]
    assert verifier().transaction(MAKE.good()) == token


def test_what_may_be_left_out():
    context = {"idp": "apikey", "kind": "client"}
    token = verify(MAKE.with_claims(tctx=context, rctx=ABSENT, scope=ABSENT))
    assert (token.roles, token.scope, token.request_context) == ((), frozenset(), {})


@pytest.mark.parametrize("token", [None, ""])
def test_none_is_missing(token):
    with pytest.raises(TokenError) as refusal:
        verifier().transaction(token)
    assert refusal.value.token_code == "MISSING_TOKEN"


def test_a_transaction_that_was_revoked_is_over_also_when_seen_before():
    here, token = verifier(), MAKE.good()
    here.transaction(token)
    for revoked in (
        Revocations(txns={MAKE.claims["txn"]: COMMON["now"] + 300}),
        Revocations(jtis={MAKE.claims["jti"]: COMMON["now"] + 300}),
        Revocations(kids=frozenset({"k1"})),
    ):
        here.revoke(revoked)
        with pytest.raises(TokenError) as refusal:
            here.transaction(token)
        assert refusal.value.token_code == "TOKEN_REVOKED"
    here.revoke(Revocations(txns={"another": 1}))
    assert here.transaction(token).subject == "alice"
