# SPDX-License-Identifier: Apache-2.0
"""The policy for reading."""

from __future__ import annotations

from everyhop.policy import parse_policy
from everyhop.policy.show import describe, render

TEXT = b"""\
version: 1
trust_domain: shop.example
services:
  shop: {workload: [{unix: {user: shop, uid: 7}}, {run: true}]}
  orders:
    operations: {list: GET /orders, feed: {websocket: /feed}, drop: DELETE /orders}
    probes: [GET /up]
  ledger: {tcp: 5432, workload: [{run: true}]}
allow:
  - {from: [shop, ledger], to: orders, operations: [list, feed]}
  - {from: any, to: ledger}
deny: [{from: ledger, to: orders, operations: [feed]}]
tests: [{from: shop, call: GET /orders, to: orders, expect: allow}]
"""


def test_the_text_is_aligned_and_complete():
    snapshot = parse_policy({"p.yaml": TEXT})
    assert (
        render(snapshot)
        == f"""\
trust domain  shop.example
snapshot      {snapshot.hash}
rules         2 allow, 1 deny; 1 tests

ledger  spiffe://shop.example/service/ledger
  workload  run:ledger
  DOOR  ROUTE      MAY BE CALLED BY
  tcp   port 5432  every service

orders  spiffe://shop.example/service/orders
  workload  none: no identity is given
  DOOR       ROUTE                MAY BE CALLED BY
  drop       DELETE /orders       nobody
  feed       GET /feed (upgrade)  shop
  list       GET /orders          ledger, shop
  probes[0]  GET /up              every service

shop  spiffe://shop.example/service/shop
  workload  run:shop | unix:uid:7 + unix:user:shop
  no doors: it only calls others"""
    )


def test_the_object_says_the_same():
    shown = describe(parse_policy({"p.yaml": TEXT}))
    assert shown["trust_domain"] == "shop.example"
    assert shown["rules"] == {"allow": 2, "deny": 1}
    assert shown["services"]["orders"]["doors"][1] == {
        "name": "feed",
        "protocol": "websocket",
        "route": "GET /feed (upgrade)",
        "token": "none",
        "once": False,
        "body": False,
        "callers": ["shop"],
    }
    assert shown["services"]["ledger"]["doors"] == [
        {"name": "tcp", "protocol": "tcp", "route": "port 5432", "callers": ["ledger", "orders", "shop"]}
    ]
