# SPDX-License-Identifier: Apache-2.0
"""Token exchange: every way to come out with more than went in, refused and recorded; then what is given."""

from datetime import timedelta

import jwt
import pytest
from tests.support.issuer import ISSUER, JKT, POLICY, X5T, IssuerUnderTest, spiffe

from everyhop.core.errors import Unavailable
from everyhop.issuing import GrantRefused, IssuingSettings, OAuthError, TokenType
from everyhop.storage import open_storage
from everyhop.tokens import TxnClaims


def claims_of(token):
    return jwt.decode(token, options={"verify_signature": False})


def refused(issuer, error, *arguments, code=None, **named):
    """Demand a refusal and its record; return it."""
    before = len(issuer.journal.refusals)
    with pytest.raises(GrantRefused) as caught:
        issuer.exchange(*arguments, **named)
    assert caught.value.error is error, caught.value
    assert caught.value.token_code == code
    assert len(issuer.journal.refusals) == before + 1
    assert issuer.journal.refusals[-1].refused == error
    recorded = repr(issuer.journal.refusals[-1])
    tokens = [one for one in arguments if one is not None and len(one) > 40 and one not in set(TokenType)]
    assert not any(token in recorded for token in tokens)
    return caught.value


@pytest.fixture
def received(issuer):
    """A token that orders received from storefront."""
    return issuer.mint("storefront", "orders").token


# --- hopping to another audience --------------------------------------------------------------------------------------


def test_a_token_that_was_given_to_another_service(issuer, received):
    refused(
        issuer,
        OAuthError.INVALID_REQUEST,
        "payments",
        received,
        target="ledger",
        code="AUDIENCE_MISMATCH",
    )


def test_a_token_of_ones_own(issuer):
    own = issuer.mint("orders", "payments").token
    refused(issuer, OAuthError.INVALID_REQUEST, "orders", own, target="payments", code="AUDIENCE_MISMATCH")


def test_a_target_that_the_policy_does_not_open_to_the_asker(issuer, received):
    refused(issuer, OAuthError.ACCESS_DENIED, "orders", received, target="ledger")
    refused(issuer, OAuthError.INVALID_TARGET, "orders", received, target="nowhere")
    refused(issuer, OAuthError.INVALID_TARGET, "orders", received, target="payments#charge")


def test_the_rights_of_the_subject_are_not_the_askers(issuer):
    token = issuer.mint("payments", "ledger").token
    refused(issuer, OAuthError.ACCESS_DENIED, "ledger", token, target="payments")


def test_no_target(issuer, received):
    refused(
        issuer,
        OAuthError.INVALID_TARGET,
        "orders",
        received,
        requested_token_type=TokenType.ACCESS,
    )


# --- more scope -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", [["refund"], ["list", "refund"], ["ledger.write"], ["charge"], []])
def test_more_scope_than_the_policy_grants_the_asker(issuer, received, scope):
    refused(issuer, OAuthError.INVALID_SCOPE, "orders", received, target="payments", scope=scope)


def test_an_operation_that_is_not_granted(issuer, received):
    refused(issuer, OAuthError.ACCESS_DENIED, "orders", received, target="payments", operation="refund")


def test_more_than_the_transaction_is_for(issuer):
    txn = issuer.transaction(scope=["orders.read", "payments.list"]).token
    assert issuer.exchange("orders", txn, TokenType.TRANSACTION, "payments").scope == {"payments.list"}
    refused(
        issuer,
        OAuthError.INVALID_SCOPE,
        "orders",
        txn,
        TokenType.TRANSACTION,
        "payments",
        scope=["status"],
    )
    refused(
        issuer,
        OAuthError.INVALID_SCOPE,
        "orders",
        txn,
        TokenType.TRANSACTION,
        "payments",
        operation="charge",
    )


def test_a_transaction_for_another_service_is_for_nothing_here(issuer):
    txn = issuer.transaction(scope=["orders.read"]).token
    refused(issuer, OAuthError.INVALID_SCOPE, "orders", txn, TokenType.TRANSACTION, "payments")


def test_a_limit_is_not_lost_through_a_token_that_is_bound_to_the_transaction(issuer):
    txn = issuer.transaction(scope=["payments.list"]).token
    bound = issuer.exchange("orders", txn, TokenType.TRANSACTION, "payments").token
    refused(issuer, OAuthError.INVALID_REQUEST, "payments", bound, target="ledger")


# --- somebody else as the actor ---------------------------------------------------------------------------------------


def test_an_actor_token_of_another_caller(issuer, received):
    other = issuer.mint("payments", "ledger").token
    refused(
        issuer,
        OAuthError.INVALID_REQUEST,
        "orders",
        received,
        target="payments",
        actor_token=other,
        actor_token_type=TokenType.ACCESS,
        code="BINDING_MISMATCH",
    )
    issuer.workloads.known["svid of payments"] = spiffe("payments")
    refused(
        issuer,
        OAuthError.INVALID_REQUEST,
        "orders",
        received,
        target="payments",
        actor_token="svid of payments",
        actor_token_type=TokenType.JWT,
        code="BINDING_MISMATCH",
    )


def test_an_actor_token_on_behalf_of_the_peer_is_not_the_peers(issuer, received):
    behalf = issuer.exchange(
        "orders", received, target="payments"
    ).token  # its actor is orders, not storefront
    refused(
        issuer,
        OAuthError.INVALID_REQUEST,
        "storefront",
        issuer.mint("storefront", "orders").token,
        target="orders",
        actor_token=behalf,
        actor_token_type=TokenType.ACCESS,
        code="BINDING_MISMATCH",
    )


@pytest.mark.parametrize(
    ("actor", "code"),
    [
        ({"actor_token": "nonsense", "actor_token_type": TokenType.ACCESS}, "TOKEN_MALFORMED"),
        ({"actor_token": "nonsense", "actor_token_type": TokenType.JWT}, "TOKEN_INVALID"),
        ({"actor_token": "nonsense", "actor_token_type": TokenType.ID}, None),
        ({"actor_token": "nonsense"}, None),
        ({"actor_token_type": TokenType.ACCESS}, None),
    ],
)
def test_actor_tokens_that_are_nothing(issuer, received, actor, code):
    refused(issuer, OAuthError.INVALID_REQUEST, "orders", received, target="payments", code=code, **actor)


def test_an_actor_token_of_the_peer_changes_nothing(issuer, received):
    own = issuer.mint("orders", "payments").token
    issuer.workloads.known["svid"] = spiffe("orders")
    for actor in (
        {"actor_token": own, "actor_token_type": TokenType.ACCESS},
        {"actor_token": "svid", "actor_token_type": TokenType.JWT},
    ):
        claims = claims_of(issuer.exchange("orders", received, target="payments", **actor).token)
        assert claims["act"] == {"sub": spiffe("orders")}


def test_an_undeclared_asker(issuer, received):
    refused(issuer, OAuthError.ACCESS_DENIED, "stranger", received, target="payments")


# --- the chain --------------------------------------------------------------------------------------------------------

CHAIN = b"""
version: 1
trust_domain: shop.example
services:
"""
CHAIN += b"".join(
    b"  s%d: {workload: [{run: true}], operations: {go: {route: GET /, token: required}}}\n" % n
    for n in range(7)
)
CHAIN += b"allow:\n" + b"".join(
    b"  - {from: s%d, to: s%d, operations: [go]}\n" % (n, n + 1) for n in range(6)
)


def test_a_chain_of_four_and_not_of_five(issuer):
    issuer.set_policy(CHAIN)
    token = issuer.mint("s0", "s1").token
    for hop in range(1, 5):
        token = issuer.exchange(f"s{hop}", token, target=f"s{hop + 1}").token
    claims = claims_of(token)
    assert (claims["sub"], claims["client_id"]) == (spiffe("s0"), spiffe("s4"))
    chain, act = [], claims["act"]
    while act:
        chain.append(act["sub"])
        act = act.get("act")
    assert chain == [spiffe(f"s{n}") for n in (4, 3, 2, 1)]
    refused(issuer, OAuthError.INVALID_REQUEST, "s5", token, target="s6")


# --- time -------------------------------------------------------------------------------------------------------------


def test_an_expired_token(issuer, received):
    issuer.clock.advance(timedelta(seconds=305))
    refused(issuer, OAuthError.INVALID_REQUEST, "orders", received, target="payments", code="TOKEN_EXPIRED")


def test_the_skew_of_a_verifier_gives_no_new_life(issuer, received):
    issuer.clock.advance(timedelta(seconds=301))  # a verifier would still take it
    refused(issuer, OAuthError.INVALID_REQUEST, "orders", received, target="payments", code="TOKEN_EXPIRED")


def test_never_for_longer_than_the_subject_token(issuer, received):
    end = claims_of(received)["exp"]
    issuer.clock.advance(timedelta(seconds=200))
    assert issuer.exchange("orders", received, target="payments").expires_at == end
    asked = issuer.exchange("orders", received, target="payments", ttl=timedelta(seconds=300))
    assert asked.expires_at == end
    assert issuer.exchange("orders", received, target="payments", ttl=timedelta(seconds=9)).expires_in == 9


def test_a_transaction_is_not_made_longer_by_narrowing_it(issuer):
    txn = issuer.transaction()
    issuer.clock.advance(timedelta(seconds=120))
    again = issuer.exchange("orders", txn.token, TokenType.TRANSACTION)
    assert again.expires_at == txn.expires_at
    issuer.clock.advance(timedelta(seconds=181))
    refused(
        issuer,
        OAuthError.INVALID_REQUEST,
        "orders",
        again.token,
        TokenType.TRANSACTION,
        code="TOKEN_EXPIRED",
    )


def test_a_transaction_ends_with_what_it_was_made_from(issuer):
    token = issuer.signed_in(life=60)
    assert issuer.exchange("storefront", token, TokenType.ID).expires_in == 60
    key = issuer.api_key(life=timedelta(seconds=90))
    assert issuer.exchange("storefront", key, TokenType.API_KEY).expires_in == 90


# --- foreign, forged, revoked -----------------------------------------------------------------------------------------


def test_a_transaction_of_another_trust_domain(issuer):
    signer = issuer.keys.views.fresh(issuer.clock.now()).signer()
    now = int(issuer.clock.now().timestamp())

    def forged(**changed):
        values = {
            "iss": ISSUER,
            "aud": "shop.example",
            "sub": "alice",
            "txn": "t",
            "req_wl": spiffe("storefront"),
            "scope": "",
            "jti": "j",
            "iat": now,
            "exp": now + 60,
            "tctx": {"idp": "x", "kind": "user", "roles": ["admin"]},
        }
        return signer.transaction(TxnClaims(**{**values, **changed}))

    assert issuer.exchange("orders", forged(), TokenType.TRANSACTION)
    for changed, code in (
        ({"aud": "other.example"}, "AUDIENCE_MISMATCH"),
        ({"iss": "https://other.example"}, "UNAUTHORIZED_ISSUER"),
    ):
        refused(
            issuer,
            OAuthError.INVALID_REQUEST,
            "orders",
            forged(**changed),
            TokenType.TRANSACTION,
            code=code,
        )


def test_tokens_of_another_installation(issuer, tmp_path):
    storage = open_storage(tmp_path / "other.db")
    other = IssuerUnderTest(storage)
    access, txn = other.mint("storefront", "orders").token, other.transaction().token
    storage.close()
    refused(issuer, OAuthError.INVALID_REQUEST, "orders", access, target="payments", code="UNKNOWN_KEY_ID")
    refused(issuer, OAuthError.INVALID_REQUEST, "orders", txn, TokenType.TRANSACTION, code="UNKNOWN_KEY_ID")


def test_a_token_with_one_bit_changed(issuer, received):
    head, body, signature = received.split(".")
    spoilt = f"{head}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
    refused(issuer, OAuthError.INVALID_REQUEST, "orders", spoilt, target="payments", code="TOKEN_INVALID")


@pytest.mark.parametrize("kind", list(TokenType))
@pytest.mark.parametrize("token", ["", "x", "a.b.c", "eh_live_key_AAAAAAAA_x_y", "é" * 10, "." * 50_000])
def test_nonsense_of_every_type(issuer, kind, token):
    with pytest.raises(GrantRefused) as caught:
        issuer.exchange("storefront", token, kind, "orders")
    assert caught.value.error is OAuthError.INVALID_REQUEST


def test_a_token_presented_as_another_type(issuer, received):
    txn = issuer.transaction().token
    for token, kind, code in (
        (received, TokenType.TRANSACTION, "TOKEN_MALFORMED"),
        (txn, TokenType.ACCESS, "TOKEN_MALFORMED"),
        (txn, TokenType.ID, "TOKEN_INVALID"),
        (received, TokenType.ID, "TOKEN_INVALID"),
    ):
        refused(issuer, OAuthError.INVALID_REQUEST, "orders", token, kind, "payments", code=code)


@pytest.mark.parametrize(
    "types",
    [
        {"kind": "urn:ietf:params:oauth:token-type:saml2"},
        {"kind": ""},
        {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
        {"requested_token_type": ""},
    ],
)
def test_types_that_are_not_taken(issuer, received, types):
    refused(issuer, OAuthError.INVALID_REQUEST, "orders", received, target="payments", **types)


def test_a_revoked_subject_token(issuer, received):
    issuer.service.revoke(received, asker=spiffe("storefront"))
    refused(issuer, OAuthError.INVALID_REQUEST, "orders", received, target="payments", code="TOKEN_REVOKED")


def test_a_revoked_transaction(issuer):
    txn = issuer.transaction()
    issuer.service.revoke_transaction(txn.txn)
    refused(
        issuer,
        OAuthError.INVALID_REQUEST,
        "orders",
        txn.token,
        TokenType.TRANSACTION,
        code="TOKEN_REVOKED",
    )


def test_a_subject_token_without_binding_for_the_new_one(issuer, received):
    refused(issuer, OAuthError.INVALID_REQUEST, "orders", received, target="payments", x5t=None)
    assert issuer.exchange("orders", received, target="payments", jkt=JKT).token_type == "DPoP"


# --- transactions -----------------------------------------------------------------------------------------------------


def test_a_transaction_begins_at_the_edge_only(issuer):
    user, key = issuer.signed_in(), issuer.api_key()
    for caller in ("orders", "payments", "auditor"):
        refused(issuer, OAuthError.UNAUTHORIZED_CLIENT, caller, user, TokenType.ID)
        refused(issuer, OAuthError.UNAUTHORIZED_CLIENT, caller, key, TokenType.API_KEY)


def test_no_access_token_straight_from_outside(issuer):
    refused(issuer, OAuthError.INVALID_REQUEST, "storefront", issuer.signed_in(), TokenType.ID, "orders")
    refused(issuer, OAuthError.INVALID_REQUEST, "storefront", issuer.api_key(), TokenType.API_KEY, "orders")


def test_no_transaction_from_a_service_token(issuer, received):
    refused(issuer, OAuthError.INVALID_REQUEST, "orders", received)


def test_a_service_that_is_never_called_for_a_user_has_no_use_for_one(issuer):
    txn = issuer.transaction().token
    for target in (None, "ledger"):
        refused(
            issuer,
            OAuthError.UNAUTHORIZED_CLIENT,
            "auditor",
            txn,
            TokenType.TRANSACTION,
            target,
            code="AUDIENCE_MISMATCH",
        )


@pytest.mark.parametrize("roles", [["admin"], ["clerk", "admin"], ["Clerk"], ["clerk "]])
def test_more_roles_than_the_user_has(issuer, roles):
    refused(issuer, OAuthError.INVALID_SCOPE, "storefront", issuer.signed_in(), TokenType.ID, roles=roles)
    txn = issuer.transaction().token
    refused(issuer, OAuthError.INVALID_SCOPE, "orders", txn, TokenType.TRANSACTION, roles=roles)


def test_roles_that_were_given_up_do_not_come_back(issuer):
    txn = issuer.transaction()
    narrow = issuer.exchange("orders", txn.token, TokenType.TRANSACTION, roles=["viewer"])
    assert claims_of(narrow.token)["tctx"]["roles"] == ["viewer"]
    refused(
        issuer,
        OAuthError.INVALID_SCOPE,
        "payments",
        narrow.token,
        TokenType.TRANSACTION,
        roles=["clerk"],
    )
    none = issuer.exchange("payments", narrow.token, TokenType.TRANSACTION, roles=[])
    assert claims_of(none.token)["tctx"]["roles"] == []


def test_a_purpose_that_was_stated_does_not_grow(issuer):
    txn = issuer.transaction(scope=["checkout", "orders.create"])
    narrow = issuer.exchange("orders", txn.token, TokenType.TRANSACTION, scope=["orders.create"])
    assert narrow.scope == {"orders.create"}
    for scope in (["checkout"], ["orders.create", "payments.charge"], []):
        refused(
            issuer,
            OAuthError.INVALID_SCOPE,
            "payments",
            narrow.token,
            TokenType.TRANSACTION,
            scope=scope,
        )
    assert issuer.exchange("payments", narrow.token, TokenType.TRANSACTION).scope == {"orders.create"}


def test_a_purpose_may_be_stated_later(issuer):
    txn = issuer.transaction()
    assert txn.scope == frozenset()
    assert issuer.exchange("orders", txn.token, TokenType.TRANSACTION, scope=["payments.list"]).scope == {
        "payments.list"
    }


def test_txn_subject_and_facts_are_kept(issuer):
    token = issuer.signed_in(
        acr="mfa", amr=("pwd", "otp"), auth_time=1_700_000_000, email="alice@shop.example"
    )
    txn = issuer.exchange("storefront", token, TokenType.ID, source="203.0.113.9")
    narrow = issuer.exchange(
        "orders", txn.token, TokenType.TRANSACTION, source="198.51.100.1", context={"ip": "forged"}
    )
    first, second = claims_of(txn.token), claims_of(narrow.token)
    assert first["tctx"] == {
        "idp": "https://idp.example",
        "kind": "user",
        "roles": ["clerk", "viewer"],
        "acr": "mfa",
        "amr": ["pwd", "otp"],
        "auth_time": 1_700_000_000,
        "email": "alice@shop.example",
    }
    assert first["rctx"] == {"ip": "203.0.113.9"}
    for name in ("txn", "sub", "tctx", "rctx", "aud", "iss"):
        assert first[name] == second[name]
    assert (first["req_wl"], second["req_wl"]) == (spiffe("storefront"), spiffe("orders"))
    assert first["jti"] != second["jti"]
    assert txn.token_type == "N_A"
    assert txn.issued_token_type is TokenType.TRANSACTION


def test_a_user_whose_name_reads_as_one_of_ours(issuer):
    for name in ("apikey:AAAAAAAA", spiffe("payments")):
        refused(
            issuer,
            OAuthError.INVALID_REQUEST,
            "storefront",
            issuer.signed_in(name),
            TokenType.ID,
            code="TOKEN_INVALID",
        )


def test_facts_that_no_verifier_would_take(issuer):
    token = issuer.signed_in(acr="x" * 300)
    refused(issuer, OAuthError.INVALID_REQUEST, "storefront", token, TokenType.ID)
    crowd = {f"f{n}": "x" for n in range(17)}
    refused(issuer, OAuthError.INVALID_REQUEST, "storefront", issuer.signed_in(), TokenType.ID, context=crowd)


def test_a_users_access_token_of_its_issuer(issuer):
    token = jwt.encode({"iss": "https://idp.example"}, "k" * 32, algorithm="HS256")
    issuer.users.known[token] = issuer.users.known[issuer.signed_in()]
    assert issuer.exchange("storefront", token, TokenType.ACCESS).subject == "alice"


def test_an_issuer_that_cannot_be_asked_is_no_refusal(issuer, monkeypatch):
    def fails(token, *, now):
        raise Unavailable("no answer")

    monkeypatch.setattr(issuer.users, "verify", fails)
    with pytest.raises(Unavailable):
        issuer.exchange("storefront", "x.y.z", TokenType.ID)


# --- on behalf of ---------------------------------------------------------------------------------------------------


def test_on_behalf_of_a_service(issuer, received):
    issued = issuer.exchange("orders", received, target="payments", operation="charge")
    claims = claims_of(issued.token)
    assert claims["sub"] == issued.subject == spiffe("storefront")
    assert claims["client_id"] == spiffe("orders")
    assert claims["act"] == {"sub": spiffe("orders")}
    assert claims["aud"] == issued.audience == "payments#charge"
    assert claims["cnf"] == {"x5t#S256": X5T}
    assert issued.issued_token_type is TokenType.ACCESS


def test_on_behalf_of_a_user(issuer):
    txn = issuer.transaction()
    issued = issuer.exchange("orders", txn.token, TokenType.TRANSACTION, "payments")
    claims = claims_of(issued.token)
    assert (claims["sub"], claims["txn"], claims["act"]) == ("alice", txn.txn, {"sub": spiffe("orders")})
    assert issued.scope == {"payments.list", "payments.status"}
    (_, event) = issuer.journal.issues[-2:]
    assert (event.action, event.detail["subject"], event.detail["txn"]) == ("exchange", "alice", txn.txn)


def test_our_own_token_as_a_jwt(issuer, received):
    assert issuer.exchange("orders", received, TokenType.JWT, "payments")


# --- API keys ---------------------------------------------------------------------------------------------------------


def test_an_api_key_at_the_edge(issuer):
    key = issuer.api_key(["storefront.checkout", "storefront.browse"])
    txn = issuer.exchange("storefront", key, TokenType.API_KEY, source="203.0.113.9")
    claims = claims_of(txn.token)
    lookup = key.split("_")[3]
    assert (claims["sub"], claims["scope"]) == (f"apikey:{lookup}", "storefront.browse storefront.checkout")
    assert claims["tctx"] == {"idp": "apikey", "kind": "client", "roles": []}
    assert key not in repr(issuer.journal)


def test_an_api_key_is_not_made_wider(issuer):
    key = issuer.api_key(["storefront.browse"])
    for scope in (["storefront.checkout"], ["orders.read"], []):
        refused(issuer, OAuthError.INVALID_SCOPE, "storefront", key, TokenType.API_KEY, scope=scope)
    refused(issuer, OAuthError.INVALID_SCOPE, "storefront", key, TokenType.API_KEY, roles=["admin"])


EDGES = POLICY.replace(
    b"  - {from: outside, to: storefront",
    b"  - {from: outside, to: ledger, operations: [read]}\n  - {from: outside, to: storefront",
)


def test_an_api_key_for_another_edge(issuer):
    issuer.set_policy(EDGES)
    key = issuer.api_key(["ledger.read"])
    assert issuer.exchange("ledger", key, TokenType.API_KEY).scope == {"ledger.read"}
    refused(issuer, OAuthError.INVALID_SCOPE, "storefront", key, TokenType.API_KEY)


def test_a_false_api_key_says_nothing(issuer):
    good = issuer.api_key()
    from everyhop.apikeys import checksum_of

    body = good[:-9] + ("x" if good[-9] != "x" else "y") + good[-8]
    false = f"{body}_{checksum_of(body)}"
    error = refused(
        issuer, OAuthError.INVALID_REQUEST, "storefront", false, TokenType.API_KEY, code="TOKEN_INVALID"
    )
    assert issuer.journal.refusals[-1].detail["api_key"] == good.split("_")[3]
    assert error.message == "the subject token is not accepted: the API key is not accepted"
    assert "false secret" in issuer.journal.refusals[-1].reason


def test_a_source_that_fails_too_often_costs_no_commit(issuer):
    for _ in range(30):
        with pytest.raises(GrantRefused):
            issuer.exchange("storefront", "no key", TokenType.API_KEY, source="203.0.113.9")
    with pytest.raises(GrantRefused) as caught:
        issuer.exchange("storefront", issuer.api_key(), TokenType.API_KEY, source="203.0.113.9")
    assert caught.value.error is OAuthError.TEMPORARILY_UNAVAILABLE
    assert caught.value.status == 429
    assert 0 < caught.value.retry_after <= 60
    assert len(issuer.journal.refusals) == 30
    assert issuer.journal.issues[-1].refused == "temporarily_unavailable"
    assert issuer.exchange("storefront", issuer.api_key(), TokenType.API_KEY, source="203.0.113.10")


def test_settings_stand_alone():
    assert IssuingSettings(issuer=ISSUER, trust_domain="shop.example").longest_ttl == timedelta(seconds=300)
