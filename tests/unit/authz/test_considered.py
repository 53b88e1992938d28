# SPDX-License-Identifier: Apache-2.0
"""Every rule about a call, with what it says of it."""

from __future__ import annotations

from datetime import UTC, datetime

from everyhop.authz import Context, Engine
from everyhop.authz.considered import considered
from everyhop.policy import parse_policy

POLICY = b"""\
version: 1
trust_domain: shop.example
services:
  shop: {}
  orders: {operations: {list: GET /orders, read: GET /read}}
allow:
  - {from: shop, to: orders, operations: [list]}
  - {from: shop, to: orders, operations: [list], user: required}
  - {from: shop, to: orders, operations: [read]}
  - {from: orders, to: orders, operations: [list]}
  - {from: outside, to: orders, operations: [list], mode: shadow}
deny:
  - {from: any, to: orders, operations: [list], when: "now.getHours('UTC') < 7", id: night}
  - {from: any, to: orders, operations: [list], when: "request.query.x == 'y'", id: query}
"""
ENGINE = Engine(parse_policy({"p.yaml": POLICY}))


def told(caller, path="/orders", **facts):
    who = caller if caller == "outside" else f"spiffe://shop.example/service/{caller}"
    door = ENGINE.find("orders", "GET", path)
    call = ENGINE.call(door, who, Context(**facts) if facts else None, "GET", path)
    return considered(ENGINE, call)


def verdicts(*arguments, **facts):
    return [(c.rule.id, c.verdict) for c in told(*arguments, **facts)]


def test_deny_rules_come_first_and_rules_about_other_calls_not_at_all():
    assert verdicts("shop") == [
        ("night", "condition-error, which denies"),
        ("query", "condition-error, which denies"),
        ("allow[0]", "allows"),
        ("allow[1]", "user-required"),
    ]


def test_what_holds_denies_and_what_does_not_is_no_matter():
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    assert verdicts("outside", "/orders?x=y", now=noon) == [
        ("night", "does not apply"),
        ("query", "denies"),
        ("allow[4]", "allows"),
    ]


def test_lines_and_objects():
    night = told("shop")[0]
    assert night.render()[0] == "  night at p.yaml:13:5: condition-error, which denies"
    assert night.to_dict()["clauses"][0]["value"] == "error"
    assert told("outside")[-1].to_dict()["mode"] == "shadow"
