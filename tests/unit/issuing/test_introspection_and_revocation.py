# SPDX-License-Identifier: Apache-2.0
"""Who is told about a token, who may take it back, and what that ends."""

from datetime import timedelta

import pytest
from tests.support.issuer import JKT, X5T, spiffe

from everyhop.auditlog import RecordFilter
from everyhop.issuing import ADMIN, GrantRefused, OAuthError, RevokedKind, TokenType

INACTIVE = {"active": False}


def active(issuer, token, asker=ADMIN):
    return issuer.service.introspect(token, asker=asker)["active"]


# --- introspection ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asker", ["storefront", "ledger", "auditor", "stranger"])
def test_a_service_that_the_token_does_not_concern(issuer, asker):
    token = issuer.mint("orders", "payments", operation="charge").token
    assert issuer.service.introspect(token, asker=spiffe(asker)) == INACTIVE


@pytest.mark.parametrize("asker", ["", "payments", "Admin", "spiffe://other.example/service/payments"])
def test_an_asker_that_is_nobody(issuer, asker):
    assert issuer.service.introspect(issuer.mint().token, asker=asker) == INACTIVE


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "." * 40_000, "é.é.é"])
def test_nonsense_is_inactive_even_for_the_owner(issuer, token):
    assert issuer.service.introspect(token, asker=ADMIN) == INACTIVE


def test_an_api_key_or_a_users_token_is_none_of_ours(issuer):
    for token in (issuer.api_key(), issuer.signed_in()):
        assert issuer.service.introspect(token, asker=ADMIN) == INACTIVE


def test_what_has_ended(issuer):
    token = issuer.mint().token
    issuer.clock.advance(timedelta(seconds=306))
    assert not active(issuer, token)


def test_audience_client_and_owner(issuer):
    issued = issuer.mint("orders", "payments", operation="charge")
    answer = issuer.service.introspect(issued.token, asker=spiffe("payments"))
    assert answer == {
        "active": True,
        "iss": issuer.settings.issuer,
        "sub": spiffe("orders"),
        "client_id": spiffe("orders"),
        "aud": "payments#charge",
        "scope": "payments.charge",
        "jti": issued.jti,
        "iat": issued.issued_at,
        "exp": issued.expires_at,
        "token_type": "Bearer",
        "cnf": {"x5t#S256": X5T},
    }
    for asker in (spiffe("orders"), ADMIN):
        assert issuer.service.introspect(issued.token, asker=asker) == answer


def test_a_dpop_token_and_its_chain(issuer):
    received = issuer.mint("storefront", "orders", x5t=None, jkt=JKT).token
    assert issuer.service.introspect(received, asker=ADMIN)["token_type"] == "DPoP"
    first = issuer.exchange("orders", received, target="payments").token
    second = issuer.exchange("payments", first, target="ledger").token
    answer = issuer.service.introspect(second, asker=spiffe("ledger"))
    assert answer["act"] == {"sub": spiffe("payments"), "act": {"sub": spiffe("orders")}}
    assert answer["sub"] == spiffe("storefront")
    assert issuer.service.introspect(second, asker=spiffe("storefront")) == INACTIVE


def test_a_transaction_token(issuer):
    txn = issuer.transaction()
    answer = issuer.service.introspect(txn.token, asker=spiffe("orders"))
    assert answer["active"]
    assert (answer["sub"], answer["txn"], answer["req_wl"]) == ("alice", txn.txn, spiffe("storefront"))
    assert answer["tctx"]["roles"] == ["clerk", "viewer"]
    assert active(issuer, txn.token, spiffe("storefront"))
    assert not active(issuer, txn.token, spiffe("auditor"))


# --- revocation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asker", ["payments", "storefront", "stranger"])
def test_somebody_elses_token(issuer, asker):
    token = issuer.mint("orders", "payments").token
    with pytest.raises(GrantRefused) as caught:
        issuer.service.revoke(token, asker=spiffe(asker))
    assert caught.value.error is OAuthError.UNAUTHORIZED_CLIENT
    assert issuer.journal.refusals[-1].action == "revoke"
    assert active(issuer, token)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "." * 40_000])
def test_an_unknown_token_is_nothing(issuer, token):
    before = issuer.service.truth().sequence
    assert issuer.service.revoke(token, asker=spiffe("orders")) is False
    assert issuer.service.truth().sequence == before


def test_what_has_ended_needs_no_revocation(issuer):
    token = issuer.mint().token
    issuer.clock.advance(timedelta(minutes=10))
    assert issuer.service.revoke(token, asker=spiffe("orders")) is False
    assert not issuer.storage.issuing.load().revocations


@pytest.mark.parametrize("asker", [spiffe("orders"), ADMIN])
def test_the_client_or_the_owner(issuer, asker):
    issued, other = issuer.mint(), issuer.mint()
    before = issuer.service.truth()
    assert issuer.service.revoke(issued.token, asker=asker)
    after = issuer.service.truth()
    assert after.sequence == before.sequence + 1
    assert after.revocations.jtis == {issued.jti: issued.expires_at + 10}
    assert not active(issuer, issued.token)
    assert active(issuer, other.token)
    record = issuer.storage.records.query(RecordFilter()).records[0]
    assert (record.kind.value, record.operation, record.caller) == ("token", "revoke", asker)
    assert record.detail["jti"] == issued.jti
    assert issuer.service.revoke(issued.token, asker=asker) is False


def test_a_transaction_takes_everything_with_it(issuer):
    txn = issuer.transaction()
    narrow = issuer.exchange("orders", txn.token, TokenType.TRANSACTION, roles=["viewer"]).token
    bound = issuer.exchange("orders", txn.token, TokenType.TRANSACTION, "payments").token
    other = issuer.transaction("bob").token
    assert issuer.service.revoke(txn.token, asker=spiffe("storefront"))
    assert [active(issuer, t) for t in (txn.token, narrow, bound, other)] == [False, False, False, True]
    assert issuer.service.truth().revocations.txns.keys() == {txn.txn}


def test_a_user_is_signed_out_everywhere(issuer):
    token = issuer.signed_in()
    before = issuer.exchange("storefront", token, TokenType.ID).token
    bound = issuer.exchange("orders", before, TokenType.TRANSACTION, "payments").token
    issuer.service.revoke_subject("alice")
    assert not active(issuer, before)
    assert not active(issuer, bound)
    issuer.clock.advance(timedelta(seconds=1))
    assert active(issuer, issuer.exchange("storefront", token, TokenType.ID).token)


def test_an_api_key_that_ends_takes_its_transactions_with_it(issuer):
    for end in (issuer.api_keys.revoke, lambda lookup: issuer.api_keys.set_enabled(lookup, enabled=False)):
        key = issuer.api_key()
        txn = issuer.exchange("storefront", key, TokenType.API_KEY).token
        sequence = issuer.service.truth().sequence
        end(key.split("_")[3])
        assert not active(issuer, txn)
        assert issuer.service.truth().sequence == sequence + 1


def test_revocations_end_with_what_they_name(issuer):
    issuer.service.revoke(issuer.mint().token, asker=ADMIN)
    issuer.service.revoke_transaction("some")
    issuer.service.revoke_subject("alice")
    issuer.clock.advance(timedelta(seconds=320))
    assert not issuer.service.truth().revocations.jtis
    before = issuer.service.sequence()
    issuer.keys.tick(before)
    assert issuer.service.sequence() == before  # a while later, together
    issuer.clock.advance(timedelta(seconds=60))
    issuer.keys.tick(before)
    assert issuer.service.sequence() == before + 1
    assert issuer.keys.tick(before + 1) == ()
    assert [r.kind for r in issuer.storage.issuing.load().revocations] == [RevokedKind.SUBJECT]
    issuer.clock.advance(timedelta(hours=1))
    issuer.keys.tick(issuer.service.truth().sequence)
    assert not issuer.storage.issuing.load().revocations


def test_one_client_cannot_fill_the_memory_for_all(make):
    issuer = make(max_revocations_each=3)
    for _ in range(3):
        issuer.service.revoke(issuer.mint().token, asker=spiffe("orders"))
    token = issuer.mint().token
    with pytest.raises(GrantRefused) as caught:
        issuer.service.revoke(token, asker=spiffe("orders"))
    assert caught.value.status == 429
    assert active(issuer, token)
    other = issuer.mint("storefront", "orders").token
    assert issuer.service.revoke(other, asker=spiffe("storefront"))
    assert issuer.service.revoke(token, asker=ADMIN)


def test_the_memory_has_an_end_but_the_owner_is_not_stopped(make):
    issuer = make(max_revocations=2)
    for txn in ("a", "b", "c"):
        issuer.service.revoke_transaction(txn)
    with pytest.raises(GrantRefused):
        issuer.service.revoke(issuer.mint().token, asker=spiffe("orders"))
    assert len(issuer.storage.issuing.load().revocations) == 3
