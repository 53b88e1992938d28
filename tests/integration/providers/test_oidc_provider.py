# SPDX-License-Identifier: Apache-2.0
"""Users' tokens of a real, certified OpenID provider, from its sign-in page to our transaction token."""

import contextlib
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tests.support.identity import TestEntropy
from tests.support.issuer import IssuerUnderTest
from tests.support.oidc_provider import API, OidcProvider, install

from everyhop.core.errors import TokenError
from everyhop.core.problems import Span
from everyhop.issuing import GrantRefused, TokenPorts, TokenService, TokenType
from everyhop.policy.model import UserIssuer
from everyhop.providers.oidc import OidcTokens
from everyhop.storage import open_storage
from everyhop.tokens import verify_txn_token

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("npm") is None or shutil.which("node") is None, reason="needs node and npm"
    ),
]


@pytest.fixture(scope="module")
def place():
    found = install()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(params=["RS256", "ES256"])
def provider(place, request):
    with contextlib.closing(OidcProvider(place, algorithm=request.param)) as running:
        yield running


def policy_of(provider, **changed):
    one = UserIssuer(
        issuer=provider.url,
        audiences=("shop", "shop-api"),
        jwks=None,
        roles=("roles",),
        algorithms=("RS256", "ES256"),
        span=Span(file="policy.yaml", line=1, column=1),
    )
    return replace(one, **changed)


def test_its_tokens(provider):
    tokens = OidcTokens(lambda: (policy_of(provider),))
    now = datetime.now(UTC)
    answer = provider.sign_in("alice")
    user = tokens.verify(answer["id_token"], now=now)
    assert (user.subject, user.idp) == ("alice", provider.url)
    assert user.roles == {"clerk", "viewer"}
    assert user.email == "alice@shop.example"
    access = provider.sign_in("alice", scope="openid api:use", resource=API)["access_token"]
    user = tokens.verify(access, now=now)
    assert (user.subject, user.roles) == ("alice", {"clerk", "viewer"})
    assert tokens.verify(provider.sign_in("bob")["id_token"], now=now).roles == frozenset()


def test_what_is_refused_of_it(provider):
    token = provider.sign_in("alice")["id_token"]
    now = datetime.now(UTC)
    for changed, when, code in (
        ({"audiences": ("other",)}, now, "AUDIENCE_MISMATCH"),
        ({"issuer": f"{provider.url}/"}, now, "UNAUTHORIZED_ISSUER"),
        ({"algorithms": ("PS256",)}, now, "TOKEN_INVALID"),
        ({}, now + timedelta(minutes=11), "TOKEN_EXPIRED"),
        ({}, now - timedelta(minutes=1), "TOKEN_INVALID"),
    ):
        tokens = OidcTokens(lambda changed=changed: (policy_of(provider, **changed),))
        with pytest.raises(TokenError) as caught:
            tokens.verify(token, now=when)
        assert caught.value.token_code == code
    opaque = provider.sign_in("alice")["access_token"]  # without a resource it is no JWT
    with pytest.raises(TokenError) as caught:
        OidcTokens(lambda: (policy_of(provider),)).verify(opaque, now=now)
    assert caught.value.token_code == "TOKEN_MALFORMED"


def test_new_keys_after_a_restart(place):
    with contextlib.closing(OidcProvider(place, kid="one")) as first:
        port = first.port
        tokens = OidcTokens(lambda: (policy_of(first),))
        now = datetime.now(UTC)
        tokens.verify(first.sign_in("alice")["id_token"], now=now)
    with contextlib.closing(OidcProvider(place, port=port, kid="two")) as second:
        token = second.sign_in("alice")["id_token"]
        later = now + timedelta(seconds=31)
        assert tokens.verify(token, now=later).subject == "alice"


def test_from_the_sign_in_to_a_transaction_token(provider, tmp_path):
    with contextlib.closing(open_storage(tmp_path / "everyhop.db", entropy=TestEntropy())) as storage:
        issuer = IssuerUnderTest(storage)
        issuer.clock.moment = datetime.now(UTC)
        service = TokenService(
            TokenPorts(
                keys=issuer.keys,
                store=storage.issuing,
                policy=lambda: issuer.policy,
                journal=issuer.journal,
                clock=issuer.clock,
                entropy=TestEntropy(),
                users=OidcTokens(lambda: (policy_of(provider),)),
            ),
            issuer.settings,
        )
        issuer.service = service
        token = provider.sign_in("alice")["id_token"]
        txn = issuer.exchange("storefront", token, TokenType.ID, source="203.0.113.9")
        view = issuer.keys.views.fresh(issuer.clock.now())
        found = verify_txn_token(
            txn.token,
            view.keys,
            issuer=issuer.settings.issuer,
            trust_domain="shop.example",
            now=issuer.clock.now(),
        )
        assert (found.subject, found.roles, found.idp) == ("alice", ("clerk", "viewer"), provider.url)
        assert token not in repr(issuer.journal)
        with pytest.raises(GrantRefused):
            issuer.exchange("orders", token, TokenType.ID)
