# SPDX-License-Identifier: Apache-2.0
"""Conditions, roles and shadow: what the facts of a call decide."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from everyhop.authz import Context, Engine, Resource, User, run_tests
from everyhop.core.decision import Effect, Reason
from everyhop.policy import decode_snapshot, encode_snapshot, parse_policy

POLICY = b"""\
version: 1
trust_domain: shop.example
attributes:
  user: {department: string, clearance: {type: int, default: 0}}
  service: {team: string}
  resource: {owner: string, sensitivity: string}
  device: {managed: bool}
  request: {headers: [x-region, x-debug]}
roles:
  viewer: [orders.list, orders.read, files.read]
  clerk: {includes: [viewer], grants: [orders.create], groups: [Staff]}
  admin: {grants: [orders.*, files.*]}
services:
  shop: {attributes: {team: front}}
  batch: {attributes: {team: back}}
  orders:
    operations:
      list: GET /orders
      read: "GET /orders/{id}"
      create: POST /orders
      purge: DELETE /orders
      export: GET /export
      tail: GET /tail
    probes: [GET /healthz]
  files:
    operations: {read: "GET /users/{owner}/files/{rest...}", write: "PUT /users/{owner}/files/{rest...}"}
  ledger: {tcp: 5432}
allow:
  - {from: shop, to: orders, operations: [list, read, create], user: required}
  - {from: batch, to: orders, operations: [list, export]}
  - {from: shop, to: orders, operations: [export], when: "request.headers['x-region'] == 'eu'"}
  - {from: shop, to: files, operations: [read], user: required, when: "request.path_params.owner == user.id"}
  - {from: shop, to: files, operations: [write], user: required, when: "user.mfa && user.clearance >= 2"}
  - {from: any, to: orders, operations: [tail], when: "caller.team == 'back'"}
  - {from: shop, to: ledger, when: "in_cidr(request.source_ip, '10.0.0.0/8')"}
deny:
  - {from: any, to: orders, operations: [export], when: "now.getHours('UTC') < 7", reason: not at night}
  - {from: any, to: orders, operations: [tail], when: "'x-debug' in request.headers"}
directory:
  users:
    dora: {roles: [clerk], attributes: {department: sales, clearance: 3}}
  resources:
    order: {service: orders, parameter: id, items: {"7": {owner: dora, sensitivity: high}}}
"""
NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
NIGHT = datetime(2026, 5, 1, 3, 0, tzinfo=UTC)
VIEWER = User(id="vera", roles=("viewer",))


@pytest.fixture(scope="module", params=["parsed", "stored"])
def engine(request):
    snapshot = parse_policy({"p.yaml": POLICY})
    return Engine(snapshot if request.param == "parsed" else decode_snapshot(encode_snapshot(snapshot)))


def decide(engine, caller, call, target, **facts):
    method, path = call.split(" ", 1)
    who = caller if caller == "outside" else f"spiffe://shop.example/service/{caller}"
    context = Context(**facts) if facts else None
    return engine.decide(caller=who, target=target, method=method, path=path, context=context)


@pytest.mark.parametrize(
    ("caller", "call", "target", "facts", "reason"),
    [
        # people's permissions
        ("shop", "GET /orders", "orders", {}, Reason.USER_REQUIRED),
        ("shop", "GET /orders", "orders", {"now": NOON}, Reason.USER_REQUIRED),
        ("shop", "POST /orders", "orders", {"user": VIEWER}, Reason.USER_NOT_PERMITTED),
        ("shop", "GET /orders", "orders", {"user": User(id="x")}, Reason.USER_NOT_PERMITTED),
        (
            "shop",
            "GET /orders",
            "orders",
            {"user": User(id="x", roles=("Viewer",))},
            Reason.USER_NOT_PERMITTED,
        ),
        (
            "shop",
            "GET /orders",
            "orders",
            {"user": User(id="x", roles=("viewer ",))},
            Reason.USER_NOT_PERMITTED,
        ),
        ("shop", "DELETE /orders", "orders", {"user": User(id="x", roles=("admin",))}, Reason.NO_RULE),
        ("files", "GET /orders", "orders", {"user": User(id="x", roles=("admin",))}, Reason.NO_RULE),
        ("outside", "GET /orders", "orders", {"user": User(id="x", roles=("admin",))}, Reason.NO_RULE),
        # headers
        ("shop", "GET /export", "orders", {"now": NOON}, Reason.CONDITION_ERROR),
        (
            "shop",
            "GET /export",
            "orders",
            {"now": NOON, "headers": {"x-region": ("us",)}},
            Reason.CONDITION_FALSE,
        ),
        (
            "shop",
            "GET /export",
            "orders",
            {"now": NOON, "headers": {"x-region": ("eu", "eu")}},
            Reason.CONDITION_ERROR,
        ),
        (
            "shop",
            "GET /export",
            "orders",
            {"now": NOON, "headers": {"x-region": ("eu,eu",)}},
            Reason.CONDITION_ERROR,
        ),
        (
            "shop",
            "GET /export",
            "orders",
            {"now": NOON, "headers": {"x-region": ("EU",)}},
            Reason.CONDITION_FALSE,
        ),
        # time, and a deny rule that cannot be evaluated
        (
            "shop",
            "GET /export",
            "orders",
            {"now": NIGHT, "headers": {"x-region": ("eu",)}},
            Reason.DENIED_BY_RULE,
        ),
        ("shop", "GET /export", "orders", {"headers": {"x-region": ("eu",)}}, Reason.CONDITION_ERROR),
        ("batch", "GET /export", "orders", {}, Reason.CONDITION_ERROR),
        ("batch", "GET /export", "orders", {"now": NIGHT}, Reason.DENIED_BY_RULE),
        # a header that is sent twice does not hide from a deny rule that looks for it
        ("batch", "GET /tail", "orders", {"headers": {"x-debug": ("1",)}}, Reason.DENIED_BY_RULE),
        ("batch", "GET /tail", "orders", {"headers": {"x-debug": ("1", "2")}}, Reason.CONDITION_ERROR),
        ("batch", "GET /tail", "orders", {"headers": {"x-debug": ("1,2",)}}, Reason.CONDITION_ERROR),
        ("batch", "GET /tail", "orders", {"headers": {"x-debug": ("\u00e9",)}}, Reason.CONDITION_ERROR),
        ("batch", "GET /tail", "orders", {"headers": {"x-debug": ("a\x00",)}}, Reason.CONDITION_ERROR),
        ("batch", "GET /tail", "orders", {"headers": {"x-debug": ("a\n",)}}, Reason.CONDITION_ERROR),
        ("batch", "GET /tail", "orders", {"headers": {"x-debug": ("a \t~",)}}, Reason.DENIED_BY_RULE),
        ("shop", "GET /tail", "orders", {"now": NOON}, Reason.CONDITION_FALSE),
        ("orders", "GET /tail", "orders", {"now": NOON}, Reason.CONDITION_ERROR),  # it has no team
        # path parameters against the user
        (
            "shop",
            "GET /users/vera/files/a",
            "files",
            {"user": User(id="x", roles=("viewer",))},
            Reason.CONDITION_FALSE,
        ),
        ("shop", "GET /users/ver%61/files/a", "files", {"user": VIEWER}, Reason.AMBIGUOUS_PATH),
        ("shop", "GET /users/%FFvera/files/a", "files", {"user": VIEWER}, Reason.CONDITION_ERROR),
        # strength of authentication and attributes with a default
        (
            "shop",
            "PUT /users/a/files/b",
            "files",
            {"user": User(id="a", roles=("admin",))},
            Reason.CONDITION_FALSE,
        ),
        (
            "shop",
            "PUT /users/a/files/b",
            "files",
            {"user": User(id="a", roles=("admin",), amr=("pwd",), attributes={"clearance": 5})},
            Reason.CONDITION_FALSE,
        ),
        (
            "shop",
            "PUT /users/a/files/b",
            "files",
            {"user": User(id="a", roles=("admin",), attributes={"clearance": 5})},
            Reason.CONDITION_ERROR,  # nobody says whether there were two factors
        ),
        (
            "shop",
            "PUT /users/a/files/b",
            "files",
            {"user": User(id="a", roles=("admin",), amr=("mfa",), attributes={"clearance": "5"})},
            Reason.CONDITION_ERROR,
        ),
    ],
)
def test_refused(engine, caller, call, target, facts, reason):
    decision = decide(engine, caller, call, target, **facts)
    assert (decision.effect, decision.reason) == (Effect.DENY, reason)
    assert decision.status == (400 if reason is Reason.AMBIGUOUS_PATH else 403)


@pytest.mark.parametrize(
    ("caller", "call", "target", "facts", "rule"),
    [
        ("shop", "GET /orders", "orders", {"user": VIEWER}, "allow[0]"),
        ("shop", "POST /orders", "orders", {"user": User(id="x", roles=("clerk",))}, "allow[0]"),
        ("shop", "POST /orders", "orders", {"user": User(id="x", roles=("Staff",))}, "allow[0]"),
        ("shop", "POST /orders", "orders", {"user": User(id="dora")}, "allow[0]"),  # the directory knows her
        ("batch", "GET /orders", "orders", {}, "allow[1]"),
        ("batch", "GET /export", "orders", {"now": NOON}, "allow[1]"),
        ("shop", "GET /export", "orders", {"now": NOON, "headers": {"x-region": ("eu",)}}, "allow[2]"),
        ("shop", "GET /users/vera/files/a/b", "files", {"user": VIEWER}, "allow[3]"),
        ("shop", "GET /users/v%C3%A9ra/files/", "files", {"user": replace(VIEWER, id="véra")}, "allow[3]"),
        ("batch", "GET /tail", "orders", {"now": NOON}, "allow[5]"),
        ("shop", "GET /healthz", "orders", {}, "services.orders.probes[0]"),
        (
            "shop",
            "PUT /users/a/files/b",
            "files",
            {"user": User(id="a", roles=("admin",), amr=("pwd", "mfa"), attributes={"clearance": 2})},
            "allow[4]",
        ),
    ],
)
def test_allowed(engine, caller, call, target, facts, rule):
    decision = decide(engine, caller, call, target, **facts)
    assert decision.is_allowed, decision
    assert decision.rule == rule


def test_a_connection_is_decided_by_its_address(engine):
    shop = "spiffe://shop.example/service/shop"
    for address, expected in (
        ("10.1.2.3", Reason.ALLOWED),
        ("11.0.0.1", Reason.CONDITION_FALSE),
        ("::ffff:10.0.0.1", Reason.ALLOWED),
        ("nonsense", Reason.CONDITION_ERROR),
    ):
        context = Context(source_ip=address)
        assert engine.decide_tcp(caller=shop, target="ledger", context=context).reason is expected
    assert engine.decide_tcp(caller=shop, target="ledger").reason is Reason.CONDITION_ERROR


def test_a_door_has_no_path(engine):
    context = Context(user=VIEWER)
    shop = "spiffe://shop.example/service/shop"
    found = engine.decide_door(caller=shop, target="files", door="read", context=context)
    assert found.reason is Reason.CONDITION_ERROR


def test_the_directory_means_a_user_of_one_provider_only():
    text = POLICY + (
        b"users: {issuers: [{issuer: 'https://a.example', audience: x}, {issuer: 'https://b.example', audience: x}]}\n"
    )
    engine = Engine(parse_policy({"p.yaml": text}))
    foreign = User(id="dora", issuer="https://b.example")
    assert decide(engine, "shop", "GET /orders", "orders", user=foreign).reason is Reason.USER_NOT_PERMITTED
    assert decide(engine, "shop", "GET /orders", "orders", user=User(id="dora")).is_allowed


def test_what_the_directory_knows_of_a_resource_counts_before_what_is_said():
    text = POLICY.replace(
        b'when: "user.mfa && user.clearance >= 2"', b"when: \"resource.sensitivity == 'low'\""
    ).replace(b"to: files, operations: [write]", b"to: orders, operations: [create]")
    engine = Engine(parse_policy({"p.yaml": text.replace(b"[list, read, create]", b"[list, read]")}))
    user = User(id="x", roles=("admin",))
    stated = Resource(type="order", id="7", attributes={"sensitivity": "low"})
    assert decide(engine, "shop", "POST /orders", "orders", user=user, resource=stated).reason is (
        Reason.CONDITION_FALSE
    )
    other = Resource(type="order", id="8", attributes={"sensitivity": "low"})
    assert decide(engine, "shop", "POST /orders", "orders", user=user, resource=other).is_allowed


def test_explanations_name_the_clause_and_what_it_saw(engine):
    shop = "spiffe://shop.example/service/shop"
    user = User(id="a", roles=("admin",), amr=("mfa",), attributes={"clearance": 1})
    explained = engine.explain(
        caller=shop, target="files", method="PUT", path="/users/a/files/b", context=Context(user=user)
    )
    assert [(c.text, c.truth.value) for c in explained.clauses] == [
        ("user.mfa", "true"),
        ("user.clearance >= 2", "false"),
    ]
    assert "user.clearance = 1" in explained.render()
    assert explained.nearest.id == "allow[4]"
    assert explained.to_dict()["clauses"][1]["inputs"] == {"user.clearance": "1"}


def test_a_missing_grant_is_named_with_its_edit(engine):
    shop = "spiffe://shop.example/service/shop"
    explained = engine.explain(
        caller=shop, target="orders", method="POST", path="/orders", context=Context(user=VIEWER)
    )
    assert explained.suggestion.edits[0].path == ("roles", "viewer")
    assert explained.suggestion.edits[0].yaml == "orders.create"
    assert explained.suggestion.also_opens == ()  # clerk, which includes it, has the grant already
    assert "roles that may: Staff, admin, clerk" in explained.render()


@pytest.mark.parametrize(
    ("facts", "reason"),
    [({}, "condition-error"), ({"now": NIGHT}, "denied-by-rule"), ({"now": NOON}, "allowed")],
)
def test_every_reason_of_facts_is_explained(engine, facts, reason):
    batch = "spiffe://shop.example/service/batch"
    context = Context(**facts) if facts else None
    explained = engine.explain(caller=batch, target="orders", method="GET", path="/export", context=context)
    assert explained.decision.reason.value == reason
    assert explained.rule is not None


SHADOW = POLICY.replace(
    b"deny:\n", b"deny:\n  - {from: shop, to: orders, operations: [list], mode: shadow, id: later}\n"
).replace(
    b"allow:\n", b"allow:\n  - {from: batch, to: orders, operations: [purge], mode: shadow, id: soon}\n"
)


def test_a_rule_in_shadow_changes_nothing_and_says_what_it_would():
    engine = Engine(parse_policy({"p.yaml": SHADOW}))
    allowed = decide(engine, "shop", "GET /orders", "orders", user=VIEWER)
    assert (allowed.reason, allowed.would.effect, allowed.would.rule) == (
        Reason.ALLOWED,
        Effect.DENY,
        "later",
    )
    denied = decide(engine, "batch", "DELETE /orders", "orders")
    assert (denied.reason, denied.would.effect, denied.would.rule) == (Reason.NO_RULE, Effect.ALLOW, "soon")
    assert decide(engine, "batch", "GET /orders", "orders").would is None


@pytest.mark.parametrize("how", [b"mode: shadow\n", b"shadow: [{from: files, to: orders}]\n"])
def test_where_the_policy_is_only_watched_want_of_permission_passes(how):
    engine = Engine(parse_policy({"p.yaml": POLICY + how}))
    for call in ("GET /orders", "DELETE /orders", "GET /nowhere"):
        passed = decide(engine, "files", call, "orders")
        assert (passed.effect, passed.reason) == (Effect.ALLOW, Reason.SHADOWED)
        assert passed.would.effect is Effect.DENY
    assert decide(engine, "files", "GET //orders", "orders").reason is Reason.AMBIGUOUS_PATH
    assert decide(engine, "nobody", "GET /orders", "orders").reason is Reason.UNKNOWN_CALLER
    assert decide(engine, "outside", "GET /orders", "orders").reason is Reason.NO_RULE
    if how.startswith(b"shadow"):
        assert decide(engine, "files", "PUT /users/a/files/b", "files").reason is Reason.NO_RULE
        assert decide(engine, "shop", "DELETE /orders", "orders").reason is Reason.NO_RULE


def test_tests_of_a_policy_state_facts():
    tests = b"""\
tests:
  - {from: shop, call: GET /orders, to: orders, user: {roles: [viewer]}, expect: allow}
  - {from: shop, call: GET /orders, to: orders, user: {}, expect: deny}
  - {from: batch, call: GET /export, to: orders, at: 2026-05-01T12:00:00Z, expect: allow}
  - {from: batch, call: GET /export, to: orders, at: 2026-05-01T03:00:00+00:00, expect: deny}
  - {from: shop, call: GET /export, to: orders, at: 2026-05-01T12:00:00Z, headers: {x-region: [eu, eu]}, expect: deny}
  - {from: shop, call: PUT /users/a/files/b, to: files, user: {roles: [admin], mfa: true, clearance: 2}, expect: allow}
  - {from: shop, tcp: true, to: ledger, source_ip: 10.0.0.1, expect: allow}
"""
    snapshot = parse_policy({"p.yaml": POLICY + tests})
    assert [result.is_passed for result in run_tests(snapshot)] == [True] * 7
    again = decode_snapshot(encode_snapshot(snapshot))
    assert again.canonical == snapshot.canonical
    assert [result.is_passed for result in run_tests(again)] == [True] * 7


@pytest.mark.parametrize("order", [("required", "none"), ("none", "required"), ("optional", "required")])
def test_the_order_of_rules_for_users_and_for_none_does_not_matter(order):
    rules = "".join(f"  - {{from: a, to: b, operations: [x], user: {mode}}}\n" for mode in order)
    text = f"version: 1\ntrust_domain: x.example\nservices: {{a: {{}}, b: {{operations: {{x: GET /x}}}}}}\nallow:\n{rules}"
    engine = Engine(parse_policy({"p.yaml": text.encode()}))
    ask = {"caller": "spiffe://x.example/service/a", "target": "b", "method": "GET", "path": "/x"}
    assert engine.decide(**ask, context=Context()).is_allowed
    with_user = engine.decide(**ask, context=Context(user=VIEWER))
    assert engine.rule(with_user.rule).user.value != "none"


def test_a_rule_in_shadow_without_a_user_would_allow_beside_one_that_asks_for_a_user():
    text = b"""
version: 1
trust_domain: x.example
services:
  a: {operations: {list: GET /things}}
  c: {operations: {list: GET /things}}
allow:
  - {from: a, to: c, operations: [list], mode: shadow}
  - {from: a, to: c, operations: [list], user: required}
"""
    engine = Engine(parse_policy({"p": text}))
    call = {"caller": "spiffe://x.example/service/a", "target": "c", "method": "GET", "path": "/things"}
    decision = engine.decide(**call, context=Context())
    assert (decision.reason, decision.would.rule) == (Reason.USER_REQUIRED, "allow[0]")
