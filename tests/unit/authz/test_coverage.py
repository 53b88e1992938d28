# SPDX-License-Identifier: Apache-2.0
"""What tests cover, and what no test can mend."""

from __future__ import annotations

import pytest

from everyhop.authz.coverage import coverage_of
from everyhop.policy import parse_policy

HEAD = """\
version: 1
trust_domain: shop.example
attributes: {user: {clearance: int}}
roles:
  viewer: [orders.list]
services:
  shop: {}
  batch: {}
  orders: {operations: {list: GET /orders, purge: DELETE /orders, open: GET /open, tag: PUT /tags}, probes: [GET /healthz]}
  ledger: {tcp: 5432}
allow:
  - {from: shop, to: orders, operations: [list], user: required}
  - {from: batch, to: orders, operations: [tag], when: "request.query.x == 'y' && now.getHours('UTC') > 6"}
  - {from: shop, to: ledger}
"""


def cover(*tests, more=""):
    entries = "".join(f"  - {{{test}}}\n" for test in tests)
    text = HEAD + more + (f"tests:\n{entries}" if tests else "")
    return coverage_of(parse_policy({"p.yaml": text.encode()}))


def codes(more):
    return [(gap.code, gap.message) for gap in cover(more=more).gaps if gap.code != "unreachable"]


def test_without_tests_nothing_is_covered():
    found = cover()
    assert found.percent == 0
    assert found.untested == ("orders.list", "orders.open", "orders.purge", "orders.tag")


@pytest.mark.parametrize(
    "test",
    [
        "from: shop, call: GET /orders, to: orders, expect: deny",
        "from: shop, call: GET /orders, to: orders, user: {}, expect: deny",
        "from: batch, call: GET /orders, to: orders, user: {roles: [viewer]}, expect: deny",
        'from: "spiffe://x/y", call: GET /orders, to: orders, user: {roles: [viewer]}, expect: deny',
        "from: shop, call: GET /orders//, to: orders, expect: deny",
        "from: shop, call: GET /gone, to: orders, expect: deny",
        "from: batch, tcp: true, to: ledger, expect: deny",
    ],
)
def test_a_rule_that_does_not_hold_is_not_covered(test):
    assert cover(test).percent == 0


def test_rules_and_both_sides_of_clauses_add_up():
    found = cover(
        "from: shop, call: GET /orders, to: orders, user: {roles: [viewer]}, expect: allow",
        "from: batch, call: PUT /tags?x=y, to: orders, at: 2026-05-01T12:00:00Z, expect: allow",
        "from: batch, call: PUT /tags?x=z, to: orders, at: 2026-05-01T12:00:00Z, expect: deny",
    )
    rule = found.rules[1]
    assert (rule.tests, [(c.is_true, c.is_false) for c in rule.clauses]) == (1, [(True, True), (True, False)])
    assert found.percent == pytest.approx(100 * 5 / 7)
    assert found.untested == ("orders.open", "orders.purge")
    assert found.to_dict()["percent"] == 71.4


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ("  - {from: any, to: orders, operations: [open]}\n", "open-to-all", "every declared service may call orders.open"),
        ("  - {from: outside, to: orders, operations: [open]}\n", "open-outside", "anybody outside may call orders.open"),
        ("  - {from: shop, to: orders, operations: [purge], user: required}\n", "no-role", "orders.purge, which no role grants"),
        ("deny:\n  - {from: batch, to: orders, operations: [purge]}\n", "denies-nothing", "denies what no rule allows"),
        ('  - {from: shop, to: orders, operations: [purge], when: "user.clearance > 5 && user.clearance < 3", user: optional}\n',
         "never-true", "boundary values"),
        ("deny:\n  - {from: any, to: orders, operations: [list]}\n", "useless-grant", "role 'viewer' grants orders.list"),
        ("  - {from: any, to: orders, operations: [open]}\ndeny:\n  - {from: any, to: orders, operations: [open]}\n", "shadowed", "overruled"),
    ],
)  # fmt: skip
def test_gaps(more, code, words):
    assert [c for c, message in codes(more) if words in message] == [code]


@pytest.mark.parametrize(
    "more",
    [
        "",
        "  - {from: any, to: orders, operations: [open], when: \"now.getHours('UTC') > 6\"}\n",
        "  - {from: any, to: orders, operations: [open]}\ndeny:\n  - {from: batch, to: orders, operations: [open]}\n",
        "deny:\n  - {from: batch, to: orders, operations: [tag], when: \"request.query.x == 'z'\"}\n",
        "deny:\n  - {from: batch, to: orders}\n",
    ],
)
def test_what_is_no_gap(more):
    assert [code for code, _ in codes(more) if code != "shadowed"] == []


def test_operations_that_nobody_reaches():
    assert [g.message for g in cover().gaps if g.code == "unreachable"] == [
        "no service may call orders.purge",
        "no service may call orders.open",
    ]
