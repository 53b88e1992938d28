# SPDX-License-Identifier: Apache-2.0
"""Decisions, refusals first."""

from __future__ import annotations

import pytest

from everyhop.authz import Engine
from everyhop.core.decision import Reason
from everyhop.policy import parse_policy


@pytest.mark.parametrize(
    ("caller", "call", "target", "reason"),
    [
        ("storefront", "GET /orders", "nobody", "unknown-service"),
        ("storefront", "GET /orders", "any", "unknown-service"),
        ("storefront", "GET /orders", "", "unknown-service"),
        ("storefront", "GET /orders", "Orders", "unknown-service"),
        ("storefront", "tcp", "nobody", "unknown-service"),
        ("storefront", "tcp", "orders", "wrong-protocol"),
        ("orders", "GET //", "ledger", "wrong-protocol"),
        ("storefront", "GET //orders", "orders", "ambiguous-path"),
        ("spiffe://evil/x", "GET //orders", "orders", "ambiguous-path"),
        ("storefront", "OPTIONS *", "orders", "ambiguous-path"),
        ("storefront", "GET http://orders/orders", "orders", "ambiguous-path"),
        ("storefront", "GET /files/../orders", "orders", "ambiguous-path"),
        ("storefront", "GET /files/%2e%2e/orders", "orders", "ambiguous-path"),
        ("storefront", "GET /orders;x", "orders", "ambiguous-path"),
        ("storefront", "GET /orders/", "orders", "unknown-operation"),
        ("storefront", "GET /ORDERS", "orders", "unknown-operation"),
        ("storefront", "get /orders", "orders", "unknown-operation"),
        ("storefront", "HEAD /orders", "orders", "unknown-operation"),
        ("storefront", " /orders", "orders", "unknown-operation"),
        ("storefront", "GET /files", "orders", "unknown-operation"),
        ("storefront", "GET /orders/7/8", "orders", "unknown-operation"),
        ("storefront", "POST /orders/special", "orders", "unknown-operation"),
        ("storefront", "GET /anything", "lone", "unknown-operation"),
        ("spiffe://evil/x", "GET /nothing", "orders", "unknown-operation"),
        ("spiffe://evil/x", "GET /orders", "orders", "unknown-caller"),
        ("spiffe://shop.example", "GET /orders", "orders", "unknown-caller"),
        ("spiffe://shop.example/service/storefron", "GET /orders", "orders", "unknown-caller"),
        ("spiffe://shop.example/service/storefront/", "GET /orders", "orders", "unknown-caller"),
        ("spiffe://shop.example/service/Storefront", "GET /orders", "orders", "unknown-caller"),
        ("spiffe://shop.example.evil/service/storefront", "GET /orders", "orders", "unknown-caller"),
        ("spiffe://evil/x", "GET /healthz", "orders", "unknown-caller"),
        ("spiffe://evil/x", "tcp", "ledger", "unknown-caller"),
        ("storefront", "POST /orders", "orders", "no-rule"),
        ("storefront", "GET /orders/special", "orders", "no-rule"),
        ("storefront", "GET /", "orders", "no-rule"),
        ("storefront", "tcp", "ledger", "no-rule"),
        ("orders", "tcp", "cache", "no-rule"),
    ],
)
def test_refusals_without_a_rule(ask, caller, call, target, reason):
    for _ in range(2):
        found, rule, operation = ask(caller, call, target)
        assert (found, rule) == (reason, None)
        assert (operation is None) == (reason not in {"unknown-caller", "no-rule"})


@pytest.mark.parametrize(
    ("caller", "call", "target", "expected"),
    [
        ("storefront", "POST /v1/charges/7/refund", "payments", ("denied-by-rule", "deny[0]", "refund")),
        ("lone", "POST /v1/charges/7/refund", "payments", ("denied-by-rule", "deny[0]", "refund")),
        ("lone", "GET /orders", "orders", ("denied-by-rule", "deny[1]", "list")),
        ("lone", "GET /healthz", "orders", ("denied-by-rule", "deny[1]", "probes[0]")),
        ("lone", "tcp", "ledger", ("denied-by-rule", "deny[1]", "tcp")),
        ("storefront", "GET /orders", "orders", ("allowed", "allow[0]", "list")),
        ("storefront", "GET /orders?x=../..//%2f", "orders", ("allowed", "allow[0]", "list")),
        ("storefront", "GET /orders/7", "orders", ("allowed", "allow[0]", "read")),
        ("storefront", "GET /orders/a%20b?q", "orders", ("allowed", "allow[0]", "read")),
        ("storefront", "GET /files/", "orders", ("allowed", "allow[0]", "files")),
        ("storefront", "GET /files/a/b/", "orders", ("allowed", "allow[0]", "files")),
        ("storefront", "POST /shop.v1.Orders/Watch", "orders", ("allowed", "allow[0]", "watch")),
        ("orders", "POST /v1/charges", "payments", ("allowed", "allow[1]", "charge")),
        ("orders", "tcp", "ledger", ("allowed", "books", "tcp")),
        ("storefront", "GET /healthz", "orders", ("probe", "services.orders.probes[0]", "probes[0]")),
        ("orders", "GET /healthz", "orders", ("probe", "services.orders.probes[0]", "probes[0]")),
    ],
)
def test_the_deciding_rule_is_named(ask, caller, call, target, expected):
    for _ in range(2):
        assert ask(caller, call, target) == expected


def test_a_door_by_name(engine):
    caller = "spiffe://shop.example/service/orders"
    assert engine.decide_door(caller=caller, target="payments", door="charge").reason is Reason.ALLOWED
    assert engine.decide_door(caller=caller, target="payments", door="probes[0]").reason is Reason.PROBE
    assert engine.decide_door(caller=caller, target="payments", door="tcp").reason is Reason.UNKNOWN_OPERATION
    assert engine.decide_door(caller=caller, target="ledger", door="tcp").reason is Reason.ALLOWED
    assert (
        engine.decide_door(caller=caller, target="ledger", door="charge").reason is Reason.UNKNOWN_OPERATION
    )
    assert engine.decide_door(caller=caller, target="nobody", door="tcp").reason is Reason.UNKNOWN_SERVICE
    assert engine.decide_door(caller="x", target="ledger", door="tcp").reason is Reason.UNKNOWN_CALLER


def test_answers_to_strangers_are_not_kept(engine):
    for n in range(100):
        for method, path in (("GET", "/orders"), ("GET", "/none"), ("GET", "//")):
            engine.decide(caller=f"spiffe://evil/{n}", target="orders", method=method, path=path)
    target = engine._targets["orders"]
    assert not target.ambiguous
    assert not target.unknown
    assert not any(door.decisions for door in target.doors.values())


def routed(operations: dict[str, str], method: str, path: str) -> str | None:
    """The operation that a request belongs to."""
    lines = "".join(f"      {name}: '{route}'\n" for name, route in operations.items())
    head = "version: 1\ntrust_domain: a\nservices:\n  s:\n    operations:\n"
    engine = Engine(parse_policy({"p": (head + lines).encode()}))
    return engine.decide(caller="spiffe://a/service/s", target="s", method=method, path=path).operation


@pytest.mark.parametrize(
    ("routes", "call", "expected"),
    [
        ({"lit": "GET /a/b", "par": "GET /a/{x}", "rest": "GET /a/{x...}"}, "GET /a/b", "lit"),
        ({"lit": "GET /a/b", "par": "GET /a/{x}", "rest": "GET /a/{x...}"}, "GET /a/c", "par"),
        ({"lit": "GET /a/b", "par": "GET /a/{x}", "rest": "GET /a/{x...}"}, "GET /a/b/c", "rest"),
        ({"lit": "GET /a/b", "par": "GET /a/{x}", "rest": "GET /a/{x...}"}, "GET /a/", "rest"),
        ({"lit": "GET /a/b", "par": "GET /a/{x}", "rest": "GET /a/{x...}"}, "GET /a", None),
        ({"left": "GET /a/{x}/c", "right": "GET /{x}/b/c"}, "GET /a/b/c", "left"),
        ({"left": "GET /a/{x}/c", "right": "GET /{x}/b/d"}, "GET /a/b/d", "right"),
        ({"left": "GET /a/{x...}", "right": "GET /{x}/b"}, "GET /a/b", "left"),
        ({"left": "POST /a/b", "right": "GET /a/{x}"}, "GET /a/b", "right"),
        ({"left": "POST /a/b", "right": "GET /a/{x}"}, "POST /a/c", None),
        ({"left": "POST /a/{x}", "right": "GET /{x}/{y}"}, "GET /a/b", "right"),
        ({"left": "POST /a/{x}", "right": "GET /{x...}"}, "GET /a/b", "right"),
        ({"slash": "GET /a/", "par": "GET /a/{x}"}, "GET /a/", "slash"),
        ({"par": "GET /a/{x}"}, "GET /a/", None),
        ({"par": "GET /{x}"}, "GET /", None),
        ({"rest": "GET /{x...}"}, "GET /", "rest"),
        ({"root": "GET /", "rest": "GET /{x...}"}, "GET /", "root"),
        ({"par": "GET /{x}/", "rest": "GET /{x...}"}, "GET /a/", "par"),
    ],
)
def test_the_most_specific_route_wins_per_method(routes, call, expected):
    for order in (routes, dict(reversed(routes.items()))):
        assert routed(order, *call.split(" ")) == expected


def test_wide_and_deep_templates_are_searched_once_per_node():
    """All 2^12 combinations of literal and parameter, asked with a path that matches none in its last segment."""
    combinations = (
        "/".join("a" if n >> bit & 1 else f"{{p{bit}}}" for bit in range(12)) for n in range(2**12)
    )
    text = "".join(f"      o{n}: 'GET /{path}/end'\n" for n, path in enumerate(combinations))
    head = "version: 1\ntrust_domain: a\nservices:\n  s:\n    operations:\n"
    engine = Engine(parse_policy({"p": (head + text).encode()}))
    decide = {"caller": "spiffe://a/service/s", "target": "s", "method": "GET"}
    assert engine.decide(**decide, path="/a" * 12 + "/none").operation is None
    assert engine.decide(**decide, path="/a" * 12 + "/end").operation == "o4095"
