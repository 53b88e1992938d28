# SPDX-License-Identifier: Apache-2.0
"""From what a sidecar shows to the facts that conditions read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from everyhop.authz import Context, Engine
from everyhop.control.deciding import MAX_FACTS, Shown, decide_call, facts_of_headers, user_of
from everyhop.core.decision import Effect, Reason
from everyhop.policy import parse_policy
from everyhop.tokens.transaction import TxnToken

POLICY = b"""\
version: 1
trust_domain: shop.example
attributes:
  user: {level: int, weight: double, name: string, tags: strings, since: timestamp, staff: bool}
  request: {headers: [x-region]}
services:
  a: {}
  b:
    operations: {read: "GET /things/{id}", list: GET /things}
allow:
  - {from: a, to: b, operations: [read], when: "request.path_params.id != '13'"}
  - {from: a, to: b, operations: [list]}
"""
A = "spiffe://shop.example/service/a"


@pytest.fixture(scope="module")
def engine():
    return Engine(parse_policy({"p.yaml": POLICY}))


def shown(path="/things/7", operation="read", caller=A, method="GET"):
    return Shown(caller=caller, x5t=None, operation=operation, method=method, path=path)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (shown(operation="list"), Reason.UNKNOWN_OPERATION),  # Envoy and the engine see different operations
        (shown("/things", operation="read"), Reason.UNKNOWN_OPERATION),
        (shown("/things/13"), Reason.CONDITION_FALSE),
        (shown("//things/7"), Reason.UNKNOWN_OPERATION),
        (shown(""), Reason.UNKNOWN_OPERATION),
        (shown(method="get"), Reason.UNKNOWN_OPERATION),
        (shown(caller="spiffe://shop.example/service/b"), Reason.NO_RULE),
        (shown(caller="spiffe://shop.example/service/nobody"), Reason.UNKNOWN_CALLER),
        (shown(caller=""), Reason.UNKNOWN_CALLER),
    ],
)
def test_denied(engine, seen, reason):
    why = decide_call(engine, "b", seen, Context())
    assert (why.decision.effect, why.decision.reason) == (Effect.DENY, reason)


def test_allowed_with_what_was_seen(engine):
    why = decide_call(engine, "b", shown("/things/7?x=1"), Context())
    assert why.decision.rule == "allow[0]"
    assert "'7'" in why.facts
    assert len(decide_call(engine, "b", shown(f"/things/{'7' * 4000}"), Context()).facts) <= MAX_FACTS


def token(**context):
    return TxnToken(
        issuer="i",
        trust_domain="shop.example",
        subject="ann",
        txn="t",
        scope=frozenset(),
        requester=A,
        roles=("viewer",),
        kind="user",
        idp="https://idp.example",
        jti="j",
        issued_at=1,
        expires_at=2,
        kid="k",
        context={"idp": "https://idp.example", "kind": "user", **context},
        request_context={},
    )


def test_a_user_with_all_that_is_known(engine):
    stated = {"level": 3, "weight": 2, "name": "Ann", "tags": ["x"], "since": 0, "staff": True}
    found = user_of(
        token(amr=["pwd", "mfa"], acr="gold", auth_time=60, attributes=stated),
        engine.snapshot.attributes.of("user"),
    )
    assert found.is_multi_factor is True
    assert (found.acr, found.auth_time) == ("gold", datetime(1970, 1, 1, 0, 1, tzinfo=UTC))
    assert found.attributes == stated | {"tags": ("x",), "since": datetime(1970, 1, 1, tzinfo=UTC)}


@pytest.mark.parametrize(
    "stated",
    [
        {"level": True},
        {"level": 1.5},
        {"level": "3"},
        {"weight": True},
        {"name": 3},
        {"tags": "x"},
        {"since": "now"},
        {"since": True},
        {"staff": 1},
        {"unheard": "of"},
    ],
)
def test_an_attribute_of_another_policy_is_not_known(engine, stated):
    assert user_of(token(attributes=stated), engine.snapshot.attributes.of("user")).attributes == {}


def test_who_does_not_say_how_they_signed_in_is_not_known_to_have_two_factors(engine):
    assert user_of(token(), engine.snapshot.attributes.of("user")).is_multi_factor is None


def test_headers_line_by_line_and_only_the_chosen(engine):
    fields = {"x-region": (b"eu", b"us"), "x-other": (b"1",), "x-bytes": (b"\xff",)}
    assert facts_of_headers(fields, ("x-region", "x-bytes", "x-absent")) == {
        "x-region": ("eu", "us"),
        "x-bytes": ("", ""),  # no single value
    }
