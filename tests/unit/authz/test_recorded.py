# SPDX-License-Identifier: Apache-2.0
"""Recorded decisions: what is told of them, and what is not claimed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from everyhop.authz import Context, Engine
from everyhop.authz.recorded import Recorded, explain_recorded
from everyhop.policy import parse_policy

POLICY = b"""\
version: 1
trust_domain: shop.example
attributes: {user: {department: string}}
roles:
  viewer: [orders.list]
  clerk: [orders.create]
services:
  shop: {}
  batch: {}
  orders:
    operations: {list: GET /orders, create: POST /orders, tag: PUT /tags, free: GET /free}
  ledger: {tcp: 5432}
allow:
  - {from: shop, to: orders, operations: [list, create], user: required}
  - {from: shop, to: orders, operations: [tag], user: required, when: "user.department == 'sales'"}
  - {from: shop, to: orders, operations: [tag], user: required, when: "user.mfa"}
  - {from: batch, to: orders, operations: [list], when: "now.getHours('UTC') > 6"}
  - {from: [shop, outside], to: orders, operations: [free]}
deny:
  - {from: any, to: orders, operations: [create], when: "now.getHours('UTC') < 7", id: night, reason: not at night}
"""
ENGINE = Engine(parse_policy({"p.yaml": POLICY}))
SHOP, BATCH = (f"spiffe://shop.example/service/{name}" for name in ("shop", "batch"))
SAW = "false user.department == 'sales'  (user.department = 'it')"


def explain(**fields):
    base = {"caller": SHOP, "target": "orders", "effect": "deny", "method": "GET", "path": "/orders"}
    return explain_recorded(ENGINE, Recorded(**{**base, **fields}))


def lists(**fields):
    explanation, is_derived = explain(operation="list", **fields)
    assert not is_derived
    return explanation


def test_an_answer_that_depends_on_no_fact_is_derived_again():
    explanation, is_derived = explain(reason="no-rule", operation="free", caller=BATCH, path="/free")
    assert is_derived
    assert explanation.suggestion is not None
    explanation, is_derived = explain(
        effect="allow", reason="allowed", rule="allow[4]", operation="free", path="/free"
    )
    assert (is_derived, explanation.rule.span.line) == (True, 18)
    assert explain(reason="ambiguous-path", path="/a//b")[1]


def test_roles_that_were_missing_are_named_and_those_held_are_not_made_up():
    found = lists(reason="user-not-permitted", user="vera")
    assert found.summary == "no role of the user granted orders.list"
    assert found.nearest.id == "allow[0]"
    assert found.suggestion is None
    assert "the call was made for the user 'vera'" in found.notes
    assert "roles that may: viewer" in found.notes
    assert any("which roles they had is not recorded" in note for note in found.notes)


def test_a_missing_user():
    found = lists(reason="user-required")
    assert "only for a user, and the call carried none" in found.summary
    assert found.to_dict()["reason"] == "user-required"


def test_what_the_clauses_saw_is_told_and_not_evaluated_again():
    found, is_derived = explain(
        reason="condition-false", operation="tag", method="PUT", path="/tags", facts=f"{SAW}; error user.mfa"
    )
    assert not is_derived
    assert found.clauses == ()
    assert f"seen then: {SAW}" in found.notes
    assert "seen then: error user.mfa" in found.notes
    assert found.nearest is None
    assert any(n.startswith("rules that could have allowed it: allow[1] at p.yaml:15") for n in found.notes)


def test_the_rule_that_decided_is_cited_with_its_place():
    found, _ = explain(
        reason="denied-by-rule",
        rule="night",
        operation="create",
        method="POST",
        facts="true now.getHours('UTC') < 7",
    )
    assert (found.rule.id, found.rule.span.line, found.rule.reason) == ("night", 20, "not at night")
    found, _ = explain(reason="condition-error", rule="night", operation="create", method="POST")
    assert "a condition of night could not be evaluated" in found.summary
    found, _ = explain(
        effect="allow", reason="allowed", rule="allow[1]", operation="tag", method="PUT", path="/tags", user="u",
    )  # fmt: skip
    assert (found.decision.is_allowed, found.rule.id) == (True, "allow[1]")


def test_a_rule_that_is_not_in_the_policy_is_not_cited():
    found, is_derived = explain(reason="denied-by-rule", rule="deny[9]", operation="list")
    assert (found.rule, is_derived) == (None, False)


def test_the_policy_in_shadow_is_told():
    found = lists(
        effect="allow",
        reason="allowed",
        rule="allow[0]",
        would="deny",
        would_reason="denied-by-rule",
        would_rule="x",
    )
    assert "in shadow: what was only watched would deny it by x [denied-by-rule]" in found.notes
    assert found.to_dict()["would"]["decision"] == "deny"


def test_a_refused_credential_says_nothing_of_facts_that_nobody_looked_at():
    assert explain(reason="TOKEN_MISSING", operation="create", method="POST") == (None, True)
    explanation, _ = explain(reason="TOKEN_MISSING", operation="free", path="/free")
    assert explanation.decision.is_allowed


@pytest.mark.parametrize("reason", ["no-rule", "allowed", "shadowed", "user-required"])
def test_no_record_breaks_it(reason):
    for effect in ("allow", "deny"):
        for operation in (None, "tcp", "list", "gone"):
            for caller in (SHOP, "outside", "spiffe://x/y", "no id"):
                found, _ = explain(caller=caller, reason=reason, effect=effect, operation=operation)
                assert found.render()
    assert explain(target="ledger", method=None, path=None, operation="tcp", reason="no-rule")[1]


def test_what_facts_would_have_decided_in_shadow_is_not_evaluated_again():
    text = POLICY.replace(b"deny:", b"shadow: [{from: batch, to: any}]\ndeny:")
    engine = Engine(parse_policy({"p.yaml": text}))
    seen = Recorded(
        caller=BATCH, target="orders", effect="allow", reason="shadowed", operation="list", method="GET",
        path="/orders", would="deny", would_reason="condition-false", facts="false now.getHours('UTC') > 6",
    )  # fmt: skip
    found, is_derived = explain_recorded(engine, seen)
    assert not is_derived
    assert found.decision.would.reason == "condition-false"
    assert "seen then: false now.getHours('UTC') > 6" in found.notes


def test_a_shadowed_call_is_explained_with_what_its_clauses_saw():
    text = POLICY.replace(b"deny:", b"shadow: [{from: batch, to: any}]\ndeny:")
    engine = Engine(parse_policy({"p.yaml": text}))
    context = Context(now=datetime(2026, 5, 1, 3, tzinfo=UTC))
    found = engine.explain(caller=BATCH, target="orders", method="GET", path="/orders", context=context)
    assert found.decision.reason == "shadowed"
    assert found.nearest.id == "allow[3]"
    assert found.facts.startswith("false now.getHours('UTC') > 6")
