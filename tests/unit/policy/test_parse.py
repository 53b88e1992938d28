# SPDX-License-Identifier: Apache-2.0
"""What a policy means once it is read."""

from __future__ import annotations

import pytest
import yaml

from everyhop.core.errors import PolicyError
from everyhop.core.problems import Span
from everyhop.policy import Protocol, RuleEffect, SegmentKind, Selector, _yaml, parse_policy

TEXT = """\
version: 1
trust_domain: shop.example
identity: /svc/{service}
services:
  no:
    workload:
      - {unix: {user: "n", uid: 0, group: staff, gid: 4294967294, path: "/opt/my app/x", sha256: "%s"}, run: true}
      - unix: {user: on}
  orders:
    identity: /ns/shop/sa/orders
    operations:
      watch: {grpc: shop.v1.Orders/Watch}
      list:  GET /orders
      feed:  {websocket: "/feed/{topic}"}
      files: {route: "GET /files/{path...}"}
      root:  GET /
      dir:   GET /dir/
    probes:  [GET /healthz, {grpc: grpc.health.v1.Health/Check}]
  ledger:
    tcp: 5432
allow:
  - {from: no, to: orders, operations: [list, root], id: front, reason: "  the shop  "}
  - {from: any, to: any, operations: all}
  - {from: [no, orders], to: [ledger]}
deny:
  - from: no
    to: any
tests:
  - {from: no, call: "GET /a b?c", to: orders, expect: deny}
  - {from: "spiffe://X/y", tcp: true, to: ledger, expect: deny}
""" % ("a1" * 32)


def parsed():
    return parse_policy({"shop.yaml": TEXT.encode()})


def test_scalars_are_text_and_never_booleans_or_numbers():
    service = parsed().services["no"]
    assert str(service.spiffe_id) == "spiffe://shop.example/svc/no"
    assert [sorted(map(str, alternative)) for alternative in service.workload] == [
        [
            "run:no",
            "unix:gid:4294967294",
            "unix:group:staff",
            "unix:path:/opt/my app/x",
            "unix:sha256:" + "a1" * 32,
            "unix:uid:0",
            "unix:user:n",
        ],
        ["unix:user:on"],
    ]
    assert Selector(type="unix", value="user:on") in service.workload[1]


def test_operations_are_ordered_by_name_and_probes_by_position():
    orders = parsed().services["orders"]
    assert str(orders.spiffe_id) == "spiffe://shop.example/ns/shop/sa/orders"
    assert [(o.name, str(o.route), o.protocol) for o in orders.operations] == [
        ("dir", "GET /dir/", Protocol.HTTP),
        ("feed", "GET /feed/{topic}", Protocol.WEBSOCKET),
        ("files", "GET /files/{path...}", Protocol.HTTP),
        ("list", "GET /orders", Protocol.HTTP),
        ("root", "GET /", Protocol.HTTP),
        ("watch", "POST /shop.v1.Orders/Watch", Protocol.GRPC),
    ]
    assert [(o.name, str(o.route)) for o in orders.probes] == [
        ("probes[0]", "GET /healthz"),
        ("probes[1]", "POST /grpc.health.v1.Health/Check"),
    ]
    assert [o.route.is_literal for o in orders.operations] == [True, False, False, True, True, True]
    assert [s.kind for s in orders.operations[2].route.segments] == [SegmentKind.LITERAL, SegmentKind.REST]
    assert orders.tcp is None


def test_rules_keep_their_order_and_ids():
    rules = parsed().rules
    assert [rule.id for rule in rules] == ["front", "allow[1]", "allow[2]", "deny[0]"]
    assert rules[0].operations == {"list", "root"}
    assert rules[0].reason == "the shop"
    assert (rules[1].callers, rules[1].targets, rules[1].operations) == (None, None, None)
    assert rules[2].targets == {"ledger"}
    assert rules[3].effect is RuleEffect.DENY
    assert rules[3].operations is None


def test_tests_name_services_or_strangers():
    tests = parsed().tests
    assert (tests[0].method, tests[0].path, tests[0].expect) == ("GET", "/a b?c", RuleEffect.DENY)
    assert (tests[1].caller, tests[1].method, tests[1].path) == ("spiffe://x/y", None, None)


def test_positions_count_from_one():
    snapshot = parsed()
    assert snapshot.services["orders"].span == Span(file="shop.yaml", line=9, column=3)
    assert snapshot.services["orders"].operations[3].span == Span(file="shop.yaml", line=13, column=7)
    assert snapshot.services["orders"].probes[1].span == Span(file="shop.yaml", line=18, column=29)
    assert [rule.span.line for rule in snapshot.rules] == [22, 23, 24, 26]
    assert str(snapshot.rules[3].span) == "shop.yaml:26:5"


def test_a_byte_order_mark_and_windows_line_ends_change_nothing():
    windows = b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode()
    again = parse_policy({"shop.yaml": windows})
    assert again == parsed()
    assert again.rules[3].span == parsed().rules[3].span


def test_columns_count_characters_not_bytes():
    text = 'version: 1\ntrust_domain: a\nservices: {x: {}}\ndeny: [{reason: "é€😀", from: x, to: x}, {from: x, to: x}]\n'
    assert parse_policy({"p": text.encode()}).rules[1].span.column == 41


def test_a_directory_is_one_policy():
    head, _, tail = TEXT.partition("allow:\n")
    rules, _, tests = ("allow:\n" + tail).partition("tests:\n")
    files = {
        "10-rules.yaml": f"version: 1\n{rules}".encode(),
        "20-tests.yaml": f"version: 1\ntrust_domain: shop.example\ntests:\n{tests}".encode(),
        "00-services.yaml": head.encode(),
    }
    snapshot = parse_policy(files)
    assert snapshot == parsed()
    assert snapshot.hash == parsed().hash
    assert snapshot.rules[0].span.file == "10-rules.yaml"


def test_services_are_found_by_spiffe_id():
    snapshot = parsed()
    assert snapshot.service_of("spiffe://shop.example/ns/shop/sa/orders") is snapshot.services["orders"]
    assert snapshot.service_of("spiffe://shop.example/svc/orders") is None


def test_the_hash_names_the_meaning():
    assert len(parsed().hash) == 64
    assert parse_policy({"x": TEXT.replace("GET /dir/", "GET /dir").encode()}).hash != parsed().hash
    assert parse_policy({"x": TEXT.replace("[list, root]", "[root, list]").encode()}).hash == parsed().hash


def test_the_pure_python_reader_reads_the_same(monkeypatch):
    expected = parsed()
    monkeypatch.setattr(_yaml, "_LOADER", yaml.BaseLoader)
    again = parsed()
    assert again == expected
    assert [rule.span for rule in again.rules] == [rule.span for rule in expected.rules]
    for content, code in (
        (b"a: [b", "syntax"),
        (b"[" * 5000, "too-deep"),
        (b"a: &b c", "anchor"),
        (b"a\n---\nb", "documents"),
    ):
        with pytest.raises(PolicyError) as caught:
            parse_policy({"p": content})
        assert code in {problem.code for problem in caught.value.problems}
