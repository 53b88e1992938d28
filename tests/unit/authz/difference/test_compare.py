# SPDX-License-Identifier: Apache-2.0
"""What a change of policy opens and closes, each change with a request that truly flips."""

from __future__ import annotations

import itertools
import json

import pytest

from everyhop.authz import Context, Engine
from everyhop.authz.difference import Direction, Group, Weight, command, compare, describe, render
from everyhop.core.errors import Conflict
from everyhop.policy import parse_policy
from everyhop.policy.facts_text import parse_facts

POLICY = """\
version: 1
trust_domain: shop.example
users:
  issuers: [{issuer: https://login.example, audience: [everyhop, other]}]
attributes:
  user: {clearance: {type: int, default: 0}, department: string}
  service: {team: string}
  resource: {owner: string}
  request: {headers: [x-region]}
roles:
  viewer: [orders.list, orders.read]
  clerk: {includes: [viewer], grants: [orders.create], groups: [Staff]}
services:
  shop: {workload: [{run: true}], attributes: {team: front}}
  batch: {workload: [{run: true}, {unix: {user: batch}}], attributes: {team: back}}
  third: {}
  orders:
    operations:
      list: GET /orders
      read: "GET /orders/{id}"
      create: {route: POST /orders, token: required}
      export: GET /export
    probes: [GET /healthz]
  ledger: {tcp: 5432}
allow:
  - {from: shop, to: orders, operations: [list, read, create], user: required}
  - {from: batch, to: orders, operations: [export]}
  - {from: shop, to: orders, operations: [export], when: "request.headers['x-region'] == 'eu'"}
  - {from: shop, to: ledger}
deny:
  - {from: any, to: orders, operations: [export], when: "now.getHours('UTC') < 7"}
directory:
  users: {dora: {roles: [clerk]}}
  resources: {order: {service: orders, parameter: id, items: {"7": {owner: dora}}}}
"""


def plan_of(*edits, base=POLICY):
    text = base
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    before, after = (parse_policy({"p.yaml": t.encode()}) for t in (base, text))
    plan = compare(before, after)
    engines = Engine(before), Engine(after)
    for change in plan.changes:
        example = change.example
        effects = []
        for engine in engines:
            if example.method is None:
                decision = engine.decide_tcp(
                    caller=example.caller, target=example.target, context=example.context
                )
            else:
                decision = engine.decide(
                    caller=example.caller,
                    target=example.target,
                    method=example.method,
                    path=example.path,
                    context=example.context,
                )
            effects.append(decision)
        assert effects == [example.before, example.after]
        assert effects[0].is_allowed is (change.direction is Direction.LOST)
        assert effects[1].is_allowed is (change.direction is Direction.GAINED)
    return plan


def said(plan):
    return [
        (c.direction.value, str(c.callers), f"{c.target}.{c.door}", c.users and str(c.users), c.depends)
        for c in plan.changes
    ]


# -- nothing changes


def test_equal_policies_are_not_asked_at_all():
    plan = plan_of()
    assert (plan.is_same, plan.is_wider, plan.explored, plan.evaluated) == (True, False, 0, 0)
    assert list(render(plan)) == [("title", "nothing changes: the same policy")]


@pytest.mark.parametrize(
    "edit",
    [
        (
            "when: \"now.getHours('UTC') < 7\"",
            "when: \"now.getHours('UTC') < 7\", reason: at night, id: night",
        ),
        ("[list, read, create], user", "[create, list, read], user"),
        (
            "{from: batch, to: orders, operations: [export]}\n",
            "{from: [batch], to: orders, operations: [export]}\n",
        ),
        ("now.getHours('UTC') < 7", "now.getHours('UTC') < 6 || now.getHours('UTC') == 6"),
        ("request.headers['x-region'] == 'eu'", "'eu' == request.headers['x-region']"),
        ("{from: shop, to: ledger}", "{from: shop, to: ledger}\n  - {from: shop, to: ledger, id: again}"),
    ],
)
def test_another_text_with_the_same_answers_is_the_same(edit):
    plan = plan_of(edit)
    assert plan.is_same
    assert not plan.is_wider


def test_trust_domains_cannot_be_compared():
    with pytest.raises(Conflict):
        compare(
            parse_policy({"p": POLICY.encode()}),
            parse_policy({"p": POLICY.replace("shop.example", "other.example").encode()}),
        )


# -- what opens


def test_a_rule_more():
    plan = plan_of(("  - {from: shop, to: ledger}", "  - {from: [shop, batch], to: ledger}"))
    assert said(plan) == [("gained", "batch", "ledger.tcp", None, False)]
    assert plan.is_wider
    assert next(iter(render(plan)))[1].startswith("access WIDENS: 1 gained, 0 lost")


def test_any_opens_to_all_others_in_one_change():
    plan = plan_of(("{from: batch, to: orders", "{from: any, to: orders"))
    others = [c for c in plan.gained if c.callers.group is Group.OTHERS]
    assert len(others) == 1
    assert others[0].callers.count == 3  # orders, ledger, third
    assert ("gained", "shop", "orders.export", None, True) in said(plan)


def test_a_role_that_grants_more():
    plan = plan_of(
        ("viewer: [orders.list, orders.read]", "viewer: [orders.list, orders.read, orders.create]")
    )
    assert said(plan) == [("gained", "shop", "orders.create", "for a user with role viewer", False)]


def test_a_user_of_the_directory_gets_a_role():
    plan = plan_of(("dora: {roles: [clerk]}", "dora: {roles: [clerk]}, emil: {roles: [viewer]}"))
    assert ("gained", "shop", "orders.list", "for the user emil", False) in said(plan)
    assert not any("create" in line[2] for line in said(plan))


def test_a_boundary_that_moves_is_found_with_the_hour():
    plan = plan_of(("< 7", "< 6"))
    assert {line[:3] for line in said(plan)} == {
        ("gained", "batch", "orders.export"),
        ("gained", "shop", "orders.export"),
    }
    assert {c.example.context.now.hour for c in plan.changes} == {6}
    assert not plan.unexplored


def test_an_attribute_default_changes_what_a_condition_means():
    base = POLICY.replace(
        "operations: [export]}\n", 'operations: [export], when: "user.clearance > 1", user: required}\n', 1
    )
    base = base.replace("viewer: [orders.list,", "viewer: [orders.export, orders.list,")
    plan = plan_of(("default: 0", "default: 2"), base=base)
    assert any(line[0] == "gained" and line[1] == "batch" for line in said(plan))


def test_a_new_service_gets_what_is_open_to_any():
    plan = plan_of(("  third: {}", "  third: {}\n  fourth: {}"))
    assert said(plan) == [("gained", "fourth (new)", "orders.probes[0]", None, False)]


def test_a_service_with_another_identity_is_another_caller():
    plan = plan_of(("batch: {workload", "batch: {identity: /other/batch, workload"))
    assert ("gained", "batch (new)", "orders.export", None, True) in said(plan)
    assert ("lost", "batch (no longer declared)", "orders.export", None, True) in said(plan)


def test_shadow_opens_what_is_only_watched_also_operations_that_nobody_declared():
    plan = plan_of(("allow:\n", "shadow: [{from: third, to: orders}]\nallow:\n"))
    doors = {line[2] for line in said(plan) if line[1] == "third"}
    assert doors == {"orders.list", "orders.read", "orders.create", "orders.export", "orders.(no operation)"}


def test_a_rule_that_leaves_force_for_shadow_closes():
    plan = plan_of(("{from: shop, to: ledger}", "{from: shop, to: ledger, mode: shadow}"))
    assert said(plan) == [("lost", "shop", "ledger.tcp", None, False)]
    assert not plan.is_wider


def test_a_caller_attribute_counts_only_where_a_condition_reads_it():
    assert plan_of(("team: front", "team: back")).is_same
    base = POLICY.replace(
        "  - {from: shop, to: ledger}",
        "  - {from: any, to: orders, operations: [export], when: \"caller.team == 'back'\"}",
    )
    plan = plan_of(("team: front", "team: back"), base=base)
    assert {line[1] for line in said(plan)} == {"shop"}


# -- paths


def test_a_renamed_operation_is_a_route_and_no_loss():
    edits = [
        ('read: "GET', 'get: "GET'),
        ("[list, read, create]", "[list, get, create]"),
        ("orders.read", "orders.get"),
    ]
    plan = plan_of(*edits)
    assert not plan.changes
    assert [(r.path, r.before, r.after) for r in plan.routes] == [("/orders/1", "read", "get")]
    assert not plan.is_wider
    assert not plan.is_same


def test_a_wider_template_opens_paths_below():
    plan = plan_of(('"GET /orders/{id}"', '"GET /orders/{id...}"'), (" parameter: id,", ""))
    gained = [c for c in plan.gained if c.before is None and c.after == "read"]
    assert gained
    assert all(c.example.path.startswith("/orders/") for c in gained)


def test_a_literal_beside_a_parameter_takes_its_path_away():
    plan = plan_of(("list: GET /orders\n", "list: GET /orders\n      mine: GET /orders/mine\n"))
    assert ("/orders/mine", "read", "mine") in [(r.path, r.before, r.after) for r in plan.routes]
    assert {(c.direction.value, c.before, c.after) for c in plan.changes} == {("lost", "read", "mine")}


def test_a_character_that_becomes_guarded_refuses_its_encoding():
    plan = plan_of(("export: GET /export\n", "export: GET /export\n      me: GET /orders/@me\n"))
    assert any("%40" in c.example.path for c in plan.lost)


def test_a_service_that_turns_into_tcp():
    plan = plan_of(
        ("ledger: {tcp: 5432}", "ledger: {operations: {get: GET /}}"),
        ("to: ledger}", "to: ledger, operations: [get]}"),
    )
    assert [line[:3] for line in said(plan)] == [
        ("gained", "shop", "ledger.get"),
        ("lost", "shop", "ledger.tcp"),
    ]


# -- terms


@pytest.mark.parametrize(
    ("edit", "subject", "what", "weight"),
    [
        (("token: required", "token: operation"), "orders.create", "token", Weight.TIGHTER),
        (("token: required", "token: none"), "orders.create", "token", Weight.LOOSER),
        (("token: required", "token: required, once: true"), "orders.create", "once", Weight.TIGHTER),
        (
            ("token: required", 'token: required, body: \'{"type": "object"}\''),
            "orders.create",
            "body",
            Weight.TIGHTER,
        ),
        (("export: GET /export", "export: {websocket: /export}"), "orders.export", "protocol", Weight.LOOSER),
        (("[{run: true}, {unix: {user: batch}}]", "[{run: true}]"), "batch", "workload", Weight.TIGHTER),
        (("[{run: true}]", "[{run: true}, {unix: {user: eve}}]"), "shop", "workload", Weight.LOOSER),
        (
            ("audience: [everyhop, other]", "audience: everyhop"),
            "https://login.example",
            "issuer",
            Weight.TIGHTER,
        ),
        (
            ("audience: [everyhop, other]", "audience: [everyhop, more]"),
            "https://login.example",
            "issuer",
            Weight.UNSURE,
        ),
        (
            (
                "audience: [everyhop, other]}",
                "audience: [everyhop, other]}, {issuer: https://evil.example, audience: x}",
            ),
            "https://evil.example",
            "issuer",
            Weight.LOOSER,
        ),
    ],
)
def test_what_a_call_must_carry_and_who_is_believed(edit, subject, what, weight):
    plan = plan_of(edit)
    assert [(t.subject, t.what, t.weight) for t in plan.terms] == [(subject, what, weight)]
    assert plan.is_wider is (weight is not Weight.TIGHTER)
    assert not plan.is_same


def test_a_user_who_is_no_longer_asked_for():
    plan = plan_of(("create], user: required", "create], user: optional"))
    assert ("gained", "shop", "orders.list", "without a user", False) in said(plan)
    assert {t.what for t in plan.terms} == {"user"}


# -- the search is bounded, and says so


def test_a_search_that_is_cut_is_told_and_counts_as_wider():
    names = [f"a{n}" for n in range(8)]
    attributes = ", ".join(f"{n}: string" for n in names)
    condition = " && ".join(f"user.{a} != user.{b}" for a, b in itertools.pairwise(names))
    base = POLICY.replace("department: string", f"department: string, {attributes}").replace(
        "operations: [export]}\n", f'operations: [export], user: required, when: "{condition}"}}\n', 1
    )
    base = base.replace("viewer: [orders.list,", "viewer: [orders.export, orders.list,")
    plan = plan_of(("user.a0 != user.a1", "user.a0 == user.a1"), base=base)
    assert plan.unexplored
    assert plan.is_wider
    assert any("NOT EXPLORED COMPLETELY" in line for _, line in render(plan))


def test_a_pattern_is_said_to_be_sampled():
    plan = plan_of(("== 'eu'", ".matches('^e.$')"))
    assert any("sampled" in gap.why for gap in plan.unexplored)
    assert plan.is_wider


# -- examples can be asked about


def test_an_example_is_a_command_whose_facts_come_back():
    plan = plan_of(("< 7", "< 6"))
    snapshot = parse_policy({"p": POLICY.encode()})
    for change, shown in zip(plan.changes, describe(plan)["gained"], strict=True):
        facts = json.dumps(shown["example"]["facts"])
        assert parse_facts(facts, snapshot) == change.example.context
        assert shown["example"]["command"] == command(change.example)
    assert parse_facts("{}", snapshot) == Context()
