# SPDX-License-Identifier: Apache-2.0
"""What a permitted call carries, what a token may say, and who comes from outside."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings, strategies as st
from tests.strategies import policy_documents

from everyhop.authz import Engine, Grants, run_tests, service_table
from everyhop.core.decision import Effect, Reason
from everyhop.core.errors import NotFound
from everyhop.policy import TokenMode, UserMode, parse_policy

TEXT = """
version: 1
trust_domain: shop.example
services:
  shop: {}
  orders:
    operations: {list: GET /orders, create: {route: POST /orders, token: required}}
    probes: [GET /up]
  payments:
    operations:
      charge: {route: POST /c, token: operation, once: true}
      refund: {route: POST /r, token: required}
      read: GET /c
  db: {tcp: 5432}
allow:
  - {from: shop, to: orders, operations: [list, create], user: required}
  - {from: outside, to: orders, operations: [list], user: optional}
  - {from: orders, to: payments, operations: [charge, read]}
  - {from: shop, to: payments, operations: all}
  - {from: any, to: db}
deny:
  - {from: shop, to: payments, operations: [refund]}
tests:
  - {from: outside, to: orders, call: GET /orders, expect: allow}
  - {from: outside, to: orders, call: POST /orders, expect: deny}
  - {from: outside, to: orders, call: GET /up, expect: deny}
"""
SNAPSHOT = parse_policy({"p.yaml": TEXT.encode()})
ID = "spiffe://shop.example/service/"


def test_the_tests_of_a_policy_may_come_from_outside():
    assert all(result.is_passed for result in run_tests(SNAPSHOT))


def test_what_a_call_carries():
    engine = Engine(SNAPSHOT)
    charge = engine.requirement(caller=ID + "orders", target="payments", operation="charge")
    assert (charge.token, charge.once, charge.audience) == (TokenMode.OPERATION, True, "payments#charge")
    assert charge.user is UserMode.NONE
    create = engine.requirement(caller=ID + "shop", target="orders", operation="create")
    assert (create.audience, create.user, create.once) == ("orders", UserMode.REQUIRED, False)
    read = engine.requirement(caller=ID + "orders", target="payments", operation="read")
    assert read.is_empty
    assert engine.requirement(caller="outside", target="orders", operation="list").user is UserMode.OPTIONAL
    assert engine.requirement(caller=ID + "nobody", target="orders", operation="list").user is UserMode.NONE
    for target, operation in (("orders", "nothing"), ("nobody", "list"), ("db", "tcp")):
        with pytest.raises(NotFound):
            engine.requirement(caller=ID + "shop", target=target, operation=operation)


def test_what_a_token_may_grant():
    grants = Grants(SNAPSHOT)
    assert grants.operations("shop", "payments") == {"charge", "read"}
    assert grants.operations(ID + "orders", "payments") == {"charge", "read"}
    assert grants.operations("outside", "orders") == {"list"}
    assert grants.operations("outside", "payments") == frozenset()
    assert grants.operations("payments", "orders") == frozenset()
    assert grants.operations("shop", "db") == frozenset()
    assert grants.operations(ID + "nobody", "orders") is None
    assert grants.operations("any", "orders") is None
    assert grants.operations("shop", "nobody") is None
    assert grants.audiences("shop") == [("orders", None), ("payments", "charge")]
    assert grants.audiences(ID + "orders") == [("payments", "charge")]
    assert grants.audiences("nobody") == []
    assert grants.edge_scopes() == {"orders.list"}


def test_the_table_says_the_same():
    table = service_table(SNAPSHOT, "orders")
    assert table.needs_context
    assert table.has_edge
    entries = {entry.operation.name: entry for entry in table.entries}
    assert entries["list"].verdicts[ID + "shop"].user is UserMode.REQUIRED
    assert entries["list"].outside.effect is Effect.ALLOW
    assert entries["create"].outside.reason is Reason.NO_RULE
    assert entries["probes[0]"].outside.effect is Effect.DENY
    assert not entries["probes[0]"].needs_context
    assert not service_table(SNAPSHOT, "db").needs_context
    assert not service_table(SNAPSHOT, "shop").has_edge


def test_the_explanation_names_what_the_call_carries():
    engine = Engine(SNAPSHOT)
    text = engine.explain(caller=ID + "orders", target="payments", method="POST", path="/c").render()
    assert "a token for payments#charge, good for one call" in text
    text = engine.explain(caller=ID + "shop", target="orders", method="GET", path="/orders").render()
    assert "the call carries a verified user" in text


@settings(max_examples=60)
@given(document=policy_documents(), data=st.data())
def test_a_rule_for_the_outside_changes_nothing_inside(document, data):
    before = parse_policy({"p.yaml": json.dumps(document).encode()})
    http = sorted(name for name, service in before.services.items() if service.operations)
    if not http:
        return
    rule = {
        "from": "outside",
        "to": data.draw(st.sampled_from(http)),
        "operations": "all",
        "user": "required",
    }
    changed = {**document, "allow": [*document.get("allow", []), rule]}
    changed.pop("tests", None)
    after = parse_policy({"p.yaml": json.dumps(changed).encode()})
    one, other = Engine(before), Engine(after)
    for target, service in before.services.items():
        for operation in (*service.operations, *service.probes):
            for caller in before.services.values():
                ask = {"caller": str(caller.spiffe_id), "target": target, "door": operation.name}
                assert one.decide_door(**ask).rule == other.decide_door(**ask).rule
                assert one.decide_door(**ask).effect == other.decide_door(**ask).effect
            assert one.decide_door(caller="outside", target=target, door=operation.name).effect is Effect.DENY
