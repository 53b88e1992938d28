# SPDX-License-Identifier: Apache-2.0
"""Recorded decisions against a candidate: what flips, what does not, and what nobody can know."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from everyhop.authz import Engine
from everyhop.authz.replay import Outcome, Recorded, Replay, Tally
from everyhop.policy import parse_policy

POLICY = """\
version: 1
trust_domain: shop.example
attributes: {request: {headers: [x-region]}}
services:
  shop: {}
  batch: {}
  orders:
    operations: {list: GET /orders, read: "GET /orders/{id}", export: GET /export, pay: POST /pay}
  ledger: {tcp: 5432}
allow:
  - {from: shop, to: orders, operations: [list, read]}
  - {from: shop, to: orders, operations: [export], when: "request.headers['x-region'] == 'eu'"}
  - {from: shop, to: orders, operations: [pay], user: required}
  - {from: shop, to: ledger}
"""
NIGHT, NOON = datetime(2026, 5, 1, 3, tzinfo=UTC), datetime(2026, 5, 1, 12, tzinfo=UTC)


def snapshot(*edits):
    text = POLICY
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return parse_policy({"p": text.encode()})


IN_FORCE = snapshot()


def recorded(
    call="GET /orders", *, caller="shop", allowed=True, reason="allowed", at=NOON, under=None, target="orders"
):
    method, _, path = call.partition(" ")
    return Recorded(
        id="r1",
        time=at,
        caller=caller if "/" in caller or caller == "outside" else f"spiffe://shop.example/service/{caller}",
        target=target,
        method=None if call == "tcp" else method,
        path=None if call == "tcp" else path,
        operation=None,
        is_allowed=allowed,
        reason=reason,
        snapshot=IN_FORCE.hash[:16] if under is None else under,
    )


def judge(candidate, record):
    return Replay(Engine(IN_FORCE), Engine(candidate)).judge(record)


CLOSED = snapshot(("[list, read]}", "[list]}"))
OPENED = snapshot(
    (
        "{from: shop, to: orders, operations: [list, read]}",
        "{from: [shop, batch], to: orders, operations: [list, read]}",
    )
)
BY_DAY = snapshot(("[list, read]}", "[list, read], when: \"now.getHours('UTC') > 6\"}"))


@pytest.mark.parametrize(
    ("candidate", "record", "outcome"),
    [
        (IN_FORCE, recorded(), Outcome.SAME),
        (CLOSED, recorded("GET /orders/7"), Outcome.LOST),
        (CLOSED, recorded("GET /orders"), Outcome.SAME),
        (OPENED, recorded(caller="batch", allowed=False, reason="no-rule"), Outcome.GAINED),
        (CLOSED, recorded("tcp", target="ledger"), Outcome.SAME),
        (
            snapshot(("to: ledger}", "to: ledger, mode: shadow}")),
            recorded("tcp", target="ledger"),
            Outcome.LOST,
        ),
        # the time is recorded, so it counts
        (BY_DAY, recorded(at=NOON), Outcome.SAME),
        (BY_DAY, recorded(at=NIGHT), Outcome.LOST),
        # headers and users are not
        (snapshot(("== 'eu'", "== 'us'")), recorded("GET /export"), Outcome.UNKNOWN),
        (
            snapshot(("user: required", "user: required, when: user.mfa")),
            recorded("POST /pay"),
            Outcome.UNKNOWN,
        ),
        (OPENED, recorded("GET /export"), Outcome.SAME),  # that door is the same
        (OPENED, recorded("GET /export", under="0" * 16), Outcome.UNKNOWN),  # it was not, when it was decided
        (OPENED, recorded("GET /export", caller="batch", allowed=False, reason="no-rule"), Outcome.SAME),
        # recorded under an older policy, and already changed
        (IN_FORCE, recorded(caller="batch", allowed=True, under="0" * 64), Outcome.ALREADY),
        # not the policy's doing
        (CLOSED, recorded("GET /orders/7", allowed=False, reason="TOKEN_EXPIRED"), Outcome.FOREIGN),
        (CLOSED, recorded("GET /orders/7", allowed=False, reason="declared"), Outcome.FOREIGN),
    ],
)
def test_what_becomes_of_a_call(candidate, record, outcome):
    assert judge(candidate, record).outcome is outcome


@pytest.mark.parametrize("caller", ["/", "spiffe://other.example/x", "outside", "/\x00", "/" + "a" * 3000])
@pytest.mark.parametrize("call", ["GET /orders", "tcp", "\x00 \xff", "GET //..", "GET " + "/" * 5000, " "])
@pytest.mark.parametrize("target", ["orders", "ledger", "nobody", "", "\u202e"])
def test_garbage_is_judged_and_never_raises(caller, call, target):
    record = recorded(call, caller=caller, allowed=False, reason="no-rule", target=target, under="")
    assert judge(OPENED, record).outcome in {Outcome.SAME, Outcome.UNKNOWN}


def test_a_tally_counts_edges_with_the_first_example():
    tally = Tally()
    replay = Replay(Engine(IN_FORCE), Engine(CLOSED))
    for minute in range(3):
        replay.run([recorded("GET /orders/7", at=NOON - timedelta(minutes=minute))], tally)
    replay.run([recorded("GET /orders")], tally)
    assert (tally.flips, tally.counts[Outcome.LOST], tally.counts[Outcome.SAME]) == (3, 3, 1)
    ((key, edge),) = tally.edges.items()
    assert key == ("lost", "spiffe://shop.example/service/shop", "orders", "read", "no-rule")
    assert (edge.count, edge.example, edge.first) == (3, "r1", NOON - timedelta(minutes=2))
