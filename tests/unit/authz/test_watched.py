# SPDX-License-Identifier: Apache-2.0
"""The report on what is only watched: what would break, and what keeps it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from everyhop.authz import Engine
from everyhop.authz.traffic import Seen, enforced
from everyhop.authz.trying import try_edits
from everyhop.authz.watched import goes_on, watched_findings
from everyhop.policy import parse_policy

POLICY = b"""\
version: 1
trust_domain: shop.example
roles: {viewer: [orders.list]}
services:
  shop: {}
  batch: {}
  orders: {operations: {list: GET /orders, purge: DELETE /orders, tag: PUT /tags}}
  ledger: {tcp: 5432}
allow:
  - {from: shop, to: orders, operations: [list]}
  - {from: batch, to: orders, operations: [tag], when: "request.query.x == 'y'"}
  - {from: shop, to: orders, operations: [purge], mode: shadow}
deny:
  - {from: shop, to: orders, operations: [list], mode: shadow, id: closing}
shadow:
  - {from: batch, to: any}
"""
SNAPSHOT = parse_policy({"p.yaml": POLICY})
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def seen(caller, operation, *, call=None, target="orders", would="deny", reason="no-rule", rule=None, **more):
    base = {
        "point": "ingress",
        "caller": caller if "/" in caller else f"spiffe://shop.example/service/{caller}",
        "target": target,
        "operation": operation,
        "call": call,
        "decision": "allow",
        "reason": "shadowed",
        "rule": None,
        "would": would,
        "would_reason": reason,
        "would_rule": rule,
        "user": False,
        "count": 3,
        "first": NOON,
        "last": NOON,
        "example": "id",
    }
    return Seen(**{**base, **more})


def finding(*arguments, **more):
    return watched_findings(SNAPSHOT, [seen(*arguments, **more)])[0]


@pytest.mark.parametrize(
    ("arguments", "more", "words"),
    [
        (
            ("shop", "list"),
            {"reason": "denied-by-rule", "rule": "closing"},
            "deny beats allow: only a change of closing",
        ),
        (("batch", "tag"), {"reason": "condition-false"}, "do not fulfil it"),
        (("spiffe://other.example/x", "list"), {}, "does not know this call"),
        (("batch", None), {}, "looks like a search"),
        (("batch", "gone"), {}, "does not know this call"),
        (("shop", "purge"), {}, "of today allows it in force"),
    ],
)
def test_what_no_addition_keeps_gets_no_suggestion(arguments, more, words):
    found = finding(*arguments, **more)
    assert found.suggestion is None
    assert words in found.note


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        (("batch", "list"), {}),
        (("batch", "list"), {"user": True}),
        (("batch", "tcp"), {"target": "ledger"}),
        (("batch", None), {"call": "GET /news", "reason": "unknown-operation"}),
        (("batch", None), {"call": "PATCH /orders", "reason": "unknown-operation"}),
    ],
)
def test_what_is_suggested_keeps_the_calls_in_force(arguments, more):
    call = seen(*arguments, **more)
    found = watched_findings(SNAPSHOT, [call])[0]
    assert not goes_on(call, Engine(SNAPSHOT))
    assert try_edits({"p.yaml": POLICY}, found.suggestion.edits, lambda engine: goes_on(call, engine))
    assert ("user: required" in found.suggestion.edits[-1].yaml) == call.user


def test_the_order_and_the_other_kind():
    found = watched_findings(
        SNAPSHOT,
        [
            seen("shop", "purge", would="allow", reason="allowed", rule="allow[2]", count=9),
            seen("batch", "list", count=1),
            seen("shop", "list", reason="denied-by-rule", rule="closing", count=5),
            seen("shop", "list", would=None),
        ],
    )
    assert [(f.breaks, f.seen.count) for f in found] == [(True, 5), (True, 1), (False, 9)]
    assert found[0].rule.span.line == 14
    assert found[2].to_dict()["would"] == "allow"
    assert found[2].suggestion is None


def test_everything_in_force():
    snapshot = enforced(SNAPSHOT)
    assert not snapshot.has_shadow
    assert SNAPSHOT.has_shadow
    assert (
        Engine(snapshot)
        .decide_door(caller="spiffe://shop.example/service/batch", target="orders", door="list")
        .reason
        == "no-rule"
    )


def test_nothing_is_suggested_for_a_search():
    tried = [seen("batch", None, call=f"GET /admin{n}", reason="unknown-operation") for n in range(20)]
    assert all(f.suggestion for f in watched_findings(SNAPSHOT, tried))
    found = watched_findings(
        SNAPSHOT, [*tried, seen("batch", None, reason="unknown-operation"), seen("batch", "list")]
    )
    assert [f.seen.operation for f in found if f.suggestion] == ["list"]
