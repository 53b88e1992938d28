# SPDX-License-Identifier: Apache-2.0
"""What facts can and cannot do to a decision, over generated policies with conditions, roles and shadow."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given, strategies as st

from everyhop.authz import Context, Engine, User
from everyhop.core.decision import Effect, Reason
from everyhop.policy import decode_snapshot, encode_snapshot, parse_policy

SERVICES = ("a", "b", "c")
OPERATIONS = {"read": "GET /things/{id}", "list": "GET /things", "put": "PUT /things/{id}"}
PLAIN = (
    "now.getHours('UTC') < 12",
    "now > timestamp('2026-01-01T00:00:00Z')",
    "request.headers['x-a'] == '1'",
    "'x-a' in request.headers",
    "!('x-a' in request.headers)",
    "request.query['q'] == 'z'",
    "in_cidr(request.source_ip, '10.0.0.0/8')",
    "caller.name == 'a' || now.getHours('UTC') < 3",
    "device.managed",
    "!device.managed",
    "resource.owner == 'u'",
    "target.team == 'x' && request.headers['x-a'] != '2'",
)
ABOUT_USERS = (
    "user.mfa",
    "!user.mfa",
    "user.id == 'u'",
    "has_role(user.roles, 'r2')",
    "user.level > 2 || user.mfa",
    "user.unit != 'q'",
)
MOMENTS = (datetime(2026, 5, 1, 2, tzinfo=UTC), datetime(2025, 5, 1, 20, tzinfo=UTC))


@st.composite
def rules(draw, *, is_deny):
    rule = {
        "from": draw(st.sampled_from((*SERVICES, "any"))),
        "to": draw(st.sampled_from(SERVICES)),
        "operations": draw(st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, unique=True)),
    }
    if not is_deny:
        rule["user"] = draw(st.sampled_from(("none", "optional", "required")))
    if draw(st.booleans()):
        pool = PLAIN if rule.get("user") == "none" else PLAIN + ABOUT_USERS
        rule["when"] = draw(st.sampled_from(pool))
    if draw(st.integers(0, 5)) == 5:
        rule["mode"] = "shadow"
    return rule


@st.composite
def documents(draw):
    document = {
        "version": 1,
        "trust_domain": "x.example",
        "attributes": {
            "user": {"level": "int", "unit": {"type": "string", "default": "q"}},
            "device": {"managed": "bool"},
            "resource": {"owner": "string"},
            "service": {"team": "string"},
            "request": {"headers": ["x-a"]},
        },
        "services": {
            name: {"operations": OPERATIONS, "attributes": {"team": "x"} if name == "a" else {}}
            for name in SERVICES
        },
    }
    for key in ("allow", "deny"):
        found = draw(st.lists(rules(is_deny=key == "deny"), max_size=5 if key == "allow" else 2))
        if found:
            document[key] = found
    if draw(st.booleans()):
        grants = [f"{service}.{operation}" for service in SERVICES for operation in sorted(OPERATIONS)]
        document["roles"] = {
            name: draw(st.lists(st.sampled_from(grants), min_size=1, max_size=4, unique=True))
            for name in ("r1", "r2")
        }
    if draw(st.integers(0, 3)) == 3:
        document["shadow"] = [
            {"from": draw(st.sampled_from(SERVICES)), "to": draw(st.sampled_from(SERVICES))}
        ]
    return document


def maybe(strategy):
    return st.none() | strategy


@st.composite
def contexts(draw):
    user = None
    if draw(st.booleans()):
        user = User(
            id=draw(st.sampled_from(("u", "v"))),
            roles=tuple(draw(st.lists(st.sampled_from(("r1", "r2", "r9")), unique=True))),
            amr=draw(st.sampled_from((None, (), ("mfa",)))),
            attributes=draw(st.sampled_from(({}, {"level": 3}, {"level": "3"}, {"unit": "w"}))),
        )
    return Context(
        now=draw(maybe(st.sampled_from(MOMENTS))),
        user=user,
        device=draw(st.sampled_from(({}, {"managed": True}, {"managed": False}))),
        headers=draw(st.sampled_from(({}, {"x-a": ("1",)}, {"x-a": ("2",)}, {"x-a": ("1", "1")}))),
        source_ip=draw(st.sampled_from((None, "10.0.0.1", "192.0.2.1", "x"))),
    )


def engine_of(document):
    return Engine(parse_policy({"p.yaml": json.dumps(document).encode()}))


CALLS = [("GET", "/things/7"), ("GET", "/things"), ("PUT", "/things/7?q=z"), ("GET", "/things?q=z&q=z")]


def decisions(engine, context):
    return {
        (caller, target, call): engine.decide(
            caller=f"spiffe://x.example/service/{caller}",
            target=target,
            method=call[0],
            path=call[1],
            context=context,
        )
        for caller in SERVICES
        for target in SERVICES
        for call in CALLS
    }


@given(documents(), contexts(), rules(is_deny=False))
def test_an_allow_rule_opens_its_own_edges_and_closes_nothing(document, context, rule):
    before = decisions(engine_of(document), context)
    changed = {**document, "allow": [*document.get("allow", []), rule]}
    after = decisions(engine_of(changed), context)
    for (caller, target, call), decision in after.items():
        was = before[caller, target, call]
        if rule["to"] != target or rule["from"] not in {caller, "any"}:
            assert (decision.effect, decision.rule) == (was.effect, was.rule)
        assert not (was.is_allowed and not decision.is_allowed)
        if decision.operation is not None and decision.operation not in rule["operations"]:
            assert decision.effect is was.effect


@given(documents(), contexts(), rules(is_deny=True))
def test_a_deny_rule_opens_nothing(document, context, rule):
    before = decisions(engine_of(document), context)
    after = decisions(engine_of({**document, "deny": [*document.get("deny", []), rule]}), context)
    assert all(before[key].is_allowed or not decision.is_allowed for key, decision in after.items())


@given(documents(), contexts(), st.sampled_from(("now", "user", "device", "source_ip", "resource")))
def test_what_is_forgotten_opens_nothing(document, context, fact):
    """Facts that are unknown, not absent: a header that was not sent is a fact."""
    engine = engine_of(document)
    unknown = replace(context, **{fact: {} if fact == "device" else None})
    before, after = decisions(engine, context), decisions(engine, unknown)
    for key, decision in after.items():
        if fact == "user" and before[key].reason is Reason.USER_NOT_PERMITTED:
            continue  # a caller that may call without a user may do so without one who is not permitted
        assert before[key].is_allowed or not decision.is_allowed, (key, before[key], decision)


@given(documents(), contexts())
def test_a_rule_in_shadow_enforces_nothing_and_would_do_what_it_says(document, context):
    enforced = decisions(engine_of(document), context)
    rules_in_force = {
        key: kept
        for key in ("allow", "deny")
        if (kept := [rule for rule in document.get(key, []) if rule.get("mode") != "shadow"])
    }
    without = {k: v for k, v in document.items() if k not in {"allow", "deny"}} | rules_in_force
    assert {k: d.effect for k, d in decisions(engine_of(without), context).items()} == {
        k: d.effect for k, d in enforced.items()
    }
    everything = {
        key: [{k: v for k, v in rule.items() if k != "mode"} for rule in document[key]]
        for key in ("allow", "deny")
        if key in document
    }
    in_force = {k: v for k, v in document.items() if k != "shadow"} | everything
    for key, decision in decisions(engine_of(in_force), context).items():
        would = enforced[key].would
        assert decision.effect is (enforced[key].effect if would is None else would.effect)


@given(documents(), contexts())
def test_a_stored_policy_decides_alike(document, context):
    engine = engine_of(document)
    stored = Engine(decode_snapshot(encode_snapshot(engine.snapshot)))
    assert decisions(stored, context) == decisions(engine, context)


@given(documents(), contexts())
def test_every_decision_can_be_explained(document, context):
    engine = engine_of(document)
    for (caller, target, call), decision in decisions(engine, context).items():
        explained = engine.explain(
            caller=f"spiffe://x.example/service/{caller}",
            target=target,
            method=call[0],
            path=call[1],
            context=context,
        )
        assert explained.decision == decision
        assert explained.summary
        assert json.loads(json.dumps(explained.to_dict()))["decision"] == decision.effect.value
        if decision.reason in {Reason.CONDITION_FALSE, Reason.CONDITION_ERROR}:
            assert any(clause.truth.value != "true" for clause in explained.clauses)
        if decision.effect is Effect.ALLOW and decision.rule is not None and explained.clauses:
            assert all(clause.error is None or "||" in explained.rule.text for clause in explained.clauses)
