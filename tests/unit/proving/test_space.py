# SPDX-License-Identifier: Apache-2.0
"""What is asked: everybody at every door, each thing once, and no more than grows with the policy."""

import json
from collections import Counter

import pytest
from hypothesis import given
from tests.strategies import to_files
from tests.support.mini_mesh import World
from tests.support.target_policies import target_policies

from everyhop.authz import Engine
from everyhop.evaluators.model import Wire
from everyhop.policy import parse_policy
from everyhop.proving.model import CallerKind, Says, TokenState
from everyhop.proving.oracle import Oracle
from everyhop.proving.space import Space
from everyhop.targets.intents import Intents

POLICY = """
version: 1
trust_domain: shop.example
services:
  checkout: {operations: {list: GET /}}
  other: {operations: {x: GET /}}
  trap: {canary: true}
  payment-processor:
    operations:
      charge: {route: POST /v1/payments, token: operation, once: true}
      read: {route: "GET /v1/payments/{id}", token: required}
      watch: {grpc: pay.v1.Payments/Watch}
    probes: [GET /healthz]
  db: {tcp: 5432}
allow:
  - {from: checkout, to: payment-processor, operations: all}
  - {from: outside, to: payment-processor, operations: [read]}
  - {from: payment-processor, to: db}
targets:
  probe_networks: [192.0.2.0/24]
  gateway: {namespace: edge, service_account: gateway}
  egress:
    stripe: {host: api.stripe.com, from: [checkout]}
"""


@pytest.fixture(scope="module")
def world():
    return World(POLICY)


@pytest.fixture(scope="module")
def asks(world):
    return world.asks()


def at(asks, service, door):
    return [ask for ask in asks if (ask.service, ask.door) == (service, door)]


def test_every_declared_caller_asks_at_every_door(world, asks):
    for service in world.intents:
        for door in service.doors:
            plain = {ask.caller.name for ask in at(asks, service.name, door.name) if not ask.variation}
            assert set(world.snapshot.services) <= plain, door


def test_every_kind_of_caller_asks(asks):
    assert {ask.caller.kind for ask in asks} == set(CallerKind)


def test_every_state_of_a_token_is_tried(asks):
    assert {ask.token for ask in at(asks, "payment-processor", "charge")} == set(TokenState)
    assert {ask.token for ask in at(asks, "db", "tcp")} == {TokenState.NONE}
    irrelevant = {ask.token for ask in at(asks, "payment-processor", "watch")}
    assert {TokenState.GOOD, TokenState.FORGED, TokenState.NONE} <= irrelevant


def test_ports_methods_and_wires_vary(asks):
    found = at(asks, "payment-processor", "watch")
    assert {5432} != {ask.request.port for ask in found} >= {8080, 9}
    assert {"POST", "post", "HEAD", "GET", "EVIL"} <= {ask.request.method for ask in found}
    assert {ask.request.wire for ask in found} == {Wire.GRPC, Wire.TCP}


def test_one_thing_varies_at_a_time(world, asks):
    """A variation differs from a plain call of the same caller in one of path, method, port, wire, token, body."""
    for ask in at(asks, "payment-processor", "charge"):
        request = ask.request
        differs = [
            request.wire is Wire.TCP,
            request.method != "POST" and request.wire is not Wire.TCP,
            request.path != "/v1/payments" and request.wire is not Wire.TCP,
            request.port != 8080,
            ask.token is not TokenState.GOOD and request.wire is not Wire.TCP,
        ]
        assert sum(differs) <= 1, ask
        assert bool(ask.variation) is any(differs), ask


def test_both_answers_are_met_at_every_door_that_somebody_may_pass(world, asks):
    for service in world.intents:
        for door in service.doors:
            says = {world.oracle.answer(ask).says for ask in at(asks, service.name, door.name)}
            assert Says.DENY in says
            assert (Says.ALLOW in says) is bool(door.grants), door


def test_no_request_is_asked_twice(asks):
    seen = [
        json.dumps([repr(a.request), a.caller.name, a.token.value, a.is_body_valid, repr(a.context)])
        for a in asks
    ]
    doubled = [one for one, count in Counter(seen).items() if count > 1]
    assert len(doubled) <= len(seen) // 20, sorted(doubled)[:5]


def chain(count):
    services = {f"s{n}": {"operations": {"x": "GET /x", "y": "POST /y/{id}"}} for n in range(count)}
    allow = [{"from": f"s{n}", "to": f"s{(n + 1) % count}", "operations": ["x", "y"]} for n in range(count)]
    return {"version": 1, "trust_domain": "shop.example", "services": services, "allow": allow}


def test_the_number_grows_as_the_policy():
    counts = {}
    for size in (60, 120):  # both too large to ask everybody everything
        snapshot = parse_policy(to_files(chain(size)))
        counts[size] = sum(1 for _ in Space(Engine(snapshot), Intents(snapshot)))
    assert counts[120] / counts[60] == pytest.approx(2, rel=0.02)
    assert counts[60] / 120 < 120  # requests a door


def test_an_unknown_caller_that_manifests_name_is_asked():
    snapshot = parse_policy(to_files(chain(60)))
    intents = Intents(snapshot)
    plain = {a.caller.name for a in Space(Engine(snapshot), intents) if a.service == "s7"}
    named = Space(Engine(snapshot), intents, {"s7": frozenset({"s42"})})
    assert {a.caller.name for a in named if a.service == "s7"} - plain == {"s42"}


@given(target_policies())
def test_any_policy_has_a_space_and_an_answer(snapshot):
    engine, intents = Engine(snapshot), Intents(snapshot)
    oracle = Oracle(engine, intents)
    for ask in Space(engine, intents):
        answer = oracle.answer(ask)
        if ask.caller.kind in {CallerKind.STRANGER, CallerKind.NOBODY, CallerKind.FOREIGN, CallerKind.ALIKE}:
            assert answer.says is Says.DENY, ask
