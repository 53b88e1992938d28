# SPDX-License-Identifier: Apache-2.0
"""The order in which sidecars take a policy over: callers first when more is asked for, callees first when less is."""

from __future__ import annotations

import pytest

from everyhop.control.policy_view import PolicyView
from everyhop.control.rollout import WAVE_SECONDS, Rollout, waves_of
from everyhop.policy import parse_policy

POLICY = """
version: 1
trust_domain: shop.example
services:
  shop: {{operations: {{home: GET /}}}}
  orders: {{operations: {{create: {orders}, list: GET /orders}}}}
  payments: {{operations: {{charge: {payments}}}}}
  loner: {{operations: {{x: {{route: GET /x, token: required}}}}}}
allow:
  - {{from: shop, to: orders, operations: all}}
  - {{from: orders, to: payments, operations: all}}
  - {{from: payments, to: shop, operations: all}}
"""
ALL = {"shop", "orders", "payments", "loner"}
NONE, SERVICE = "POST /c", "{route: POST /c, token: required}"
OPERATION, ONCE = "{route: POST /c, token: operation}", "{route: POST /c, token: required, once: true}"


def view(orders: str = NONE, payments: str = NONE) -> PolicyView:
    return PolicyView(parse_policy({"p.yaml": POLICY.format(orders=orders, payments=payments).encode()}))


def order(before: PolicyView, after: PolicyView, services=ALL) -> list[set[str]]:
    return [set(wave) for wave in waves_of(before, after, services)]


@pytest.mark.parametrize(
    ("before", "after"),
    [(NONE, SERVICE), (NONE, OPERATION), (SERVICE, OPERATION), (SERVICE, ONCE), (NONE, ONCE)],
)
def test_more_is_asked_for_once_callers_bring_it(before, after):
    assert order(view(before), view(after)) == [{"shop", "payments", "loner"}, {"orders"}]
    assert order(view(after), view(before)) == [{"orders", "payments", "loner"}, {"shop"}]


@pytest.mark.parametrize("same", [NONE, SERVICE, OPERATION, ONCE])
def test_what_does_not_change_needs_no_order(same):
    assert order(view(same), view(same)) == [ALL]
    assert order(view(same), view(same), set()) == []


def test_a_chain_goes_from_its_beginning_to_its_end():
    assert order(view(), view(SERVICE, SERVICE)) == [{"shop", "loner"}, {"orders"}, {"payments"}]
    assert order(view(SERVICE, SERVICE), view()) == [{"payments", "loner"}, {"orders"}, {"shop"}]


def test_only_what_runs_here_is_waited_for():
    assert order(view(), view(SERVICE), {"orders", "payments"}) == [{"orders", "payments"}]


def test_services_that_would_wait_for_each_other_go_together():
    text = POLICY.replace("shop: {{operations: {{home: GET /}}}}", "shop: {{operations: {{home: {orders}}}}}")
    before, after = (
        PolicyView(parse_policy({"p.yaml": text.format(orders=token, payments=token).encode()}))
        for token in (NONE, SERVICE)
    )
    assert order(before, after) == [{"loner"}, {"shop", "orders", "payments"}]


def test_a_wave_begins_when_the_one_before_is_done_or_late():
    rollout = Rollout([frozenset("a"), frozenset("b"), frozenset("c")], 0.0)
    assert rollout.held == {"b", "c"}
    assert not rollout.advance(lambda name: False, 0.1)
    assert rollout.seconds_left(0.5) == WAVE_SECONDS - 0.5
    assert rollout.advance(lambda name: name == "a", 0.2)
    assert rollout.held == {"c"}
    assert not rollout.advance(lambda name: name == "a", 0.3)
    assert rollout.advance(lambda name: False, 0.2 + WAVE_SECONDS)
    assert rollout.held == frozenset()
    assert rollout.seconds_left(9.0) is None
    assert not rollout.advance(lambda name: True, 99.0)
