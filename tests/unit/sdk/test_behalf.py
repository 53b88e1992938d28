# SPDX-License-Identifier: Apache-2.0
import pytest

from everyhop.core.errors import TokenError
from everyhop.sdk import caller, current, on_behalf_of, outgoing_headers, serving, user
from everyhop.testing import Issuer, service_context, verified_call

POLICY = """
version: 1
trust_domain: shop.example
services: {storefront: {workload: [{run: true}]}}
"""


@pytest.fixture
def issuer():
    return Issuer()


@pytest.fixture
def context(issuer):
    return service_context(POLICY, "storefront", issuer)


def test_inside_a_call_the_caller_stays_and_the_user_comes(issuer, context):
    token = issuer.transaction("alice")
    with serving(verified_call("checkout")) as before:
        assert user() is None
        with on_behalf_of(context, token) as whom:
            assert whom is user()
            assert (str(user()), caller()) == ("alice", before.caller)
            assert outgoing_headers()["Txn-Token"] == token
        assert current() is before


def test_outside_of_a_call_the_caller_is_this_workload(issuer, context):
    with on_behalf_of(context, issuer.transaction("alice")):
        assert str(caller()) == "spiffe://shop.example/service/storefront"
    assert current() is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": "https://evil.test"}, "UNAUTHORIZED_ISSUER"),
        ({"aud": "evil.example"}, "AUDIENCE_MISMATCH"),
        ({"exp": 1, "iat": 0}, "TOKEN_EXPIRED"),
        ({"header": {"typ": "at+jwt"}}, "TOKEN_INVALID"),
    ],
)
def test_what_is_not_believed_is_not_carried(issuer, context, changes, code):
    with pytest.raises(TokenError) as caught, on_behalf_of(context, issuer.transaction("alice", **changes)):
        raise AssertionError
    assert caught.value.token_code == code
    with pytest.raises(TokenError), on_behalf_of(context, Issuer().transaction("alice")):
        raise AssertionError
