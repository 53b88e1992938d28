# SPDX-License-Identifier: Apache-2.0
"""What is offered to users' tests is real: its tokens hold, its hostile ones do not, its fixtures work together."""

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from everyhop.core.errors import NotFound, PolicyError, TokenError
from everyhop.sdk import caller, serving, user
from everyhop.spiffe.x509_svid import validate_x509_svid
from everyhop.testing import Authority, Issuer, context_document, service_context, verified_call
from everyhop.tokens.access import verify_access_token
from everyhop.tokens.keyset import StaticKeys, key_set_of
from everyhop.tokens.transaction import verify_txn_token

POLICY = """\
version: 1
trust_domain: shop.example
services:
  orders: {workload: [{run: true}], operations: {list: GET /orders}}
"""


def keys(issuer):
    return StaticKeys(key_set_of(issuer.jwks))


@pytest.mark.parametrize(
    "overrides",
    [
        {"exp": 1},
        {"iss": "https://x.test"},
        {"jti": None},
        {"header": {"alg": "none"}},
        {"header": {"kid": "x"}},
    ],
)
def test_tokens_made_wrong_are_wrong(overrides):
    issuer = Issuer()
    token = issuer.access("orders", "payments", scope=["payments.charge"], x5t="0" * 43, **overrides)
    with pytest.raises(TokenError):
        verify_access_token(token, keys(issuer), issuer=issuer.issuer, now=datetime.now(UTC))


def test_tokens_hold():
    issuer, now = Issuer(), datetime.now(UTC)
    token = issuer.access("orders", "payments", "charge", x5t="0" * 43)
    found = verify_access_token(token, keys(issuer), issuer=issuer.issuer, now=now)
    assert (found.audience, found.client_id) == ("payments#charge", "spiffe://shop.example/service/orders")
    txn = verify_txn_token(
        issuer.transaction("alice", roles=["clerk"]),
        keys(issuer),
        issuer=issuer.issuer,
        trust_domain="shop.example",
        now=now,
    )
    assert (txn.subject, txn.roles) == ("alice", ("clerk",))


def test_a_prepared_key_is_published_before_it_signs():
    issuer = Issuer()
    before = issuer.kid
    issuer.prepare()
    assert len(issuer.jwks["keys"]) == 2
    assert issuer.kid == before
    issuer.rotate()
    assert issuer.kid != before
    assert len(issuer.jwks["keys"]) == 2
    issuer.rotate(forget=True)
    assert len(issuer.jwks["keys"]) == 1


def test_identities_hold_and_rotate():
    authority = Authority()
    first = authority.issue("orders")
    authority.rotate()
    second = authority.issue("orders")
    for identity in (first, second):
        assert (
            validate_x509_svid(identity.chain, authority.bundle, datetime.now(UTC)).spiffe_id
            == identity.spiffe_id
        )
    assert first.x5t != second.x5t
    assert first.key.reveal().hex() not in repr(first)


def test_contexts_are_what_an_agent_sends():
    assert service_context(POLICY, "orders", Issuer()).service == "orders"
    with pytest.raises(NotFound):
        context_document(POLICY, "nobody", Issuer())
    with pytest.raises(PolicyError):
        context_document("version: 9", "orders", Issuer())


def test_a_verified_call_for_unit_tests():
    with serving(verified_call("list", user="alice")):
        assert (str(user()), caller().service) == ("alice", "storefront")


def test_the_pytest_plugin(tmp_path):
    (tmp_path / "conftest.py").write_text(
        'import pytest\npytest_plugins = ["everyhop.testing.pytest_plugin"]\n'
        f"POLICY = {POLICY!r}\n"
        "@pytest.fixture\ndef everyhop_policy():\n    return POLICY, 'orders'\n"
    )
    (tmp_path / "test_it.py").write_text(
        "from everyhop.sdk import connect\n"
        "def test_context(everyhop_context):\n    assert everyhop_context.service == 'orders'\n"
        "def test_agent(everyhop_agent):\n    with connect() as workload:\n        assert workload.service == 'orders'\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            str(tmp_path),
            f"--rootdir={tmp_path}",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
