# SPDX-License-Identifier: Apache-2.0
"""What traffic says about a policy: what is never suggested, and that what is suggested is exactly done."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from everyhop.authz import Engine
from everyhop.authz.narrowing import narrow
from everyhop.authz.suggesting import candidates, is_let_in, narrowings, uses_of
from everyhop.authz.traffic import Seen
from everyhop.authz.trying import try_edits
from everyhop.policy import parse_policy

POLICY = b"""\
version: 1
trust_domain: shop.example
roles:
  viewer: [orders.list, orders.read]
  admin:
    grants:
      - orders.*     # all of it
      - files.read
services:
  shop: {}
  batch: {}
  night: {}
  orders: {operations: {list: GET /orders, read: "GET /orders/{id}", create: POST /orders, tag: PUT /tags}}
  files: {operations: {read: "GET /files/{id}"}}
  ledger: {tcp: 5432}
allow:
  # the shop
  - {from: shop, to: orders, operations: all, user: optional}   # wide
  - from: [shop, batch, night]
    to: [orders, files]
    operations:
      - read
  - {from: any, to: orders, operations: [tag]}
  - {from: night, to: orders, operations: [list], id: nightly}
  - {from: batch, to: ledger}
  - {from: night, to: files, operations: [read], mode: shadow}
deny:
  - {from: batch, to: orders, operations: [create], when: "request.query.x == 'y'"}
tests:
  - {from: batch, tcp: true, to: ledger, expect: allow}
"""
SNAPSHOT = parse_policy({"p.yaml": POLICY})
ENGINE = Engine(SNAPSHOT)
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def seen(caller, operation="list", *, allowed=True, **more):
    base = {
        "point": "ingress",
        "caller": caller if "/" in caller else f"spiffe://shop.example/service/{caller}",
        "target": "orders",
        "operation": operation,
        "call": None,
        "decision": "allow" if allowed else "deny",
        "reason": "allowed" if allowed else "no-rule",
        "rule": None,
        "would": None,
        "would_reason": None,
        "would_rule": None,
        "user": False,
        "count": 3,
        "first": NOON,
        "last": NOON,
        "example": "id",
    }
    return Seen(**{**base, **more})


def refused(caller, operation="list", **more):
    return seen(caller, operation, allowed=False, **more)


# -- what is never suggested


def test_without_records_nothing_is_said():
    assert narrowings(ENGINE, []) == []
    assert narrowings(ENGINE, [refused("shop")]) == []
    assert candidates(ENGINE, []) == ([], [])


@pytest.mark.parametrize(
    "group",
    [
        seen("shop", point="egress"),
        seen("shop", reason="shadowed"),
        seen("spiffe://other.example/x"),
        refused("shop"),
        seen("shop", None, call="GET /x"),
    ],
)
def test_what_is_no_use_of_a_grant(group):
    assert uses_of(ENGINE, [group]) == ({}, {})


@pytest.mark.parametrize(
    "group",
    [
        refused("spiffe://other.example/x"),
        refused("outside", point="edge"),
        refused("batch", reason="denied-by-rule"),
        refused("batch", reason="condition-false"),
        refused("batch", reason="TOKEN_EXPIRED"),
        refused("batch", reason="ambiguous-path", operation=None, call="GET /a//b"),
        refused("shop"),  # let in by now
        refused("batch", None, reason="unknown-operation"),  # too many to be told apart
        seen("batch", reason="shadowed"),
    ],
)
def test_what_is_no_candidate(group):
    assert candidates(ENGINE, [group])[0] == []


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (refused("batch", "create"), "deny[0] speaks against it"),
        (
            refused("batch", None, point="egress", reason="undeclared-destination", target="evil.example"),
            "no service",
        ),
        (
            refused("batch", None, target="files", reason="unknown-operation", call="GET /files//1"),
            "not as it came",
        ),
    ],
)
def test_candidates_without_a_change(group, words):
    (candidate,), _ = candidates(ENGINE, [group])
    assert candidate.suggestion is None
    assert words in candidate.note


def test_callers_that_only_attack_are_left_out():
    attack = refused("batch", None, reason="ambiguous-path", call="GET /orders/..")
    found, left_out = candidates(ENGINE, [attack, refused("batch", "list"), refused("night", "create")])
    assert ([c.caller for c in found], left_out) == (["night"], ["batch"])
    found, left_out = candidates(ENGINE, [attack, refused("batch", "list"), seen("batch", "tag")])
    assert ([c.caller for c in found], left_out) == (["batch"], [])
    found, left_out = candidates(ENGINE, [attack, refused("batch", "list"), seen("batch", reason="shadowed")])
    assert ([c.caller for c in found], left_out) == ([], ["batch"])


def test_a_search_for_paths_is_no_candidate():
    calls = [refused("night", None, reason="unknown-operation", call=f"GET /{n}") for n in range(20)]
    assert len(candidates(ENGINE, calls)[0]) == 20
    assert candidates(ENGINE, [*calls, refused("night", None, reason="unknown-operation")])[0] == []


@pytest.mark.parametrize(
    "group",
    [
        refused("batch", "list"),
        refused("batch", "list", user=True),
        refused("batch", None, reason="unknown-operation", call="DELETE /orders"),
        refused("night", "tcp", target="ledger"),
        refused(
            "batch",
            None,
            point="egress",
            reason="undeclared-destination",
            target="files",
            call="PUT /files/1",
        ),
    ],
)
def test_a_candidate_lets_in_what_was_refused(group):
    (candidate,), _ = candidates(ENGINE, [group])
    assert not is_let_in(group, ENGINE)
    assert try_edits({"p.yaml": POLICY}, candidate.suggestion.edits, lambda engine: is_let_in(group, engine))
    assert ("user: required" in candidate.suggestion.edits[-1].yaml) == group.user


# -- what is narrowed


USED = [
    seen("shop", "list", user=True, count=10),
    seen("shop", "create", count=1),
    seen("batch", "read", count=4),
    seen("batch", "tag", count=2),
    seen("night", "tag", count=2),
]


def test_what_was_used_and_what_was_not():
    found = {n.rule.id if n.rule else f"{n.role.name} {n.grant}": n for n in narrowings(ENGINE, USED)}
    assert {name: n.keep for name, n in found.items()} == {
        "allow[0]": {"operations": ("create", "list")},
        "allow[1]": {"from": ("batch",), "to": ("orders",)},
        "allow[2]": {"from": ("batch", "night")},
        "nightly": {},
        "allow[4]": {},
        "viewer orders.read": {},
        "admin orders.*": {"grants": ("orders.list",)},
        "admin files.read": {},
    }
    assert found["allow[0]"].use.to_dict() == {
        "count": 11,
        "first": "2026-05-01T12:00:00.000000Z",
        "last": "2026-05-01T12:00:00.000000Z",
    }
    assert found["nightly"].to_dict()["kind"] == "unused"


def test_the_text_is_narrowed_and_a_test_of_the_policy_is_respected():
    result = narrow(SNAPSHOT, {"p.yaml": POLICY}, narrowings(ENGINE, USED))
    assert [(n.rule.id, why.partition(" needs")[0]) for n, why in result.left] == [
        ("allow[4]", "a test of the policy")
    ]
    text = result.files["p.yaml"].decode()
    assert "  viewer: [orders.list]\n" in text
    assert "      - orders.list     # all of it\nservices" in text
    assert "  - {from: shop, to: orders, operations: [create, list], user: optional}   # wide\n" in text
    assert "  - from: [batch]\n    to: [orders]\n    operations:\n      - read\n" in text
    assert "  - {from: [batch, night], to: orders, operations: [tag]}\n" in text
    assert "nightly" not in text
    assert "  - {from: batch, to: ledger}\n" in text
    assert set(text.splitlines()) - set(POLICY.decode().splitlines()) == {
        "  viewer: [orders.list]",
        "      - orders.list     # all of it",
        "  - {from: shop, to: orders, operations: [create, list], user: optional}   # wide",
        "  - from: [batch]",
        "    to: [orders]",
        "  - {from: [batch, night], to: orders, operations: [tag]}",
    }
    after = Engine(parse_policy(result.files))
    for group in USED:
        assert after.index.of("orders", group.operation).allows(
            group.caller.rpartition("/")[2], is_probe=False
        )


def test_another_text_than_the_one_in_force_is_not_touched():
    moved = b"# moved\n" + POLICY
    result = narrow(SNAPSHOT, {"p.yaml": moved}, [n for n in narrowings(ENGINE, USED) if n.rule])
    assert result.files == {"p.yaml": moved}
    assert result.done == ()
    assert narrow(SNAPSHOT, {}, narrowings(ENGINE, USED)).done == ()
