# SPDX-License-Identifier: Apache-2.0
"""Minting: nothing beyond the policy, everything refused is recorded, and what is issued is what verifiers take."""

import json
from datetime import timedelta

import jwt
import pytest
from tests.support.issuer import ISSUER, JKT, OTHER_X5T, POLICY, X5T, spiffe

from everyhop.core.errors import SettingsError, TokenError
from everyhop.issuing import PDP_AUDIENCE, GrantRefused, MintRequest, OAuthError
from everyhop.issuing.model import IssuingSettings
from everyhop.jose import Algorithm
from everyhop.tokens import Expectation, StaticKeys, TokenVerifier, parse_jwks


def claims_of(token):
    return jwt.decode(token, options={"verify_signature": False})


REFUSED = {
    "an undeclared caller": ({"caller": "stranger"}, OAuthError.ACCESS_DENIED),
    "an undeclared target": ({"target": "nowhere"}, OAuthError.INVALID_TARGET),
    "the name of the outside as target": ({"target": "outside"}, OAuthError.INVALID_TARGET),
    "a target with a fragment": ({"target": "payments#charge"}, OAuthError.INVALID_TARGET),
    "nothing granted there": ({"target": "vault"}, OAuthError.ACCESS_DENIED),
    "the reverse direction": ({"caller": "payments", "target": "orders"}, OAuthError.ACCESS_DENIED),
    "an unknown operation": ({"operation": "destroy"}, OAuthError.INVALID_TARGET),
    "an operation that is not granted": ({"operation": "refund"}, OAuthError.ACCESS_DENIED),
    "only operations with tokens of their own": (
        {"caller": "ledger", "target": "vault"},
        OAuthError.INVALID_TARGET,
    ),
    "a scope beyond the policy": ({"scope": ["list", "refund"]}, OAuthError.INVALID_SCOPE),
    "a scope of an operation with tokens of its own": ({"scope": ["charge"]}, OAuthError.INVALID_SCOPE),
    "a scope of another service": ({"scope": ["ledger.write"]}, OAuthError.INVALID_SCOPE),
    "another operation than the audience's": (
        {"operation": "charge", "scope": ["list"]},
        OAuthError.INVALID_SCOPE,
    ),
    "a scope that is nothing": ({"scope": []}, OAuthError.INVALID_SCOPE),
    "a scope without end": ({"scope": [f"s{n}" for n in range(257)]}, OAuthError.INVALID_SCOPE),
    "a scope with the prefix twice": ({"scope": ["payments.payments.list"]}, OAuthError.INVALID_SCOPE),
    "no binding": ({"x5t": None}, OAuthError.INVALID_REQUEST),
    "two bindings": ({"jkt": JKT}, OAuthError.INVALID_REQUEST),
    "a binding that is no digest": ({"x5t": "A" * 42}, OAuthError.INVALID_REQUEST),
    "a binding with unused bits set": ({"x5t": "A" * 42 + "B"}, OAuthError.INVALID_REQUEST),
    "no life": ({"ttl": timedelta(0)}, OAuthError.INVALID_REQUEST),
    "a negative life": ({"ttl": timedelta(seconds=-5)}, OAuthError.INVALID_REQUEST),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_and_recorded(issuer, case):
    asked, error = REFUSED[case]
    with pytest.raises(GrantRefused) as caught:
        issuer.mint(**asked)
    assert caught.value.error is error
    assert caught.value.status == 400
    (event,) = issuer.journal.refusals
    assert (event.action, event.refused, event.caller) == (
        "mint",
        error,
        spiffe(asked.get("caller", "orders")),
    )
    assert event.reason
    assert not issuer.journal.issues


@pytest.mark.parametrize(
    "caller", ["", "orders", "spiffe://other.example/service/orders", "spiffe://shop.example"]
)
def test_a_caller_that_is_no_service_of_this_domain(issuer, caller):
    with pytest.raises(GrantRefused) as caught:
        issuer.service.mint(MintRequest(caller=caller, target="payments", x5t=X5T))
    assert caught.value.error is OAuthError.ACCESS_DENIED


def test_a_denied_operation_is_in_no_scope(issuer):
    issuer.set_policy(POLICY + b"deny:\n  - {from: orders, to: payments, operations: [list], reason: no}\n")
    assert issuer.mint().scope == {"payments.status"}
    with pytest.raises(GrantRefused):
        issuer.mint(scope=["list"])


def test_a_policy_that_changed_counts_at_once(issuer):
    issuer.mint(scope=["list"])
    issuer.set_policy(POLICY.replace(b"[charge, list, status]", b"[charge, status]"))
    with pytest.raises(GrantRefused):
        issuer.mint(scope=["list"])


def test_the_claims(issuer):
    issued = issuer.mint(scope=["list"])
    now = int(issuer.clock.now().timestamp())
    assert claims_of(issued.token) == {
        "iss": ISSUER,
        "sub": spiffe("orders"),
        "client_id": spiffe("orders"),
        "aud": "payments",
        "scope": "payments.list",
        "jti": issued.jti,
        "iat": now,
        "exp": now + 300,
        "cnf": {"x5t#S256": X5T},
    }
    header = jwt.get_unverified_header(issued.token)
    assert header == {"alg": "ES256", "typ": "at+jwt", "kid": issuer.keys.list_keys()[0].kid}
    assert (issued.token_type, issued.expires_in) == ("Bearer", 300)
    assert len(issued.jti) == 22  # 128 bits


def test_no_scope_asked_is_everything_that_such_a_token_is_good_for(issuer):
    assert issuer.mint().scope == {"payments.list", "payments.status"}
    assert issuer.mint(operation="charge").scope == {"payments.charge"}


def test_full_and_bare_names(issuer):
    assert issuer.mint(scope=["payments.list", "status"]).scope == {"payments.list", "payments.status"}


def test_bound_to_a_dpop_key(issuer):
    issued = issuer.mint(x5t=None, jkt=JKT)
    assert issued.token_type == "DPoP"
    assert claims_of(issued.token)["cnf"] == {"jkt": JKT}


def test_a_life_is_only_shortened(issuer):
    assert issuer.mint(ttl=timedelta(seconds=60)).expires_in == 60
    assert issuer.mint(ttl=timedelta(days=1)).expires_in == 300


def test_names_are_never_used_twice(issuer):
    assert len({issuer.mint().jti for _ in range(500)}) == 500


def test_issues_are_noted_without_the_token(issuer):
    issued = issuer.mint(operation="charge")
    (event,) = issuer.journal.issues
    assert (event.action, event.caller, event.target, event.refused) == (
        "mint",
        spiffe("orders"),
        "payments",
        None,
    )
    assert event.detail["jti"] == issued.jti
    assert issued.token not in repr(event)
    assert issued.token not in repr(issued)


@pytest.mark.parametrize("algorithm", [Algorithm.ES256, Algorithm.RS256])
def test_our_verifier_and_pyjwt_take_it(make, algorithm):
    issuer = make(algorithm=algorithm)
    issued = issuer.mint(operation="charge")
    jwks = issuer.service.truth().jwks
    verifier = TokenVerifier(
        StaticKeys(parse_jwks(jwks)), issuer=ISSUER, trust_domain="shop.example", clock=issuer.clock
    )
    found = verifier.access(
        issued.token,
        Expectation(
            audience="payments", operation="charge", per_operation=True, peer=spiffe("orders"), x5t=X5T
        ),
    )
    assert found.jti == issued.jti
    key = jwt.PyJWKSet.from_dict(json.loads(jwks))[found.kid]
    options = {"verify_exp": False, "verify_iat": False}
    claims = jwt.decode(
        issued.token, key, [algorithm.value], audience="payments#charge", issuer=ISSUER, options=options
    )
    assert claims["sub"] == spiffe("orders")


def test_a_thiefs_certificate_is_not_enough(issuer):
    from everyhop.core.errors import TokenError
    from everyhop.tokens import verify_access_token
    from everyhop.tokens.expectation import check

    view = issuer.keys.views.fresh(issuer.clock.now())
    found = verify_access_token(issuer.mint().token, view.keys, issuer=ISSUER, now=issuer.clock.now())
    with pytest.raises(TokenError) as caught:
        check(found, Expectation(audience="payments", peer=spiffe("orders"), x5t=OTHER_X5T))
    assert caught.value.token_code == "BINDING_MISMATCH"


def test_minting_asks_the_store_at_most_once_a_second(issuer, monkeypatch):
    asked = []
    real = issuer.storage.issuing.sequence
    monkeypatch.setattr(issuer.storage.issuing, "sequence", lambda: asked.append(1) or real())
    issuer.clock.advance(timedelta(seconds=5))
    for _ in range(100):
        issuer.mint()
    assert len(asked) == 1
    issuer.clock.advance(timedelta(seconds=1))
    issuer.mint()
    assert len(asked) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"algorithm": Algorithm.ES384},
        {"rsa_bits": 1024},
        {"token_ttl": timedelta(0)},
        {"token_ttl": timedelta(hours=2)},
        {"transaction_ttl": timedelta(hours=2)},
        {"rotate_every": timedelta(days=91)},
        {"rotate_every": timedelta(0)},
        {"max_age": timedelta(seconds=-1)},
        {"skew": timedelta(seconds=-1)},
    ],
)
def test_settings_that_are_refused(wrong):
    with pytest.raises(SettingsError):
        IssuingSettings(issuer=ISSUER, trust_domain="shop.example", **wrong)


def test_a_token_for_one_operation_alone_may_always_be_asked_for(issuer):
    claims = claims_of(issuer.mint(operation="list").token)
    assert (claims["aud"], claims["scope"]) == ("payments#list", "payments.list")


# --- the decision point as audience


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"caller": "stranger"}, OAuthError.ACCESS_DENIED),
        ({"operation": "list"}, OAuthError.INVALID_TARGET),
        ({"scope": ["list"]}, OAuthError.INVALID_SCOPE),
        ({"target": "urn:everyhop:authzen:x"}, OAuthError.INVALID_TARGET),
        ({"x5t": None}, OAuthError.INVALID_REQUEST),
    ],
)
def test_a_token_for_the_decision_point_is_of_a_declared_service_and_bound(issuer, asked, error):
    with pytest.raises(GrantRefused) as caught:
        issuer.mint(**{"target": PDP_AUDIENCE, **asked})
    assert caught.value.error is error


def test_every_service_may_have_a_token_for_the_decision_point(issuer):
    for caller in ("orders", "vault"):
        issued = issuer.mint(caller=caller, target=PDP_AUDIENCE)
        assert (issued.audience, issued.scope) == (PDP_AUDIENCE, frozenset())
        expected = Expectation(audience=PDP_AUDIENCE, peer=spiffe(caller), x5t=X5T)
        assert issuer.service.accept(issued.token, expected).client_id == spiffe(caller)
        for wrong in (
            Expectation(audience="payments", peer=spiffe(caller), x5t=X5T),
            Expectation(audience=PDP_AUDIENCE, peer=spiffe("payments"), x5t=X5T),
            Expectation(audience=PDP_AUDIENCE, peer=spiffe(caller), x5t=OTHER_X5T),
            Expectation(audience=PDP_AUDIENCE),
        ):
            with pytest.raises(TokenError):
                issuer.service.accept(issued.token, wrong)
        issuer.service.revoke(issued.token, asker=spiffe(caller))
        with pytest.raises(TokenError):
            issuer.service.accept(issued.token, expected)
