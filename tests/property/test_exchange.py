# SPDX-License-Identifier: Apache-2.0
"""Whatever is asked for along a chain of exchanges: nothing that comes out says more than what went in."""

import contextlib
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from tests.support.identity import TestEntropy
from tests.support.issuer import IssuerUnderTest, spiffe

from everyhop.issuing import GrantRefused, TokenType
from everyhop.storage import open_storage
from everyhop.tokens import verify_access_token, verify_txn_token

SERVICES = ("storefront", "orders", "payments", "ledger", "vault", "auditor")
WORDS = ("checkout", "orders.read", "orders.create", "payments.list", "payments.charge", "ledger.write")
ROLES = ("clerk", "viewer", "admin")


def some(names):
    return st.none() | st.frozensets(st.sampled_from(names), max_size=3)


step = st.fixed_dictionaries(
    {
        "from": st.integers(0, 20),
        "caller": st.sampled_from(("orders", "orders", "payments", *SERVICES)),
        "target": st.sampled_from((None, None, "payments", "ledger", *SERVICES)),
        "scope": some(WORDS),
        "roles": some(ROLES),
        "ttl": st.none() | st.integers(0, 4000).map(lambda n: timedelta(seconds=n)),
        "wait": st.integers(0, 30),
        "as_is": st.booleans() | st.just(value=True),
    }
)


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    path = tmp_path_factory.mktemp("exchange") / "everyhop.db"
    with contextlib.closing(open_storage(path, entropy=TestEntropy())) as storage:
        yield IssuerUnderTest(storage)


def read(issuer, token, kind):
    view = issuer.keys.views.fresh(issuer.clock.now())
    known = {"issuer": issuer.settings.issuer, "now": issuer.clock.now()}
    if kind is TokenType.TRANSACTION:
        return verify_txn_token(token, view.keys, trust_domain="shop.example", **known)
    return verify_access_token(token, view.keys, **known)


def check_transaction(before, after):
    assert (after.txn, after.subject, after.idp, after.kind) == (
        before.txn,
        before.subject,
        before.idp,
        before.kind,
    )
    assert set(after.roles) <= set(before.roles)
    assert after.request_context == before.request_context
    if before.scope:
        assert after.scope
        assert after.scope <= before.scope


def check_access(issuer, before, after, caller, target):
    assert after.client_id == spiffe(caller)
    assert after.actors[0] == spiffe(caller)
    assert after.actors[1:] == getattr(before, "actors", ())
    assert len(after.actors) <= 4
    assert (after.subject, after.txn) == (before.subject, before.txn)
    granted = {f"{target}.{name}" for name in issuer.policy.granted(caller, target)}
    assert after.scope
    assert after.scope <= granted
    if hasattr(before, "roles"):
        limits = {name for name in before.scope if issuer.policy.is_operation(name)}
        assert not limits or after.scope <= limits
    else:
        assert before.audience.partition("#")[0] == caller
        assert before.txn is None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    begin=st.sampled_from(["user", "key", "service"]),
    first=step,
    steps=st.lists(step, min_size=4, max_size=16),
)
def test_nothing_grows(issuer, begin, first, steps):
    try:
        if begin == "service":
            kind, issued = TokenType.ACCESS, issuer.mint("storefront", "orders")
        else:
            token = issuer.signed_in(life=200) if begin == "user" else issuer.api_key()
            presented = TokenType.ID if begin == "user" else TokenType.API_KEY
            kind = TokenType.TRANSACTION
            issued = issuer.exchange(
                "storefront", token, presented, scope=first["scope"], roles=first["roles"]
            )
    except GrantRefused:
        return
    pool = [(issued.token, kind, read(issuer, issued.token, kind))]
    for asked in steps:
        issuer.clock.advance(timedelta(seconds=asked["wait"]))
        token, kind, before = pool[asked["from"] % len(pool)]
        named = {} if asked["as_is"] else {name: asked[name] for name in ("scope", "roles", "ttl")}
        try:
            issued = issuer.exchange(asked["caller"], token, kind, asked["target"], **named)
        except GrantRefused:
            continue
        kind = issued.issued_token_type
        held = read(issuer, issued.token, kind)
        pool.append((issued.token, kind, held))
        assert held.expires_at <= before.expires_at
        assert held.jti != before.jti
        if kind is TokenType.TRANSACTION:
            check_transaction(before, held)
        else:
            check_access(issuer, before, held, asked["caller"], asked["target"])
