# SPDX-License-Identifier: Apache-2.0
"""Why, and what would change it."""

from __future__ import annotations

import json

import pytest

from everyhop.authz import Engine
from everyhop.policy import decode_snapshot, encode_snapshot, parse_policy
from everyhop.policy.edit import append_entry


def explain(engine: Engine, caller: str, call: str, target: str):
    caller = caller if caller.startswith("spiffe:") else f"spiffe://shop.example/service/{caller}"
    if call == "tcp":
        return engine.explain_tcp(caller=caller, target=target)
    method, _, path = call.partition(" ")
    return engine.explain(caller=caller, target=target, method=method, path=path)


@pytest.mark.parametrize(
    ("caller", "call", "target", "expected"),
    [
        (
            "storefront", "POST /v1/charges/7/refund", "payments",
            """\
deny: storefront may not call refund (POST /v1/charges/7/refund) on payments [denied-by-rule]
  by deny[0] at shop.yaml:32:5: deny from any to payments: refund
  reason: no refunds at night
  deny beats allow: no further rule can open this; only changing this one can""",
        ),
        (
            "lone", "tcp", "ledger",
            """\
deny: lone may not connect to ledger (tcp) [denied-by-rule]
  by deny[1] at shop.yaml:33:5: deny from lone to any
  deny beats allow: no further rule can open this; only changing this one can""",
        ),
        (
            "storefront", "POST /orders", "orders",
            """\
deny: no rule lets storefront call create (POST /orders) on orders [no-rule]
  nearest: allow[0] at shop.yaml:25:5: allow from storefront to orders: files, list, read, watch
    operation: create is not files or list or read or watch
  to allow it:
    add to allow (see shop.yaml:30)
      - {from: storefront, to: orders, operations: [create]}""",
        ),
        (
            "payments", "GET /orders/7?x=1", "orders",
            """\
deny: no rule lets payments call read (GET /orders/7?x=1) on orders [no-rule]
  nearest: allow[3] at shop.yaml:30:5: allow from any to any: refund
    operation: read is not refund
  to allow it:
    add to allow (see shop.yaml:30)
      - {from: payments, to: orders, operations: [read]}""",
        ),
        (
            "storefront", "tcp", "ledger",
            """\
deny: no rule lets storefront connect to ledger (tcp) [no-rule]
  nearest: allow[3] at shop.yaml:30:5: allow from any to any: refund
    operation: tcp is not refund
  to allow it:
    add to allow (see shop.yaml:30)
      - {from: storefront, to: ledger}""",
        ),
        (
            "storefront", "POST /orders/7", "orders",
            """\
deny: orders has no operation POST /orders/7 [unknown-operation]
  nearest: read at shop.yaml:8:7: GET /orders/{id} of orders
    method: POST is not GET
  GET /orders/{id} exists; POST does not
  to allow it:
    add to services.orders.operations (see shop.yaml:5)
      post_orders_id: "POST /orders/{id}"
    add to allow (see shop.yaml:30)
      - {from: storefront, to: orders, operations: [post_orders_id]}""",
        ),
        (
            "storefront", "GET /orders/", "orders",
            """\
deny: orders has no operation GET /orders/ [unknown-operation]
  nearest: list at shop.yaml:7:7: GET /orders of orders
    path: /orders/ is not /orders
  a trailing slash makes another path
  to allow it:
    add to services.orders.operations (see shop.yaml:5)
      get_orders: "GET /orders/"
    add to allow (see shop.yaml:30)
      - {from: storefront, to: orders, operations: [get_orders]}""",
        ),
        (
            "spiffe://evil/x", "GET /Orders", "orders",
            """\
deny: orders has no operation GET /Orders [unknown-operation]
  nearest: list at shop.yaml:7:7: GET /orders of orders
    path: /Orders is not /orders
  paths are case-sensitive
  spiffe://evil/x is no declared service either""",
        ),
        (
            "storefront", "GET /x", "lone",
            """\
deny: lone has no operation GET /x [unknown-operation]
  lone has no operations at all""",
        ),
        (
            "storefront", "GET /files/%2e%2e/x?y", "orders",
            """\
deny: the path '/files/%2e%2e/x' has more than one reading [ambiguous-path]
  encoded-unreserved at character 8: it encodes a character that needs no encoding
  an ambiguous path is refused whatever the rules say; the caller must send the plain form""",
        ),
        (
            "spiffe://shop.example/service/order", "GET /orders", "orders",
            """\
deny: spiffe://shop.example/service/order is no service of this policy [unknown-caller]
  the nearest declared identity is spiffe://shop.example/service/orders
  only services that the policy declares may call""",
        ),
        (
            "spiffe://evil/x", "tcp", "ledger",
            """\
deny: spiffe://evil/x is no service of this policy [unknown-caller]
  its trust domain is evil, the policy's is shop.example
  only services that the policy declares may call""",
        ),
        (
            "spiffe:", "tcp", "ledger",
            """\
deny: spiffe: is no service of this policy [unknown-caller]
  this is not a SPIFFE ID
  only services that the policy declares may call""",
        ),
        (
            "storefront", "GET /", "order",
            """\
deny: the policy declares no service 'order' [unknown-service]
  did you mean 'orders'?""",
        ),
        ("storefront", "tcp", "zzz", "deny: the policy declares no service 'zzz' [unknown-service]"),
        (
            "storefront", "tcp", "orders",
            """\
deny: orders speaks HTTP, so tcp is not a way to call it [wrong-protocol]
  nearest: orders at shop.yaml:5:3: service orders""",
        ),
        (
            "storefront", "GET /", "ledger",
            """\
deny: ledger speaks tcp (port 5432), so GET is not a way to call it [wrong-protocol]
  nearest: ledger at shop.yaml:21:3: service ledger""",
        ),
        (
            "storefront", "GET /healthz", "orders",
            """\
allow: storefront may call the probe GET /healthz on orders, as every declared service may [probe]
  by services.orders.probes[0] at shop.yaml:15:14: probe GET /healthz of orders""",
        ),
        (
            "orders", "POST /v1/charges", "payments",
            """\
allow: orders may call charge (POST /v1/charges) on payments [allowed]
  by allow[1] at shop.yaml:26:5: allow from orders to payments: charge""",
        ),
        (
            "orders", "tcp", "ledger",
            """\
allow: orders may connect to ledger (tcp) [allowed]
  by books at shop.yaml:29:5: allow from orders, payments to ledger""",
        ),
    ],
)  # fmt: skip
def test_the_words(engine, caller, call, target, expected):
    assert explain(engine, caller, call, target).render() == expected


def test_a_stored_snapshot_explains_the_same(snapshot):
    stored = Engine(decode_snapshot(encode_snapshot(snapshot)))
    for case in (
        ("storefront", "POST /orders", "orders"),
        ("orders", "tcp", "ledger"),
        ("orders", "GET /healthz", "orders"),
    ):
        assert explain(stored, *case).render() == explain(Engine(snapshot), *case).render()


def test_the_object_for_programs(engine):
    shown = explain(engine, "storefront", "POST /orders", "orders").to_dict()
    assert json.loads(json.dumps(shown)) == shown
    assert shown | {"snapshot": ""} == {
        "decision": "deny",
        "reason": "no-rule",
        "status": 403,
        "caller": "spiffe://shop.example/service/storefront",
        "target": "orders",
        "operation": "create",
        "rule": None,
        "snapshot": "",
        "summary": "no rule lets storefront call create (POST /orders) on orders",
        "cited": None,
        "nearest": {
            "id": "allow[0]",
            "text": "allow from storefront to orders: files, list, read, watch",
            "reason": None,
            "file": "shop.yaml",
            "line": 25,
            "column": 5,
        },
        "differences": [
            {"what": "operation", "asked": "create", "declared": "files or list or read or watch"}
        ],
        "clauses": [],
        "would": None,
        "notes": [],
        "suggestion": {
            "edits": [
                {
                    "add_to": "allow",
                    "yaml": "{from: storefront, to: orders, operations: [create]}",
                    "file": "shop.yaml",
                    "line": 30,
                }
            ],
            "also_opens": [],
        },
    }


HEAD = """\
version: 1
trust_domain: shop.example
services:
  a: {}
  b: {}
  c:
    operations: {one: GET /one, both: 'GET /{x}/both', at: GET /@me, long: 'PUT /{x...}'}
  t: {tcp: 1}
"""


def first_suggestion(text: str, call: str, target: str = "c"):
    engine = Engine(parse_policy({"p.yaml": text.encode()}))
    return explain(engine, "a", call, target).suggestion


@pytest.mark.parametrize(
    ("rules", "call", "why"),
    [
        ("", "PATCH //x", "ambiguous"),
        ("", "BREW /pot", "no such method can be declared"),
        ("", "GET /x%20y", "a template holds no percent-encoding"),
        ("", "GET /a:b", "':' would become guarded, and %3A ambiguous"),
        ("", "GET /x/[y]", "not a literal character"),
        ("deny: [{from: a, to: c}]\n", "GET /two", "a deny rule covers every door"),
    ],
)
def test_no_change_is_suggested_that_would_not_do_or_do_more(rules, call, why):
    assert first_suggestion(HEAD + rules, call) is None, why


def test_no_operation_is_suggested_that_takes_requests_from_another():
    text = HEAD.replace("'PUT /{x...}'", "'PUT /one/{x}/three', near: 'DELETE /{x}/two/{y}'")
    # DELETE /one/{x}/three would win over DELETE /{x}/two/{y} at /one/two/three.
    edit = first_suggestion(text, "DELETE /one/2/three").edits[0]
    assert edit.yaml == 'delete_one_2_three: "DELETE /one/2/three"'


def test_callers_of_all_operations_are_named():
    text = HEAD + "allow: [{from: b, to: c, operations: all}, {from: any, to: any, operations: all, id: z}]\n"
    suggestion = first_suggestion(text, "GET /two")
    assert [edit.yaml for edit in suggestion.edits] == ['get_two: "GET /two"']
    assert suggestion.also_opens == ("b", "c", "t")
    text = HEAD + "allow: [{from: b, to: c, operations: all}]\n"
    rendered = explain(Engine(parse_policy({"p": text.encode()})), "a", "GET /two", "c").render()
    assert "this also opens it to b, who may call all operations" in rendered


def test_names_of_suggested_operations_are_free():
    text = HEAD.replace("one: GET /one", "get_two: GET /one")
    assert first_suggestion(text, "GET /two").edits[0].yaml == 'get_two_2: "GET /two"'


def test_names_of_suggested_operations_are_in_no_rule():
    """A rule to any would cover the new operation by its name."""
    text = HEAD.replace("  t: {tcp: 1}", "  d: {operations: {get_two: GET /}}\n  t: {tcp: 1}")
    text += "allow: [{from: b, to: any, operations: [get_two]}]\n"
    assert first_suggestion(text, "GET /two").edits[0].yaml == 'get_two_2: "GET /two"'


def test_the_first_allow_rule_of_a_policy(files):
    engine = Engine(parse_policy({"p.yaml": HEAD.encode()}))
    explanation = explain(engine, "a", "tcp", "t")
    assert explanation.nearest is None
    edit = explanation.suggestion.edits[0]
    assert (edit.path, edit.yaml, str(edit.span)) == (("allow",), "{from: a, to: t}", "p.yaml:8:3")
    changed = append_entry(HEAD.encode(), edit.path, edit.yaml)
    assert changed.decode() == HEAD + "allow:\n  - {from: a, to: t}\n"


def test_the_nearest_rule_lacks_least():
    rules = """\
allow:
  - {from: b, to: c, operations: [one]}
  - {from: b, to: t}
  - {from: a, to: t}
  - {from: a, to: c, operations: [at]}
  - {from: any, to: any, operations: all}
"""
    engine = Engine(parse_policy({"p.yaml": (HEAD + rules.rpartition("  -")[0]).encode()}))
    found = explain(engine, "a", "GET /one", "c")
    assert (found.nearest.id, [d.what for d in found.differences]) == ("allow[3]", ["operation"])
    found = explain(engine, "c", "tcp", "t")
    assert (found.nearest.id, [d.what for d in found.differences]) == ("allow[1]", ["caller"])
    found = explain(Engine(parse_policy({"p.yaml": (HEAD + rules).encode()})), "c", "tcp", "t")
    assert found.nearest.id == "allow[4]"
    assert found.differences[0].declared == "an operation of an HTTP service"


def test_a_rule_with_nothing_in_common_is_not_near():
    engine = Engine(
        parse_policy({"p.yaml": (HEAD + "allow: [{from: b, to: c, operations: [one]}]\n").encode()})
    )
    assert explain(engine, "a", "tcp", "t").nearest is None
