# SPDX-License-Identifier: Apache-2.0
"""Generated test cases: they can be read back, they pass, and they stand on both sides of what they try."""

from __future__ import annotations

import pytest

from everyhop.authz import Engine, run_tests
from everyhop.authz.boundary_cases import MAX_CASES, boundary_cases
from everyhop.core.decision import Effect
from everyhop.policy import parse_policy

HEAD = """\
version: 1
trust_domain: shop.example
attributes:
  user: {department: string, clearance: int, score: double, tags: strings, since: timestamp}
  service: {team: string}
  resource: {owner: string}
  device: {managed: bool}
  request: {headers: [x-region]}
roles:
  viewer: {grants: [orders.read], groups: [Staff Members]}
services:
  shop: {attributes: {team: front}}
  batch: {attributes: {team: back}}
  orders: {operations: {read: "GET /orders/{id}", files: "PUT /files/{rest...}"}}
  ledger: {tcp: 5432}
"""
CONDITIONS = [
    "user.department == 'sales'",
    "user.department == 'a\\nb' || user.department == 'é\U0001f600\"'",
    "user.clearance >= 3 && user.clearance < 9223372036854775807",
    "user.score > 0.1",
    "has_any(user.tags, ['a', 'b'])",
    "has_role(user.roles, 'viewer')",
    "user.mfa",
    "'mfa' in user.amr && user.mfa",
    "user.acr == 'high'",
    "now - user.auth_time < duration('1h')",
    "user.since < timestamp('2026-01-01T00:00:00Z')",
    "now.getHours('Europe/Paris') < 7 || now.getDayOfWeek('Europe/Paris') == 0",
    "device.managed",
    "resource.owner == user.id",
    "resource.type == 'order' && resource.id == '7'",
    "request.headers['x-region'] == 'eu'",
    "request.query.x == 'a&b=c%'",
    "request.query.size() > 1",
    "request.path_params.id == 'a b/c'",
    "request.path_params.id == user.id",
    "request.path_params.id.startsWith('7')",
    "in_cidr(request.source_ip, '10.0.0.0/8') || in_cidr(request.source_ip, 'fd00::/8')",
    "caller.team == 'back' && target.name == 'orders'",
    "operation == 'read' && request.method == 'GET'",
]


def policy(condition, *, effect="allow", user="user: required, "):
    rule = f"  - {{from: any, to: orders, operations: [read], {user}when: {yaml_text(condition)}}}\n"
    if effect == "allow":
        return f"{HEAD}allow:\n{rule}"
    return f"{HEAD}allow:\n  - {{from: any, to: orders, operations: [read]}}\ndeny:\n{rule}"


def yaml_text(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def read_back(text, cases):
    entries = "".join(f"  - {case.entry()}\n" for case in cases)
    return parse_policy({"p.yaml": f"{text}tests:\n{entries}".encode()})


@pytest.mark.parametrize("effect", ["allow", "deny"])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_what_is_generated_reads_back_and_passes(condition, effect):
    text = policy(condition, effect=effect, user="user: required, " if effect == "allow" else "")
    engine = Engine(parse_policy({"p.yaml": text.encode()}))
    cases = boundary_cases(engine)
    assert cases
    snapshot = read_back(text, cases)
    assert [r.problem() for r in run_tests(snapshot) if not r.is_passed] == []
    assert [t.context for t in snapshot.tests] == [c.context for c in cases]
    assert len({case.entry() for case in cases}) == len(cases) <= MAX_CASES
    effects = {case.decision.effect for case in cases}
    sides = {Effect.ALLOW, Effect.DENY}
    can_be_both = not condition.startswith(("operation ==",)) or effect == "allow"
    assert effects == sides or not can_be_both or condition in {CONDITIONS[1], CONDITIONS[18]}


def test_the_user_is_varied_too():
    engine = Engine(parse_policy({"p.yaml": policy("true", user="user: required, ").encode()}))
    assert [(c.decision.effect, c.decision.reason) for c in boundary_cases(engine)] == [
        ("allow", "allowed"),
        ("deny", "user-required"),
        ("deny", "user-not-permitted"),
    ]


def test_a_deny_rule_does_not_hide_the_other_side():
    text = policy("request.headers['x-region'] == 'eu'", user="") + (
        "deny:\n  - {from: any, to: orders, operations: [read], when: \"now.getHours('UTC') < 7\"}\n"
    )
    cases = boundary_cases(Engine(parse_policy({"p.yaml": text.encode()})))
    own = [c for c in cases if c.rule.id == "allow[0]"]
    assert {c.decision.reason for c in own} >= {"allowed", "condition-false"}


def test_a_tcp_rule():
    text = HEAD + "allow:\n  - {from: shop, to: ledger, when: \"in_cidr(request.source_ip, '10.0.0.0/8')\"}\n"
    cases = boundary_cases(Engine(parse_policy({"p.yaml": text.encode()})))
    assert {c.decision.effect for c in cases} == {Effect.ALLOW, Effect.DENY}
    assert all(r.is_passed for r in run_tests(read_back(text, cases)))


def test_plain_rules_need_none():
    text = HEAD + "allow:\n  - {from: shop, to: orders, operations: all}\n"
    assert boundary_cases(Engine(parse_policy({"p.yaml": text.encode()}))) == []
