# SPDX-License-Identifier: Apache-2.0
"""Records that a sidecar wrote alone: what they say of the policy in shadow, and what they must not say."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from everyhop.auditlog import Kind, Point, Record
from everyhop.control.policy_view import PolicyView
from everyhop.control.watching import KEPT_VIEWS, ShadowWatch
from everyhop.core.decision import Effect
from everyhop.policy import parse_policy

POLICY = """\
version: 1
trust_domain: shop.example
services:
  shop: {}
  batch: {}
  orders:
    operations: {list: GET /orders, purge: DELETE /orders, tag: PUT /tags, old: GET /old}
  ledger: {tcp: 5432}
allow:
  - {from: shop, to: orders, operations: [list]}
  - {from: shop, to: orders, operations: [tag], when: "request.method == 'PUT'"}
  - {from: outside, to: orders, operations: [old]}
  - {from: shop, to: orders, operations: [purge], mode: shadow, id: purging}
deny:
  - {from: any, to: orders, operations: [list, tag, old], mode: shadow, id: closing}
shadow:
  - {from: batch, to: any}
"""
VIEW = PolicyView(parse_policy({"p.yaml": POLICY.encode()}))


def record(caller, operation, method="GET", path="/orders", **fields):
    """Write the record of a call as the engine decides it, unless ``fields`` say otherwise."""
    who = caller if "/" in caller else f"spiffe://shop.example/service/{caller}"
    target = fields.pop("target", "orders")
    asked = "outside" if caller == "outside" else who
    if operation is None:
        decision = VIEW.engine.decide(caller=asked, target=target, method=method, path=path)
    else:
        decision = VIEW.engine.decide_door(caller=asked, target=target, door=operation)
    base = {
        "id": "r",
        "seq": 1,
        "producer": "p",
        "time": datetime(2026, 5, 1, tzinfo=UTC),
        "kind": Kind.DECISION,
        "point": Point.INGRESS,
        "caller": who,
        "target": target,
        "operation": operation,
        "method": method,
        "path": path,
        "decision": decision.effect.value,
        "reason": decision.reason.value,
        "rule": decision.rule,
        "snapshot": VIEW.snapshot.hash,
    }
    return Record(**{**base, **fields})


def would(made, watch=None):
    if watch is None:
        watch = ShadowWatch()
        watch.take(VIEW)
    (seen,) = watch.annotate([made])
    return tuple(seen.detail.get(key) for key in ("would", "would_reason", "would_rule"))


NOTHING = (None, None, None)


@pytest.mark.parametrize(
    "made",
    [
        record("shop", "purge", decision="deny", reason="TOKEN_MISSING", rule=None),
        record("shop", "list", decision="deny", reason="ambiguous-host"),
        record("shop", "list", rule="allow[7]"),
        record("shop", "list", snapshot="0" * 64),
        record("shop", "list", snapshot=VIEW.snapshot.hash[:8]),
        record("shop", "list", snapshot=None),
        record("shop", "list", point=Point.EGRESS),
        record("shop", "list", kind=Kind.LIFECYCLE),
        record("shop", "tag", method="PUT", path="/tags"),  # facts decide, and the agent was asked
        record("spiffe://other.example/x", "list"),
        record("batch", None, path="/a//b"),
        record("shop", None, path="/unknown"),
        msgspec.structs.replace(record("shop", "list"), caller=None),
        record("batch", "gone", decision="allow", reason="shadowed", method=None, path=None),
    ],
)
def test_what_is_not_known_is_not_said(made):
    assert would(made) == NOTHING


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (record("shop", "list"), ("deny", "denied-by-rule", "closing")),
        (record("shop", "purge", method="DELETE"), ("allow", "allowed", "purging")),
        (record("batch", "purge", method="DELETE"), ("deny", "no-rule", None)),
        (record("batch", None, path="/unknown"), ("deny", "unknown-operation", None)),
        (record("batch", "tcp", target="ledger", method=None, path=None), ("deny", "no-rule", None)),
        (record("outside", "old", point=Point.EDGE, path="/old"), ("deny", "denied-by-rule", "closing")),
        (
            record("batch", None, path="/x", snapshot=VIEW.snapshot.hash[:16]),
            ("deny", "unknown-operation", None),
        ),
    ],
)
def test_the_other_answer_is_recorded(made, expected):
    assert would(made) == expected


def test_what_the_agent_said_stays():
    made = record(
        "batch", "purge", method="DELETE", detail={"would": "deny", "would_reason": "condition-error"}
    )
    assert would(made) == ("deny", "condition-error", None)


def test_a_policy_without_shadow_costs_nothing_and_says_nothing():
    plain = PolicyView(
        parse_policy({"p.yaml": POLICY[: POLICY.index("deny:")].replace(", mode: shadow", "").encode()})
    )
    watch = ShadowWatch()
    watch.take(plain)
    made = record("shop", "list", snapshot=plain.snapshot.hash)
    assert watch.annotate([made])[0] is made
    assert "engine" not in plain.__dict__


def test_records_of_the_policy_before_are_still_understood():
    watch = ShadowWatch()
    watch.take(VIEW)
    for n in range(KEPT_VIEWS - 1):
        text = POLICY.replace("/old", f"/old{n}")
        watch.take(PolicyView(parse_policy({"p.yaml": text.encode()})))
    assert would(record("shop", "list"), watch)[0] == Effect.DENY
    watch.take(PolicyView(parse_policy({"p.yaml": POLICY.replace("/old", "/older").encode()})))
    assert would(record("shop", "list"), watch) == NOTHING


def test_the_whole_policy_in_shadow():
    text = POLICY.replace("trust_domain", "mode: shadow\ntrust_domain")
    view = PolicyView(parse_policy({"p.yaml": text.encode()}))
    watch = ShadowWatch()
    watch.take(view)
    made = record(
        "shop", "purge", method="DELETE", snapshot=view.snapshot.hash, decision="allow", reason="shadowed"
    )
    assert would(made, watch) == NOTHING  # with its own rule in force it would be allowed as well
    made = record(
        "shop", "old", path="/old", snapshot=view.snapshot.hash, decision="allow", reason="shadowed"
    )
    assert would(made, watch) == ("deny", "denied-by-rule", "closing")
