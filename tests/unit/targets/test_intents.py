# SPDX-License-Identifier: Apache-2.0
"""A policy as compilers read it: who may pass which door, and what has to be held there."""

import pytest

from everyhop.authz import Engine
from everyhop.policy import parse_policy
from everyhop.policy.targets import OPTIONS
from everyhop.targets.intents import Intents
from everyhop.targets.matrix import MATRIX, cell
from everyhop.targets.model import Feature, Fidelity
from everyhop.targets.view import View

POLICY = """
version: 1
trust_domain: shop.example
attributes: {user: {level: int}}
services:
  a: {operations: {x: GET /}}
  b: {operations: {x: GET /}}
  trap: {canary: true}
  pay:
    operations:
      charge: {route: "POST /v1/payments", token: operation, once: true}
      read: GET /v1/payments/{id}
      files: GET /files/{path...}
      refund: POST /v1/refunds
      big: POST /v1/big
    probes: [GET /healthz]
  db: {tcp: 5432}
allow:
  - {from: a, to: pay, operations: [charge, read]}
  - {from: any, to: pay, operations: [files]}
  - {from: b, to: pay, operations: [refund], user: required, when: user.level > 2}
  - {from: a, to: pay, operations: [refund]}
  - {from: a, to: pay, operations: [refund], user: required}
  - {from: outside, to: pay, operations: [read]}
  - {from: a, to: db}
  - {from: b, to: pay, operations: [big], mode: shadow}
deny:
  - {from: b, to: pay, operations: [files], reason: no}
  - {from: a, to: pay, operations: [read], when: "request.path_params.id == '7'", reason: no}
"""


@pytest.fixture(scope="module")
def intents():
    return Intents(parse_policy({"everyhop.yaml": POLICY.encode()}))


def doors(intents, service):
    return {door.name: door for door in intents.of(service).doors}


def callers(door):
    return {grant.caller: [sorted(one.needs) for one in grant.alternatives] for grant in door.grants}


def test_plain_rules_add_up_and_plain_denials_are_taken_off(intents):
    found = doors(intents, "pay")
    assert callers(found["charge"]) == {"a": [[]]}
    assert set(callers(found["files"])) == {"a", "db", "pay"}
    assert set(callers(found["probes[0]"])) == {"a", "b", "db", "pay"}
    assert callers(found["big"]) == {}
    assert callers(doors(intents, "db")["tcp"]) == {"a": [[]]}


def test_a_canary_has_no_doors_and_calls_nobody(intents):
    assert intents.of("trap").doors == ()
    assert all("trap" not in service.callers for service in intents)


def test_what_facts_decide_is_a_need(intents):
    found = doors(intents, "pay")
    assert callers(found["refund"])["b"] == [["condition", "user"]]
    assert [] in callers(found["refund"])["a"]
    read = {grant.caller: grant for grant in found["read"].grants}
    assert [rule.id for rule in read["a"].denied_if] == ["deny[1]"]
    assert read["outside"].denied_if == ()


def test_features_of_doors(intents):
    found = {name: door.features for name, door in doors(intents, "pay").items()}
    assert {Feature.TOKEN, Feature.TOKEN_OPERATION, Feature.ONCE, Feature.TOKEN_BINDING} <= found["charge"]
    assert Feature.PARAMETER in found["read"]
    assert Feature.REST in found["files"]
    assert Feature.PROBES in found["probes[0]"]
    assert Feature.TCP in doors(intents, "db")["tcp"].features


def test_services_of_a_namespace_are_in_order(intents):
    assert list(intents.by_namespace) == ["default"]
    assert [one.name for one in intents.by_namespace["default"]] == ["a", "b", "db", "pay", "trap"]


def test_who_reaches_whom(intents):
    assert intents.targets_of("a") == ("db", "pay")
    assert intents.targets_of("nobody") == ()


def test_a_door_stays_shut_where_nobody_holds_what_it_needs(intents):
    view = View(intents, "linkerd")
    refund = doors(intents, "pay")["refund"]
    grants = {grant.caller: grant for grant in refund.grants}
    assert view.missing(refund, grants["b"]) == {Feature.USER, Feature.CONDITION}
    assert view.opens(refund, grants["a"])
    assert View(intents, "linkerd", ["sdk"]).opens(refund, grants["b"])
    charge = doors(intents, "pay")["charge"]
    assert Feature.ONCE in view.missing(charge, charge.grants[0])


def test_every_grant_is_what_the_engine_may_allow(intents):
    engine = Engine(intents.snapshot)
    for service in intents:
        for door in service.doors:
            if door.operation is None:
                continue
            path = door.operation.route.template.replace("{id}", "1").replace("{path...}", "f")
            for name in (one for one in intents.names if one != "trap"):  # a canary is nobody
                decision = engine.decide(
                    caller=str(intents.snapshot.services[name].spiffe_id),
                    target=service.name,
                    method=door.operation.route.method,
                    path=path,
                )
                grant = next((one for one in door.grants if one.caller == name), None)
                if decision.is_allowed:
                    assert grant is not None, (door, name)
                if (
                    grant is not None
                    and not grant.denied_if
                    and any(not one.needs for one in grant.alternatives)
                ):
                    assert decision.is_allowed, (door, name)


def test_rows_of_the_matrix_are_of_targets_and_features():
    assert set(MATRIX) <= {*OPTIONS, "sdk", "authorizer"}
    for target in MATRIX:
        for feature in Feature:
            assert cell(target, feature).note
    assert cell("linkerd", Feature.TOKEN).fidelity is Fidelity.REFUSED


def test_an_authorizer_beside_holds_nothing_of_bytes():
    """It is asked for HTTP alone; the proof found a tcp port that stood open although a deny rule had a condition."""
    text = POLICY + "  - {from: a, to: db, when: \"caller.name == 'a'\", reason: no}\n"
    bytes_only = Intents(parse_policy({"everyhop.yaml": text.encode()}))
    door = doors(bytes_only, "db")["tcp"]
    grant = next(one for one in door.grants if one.caller == "a")
    assert View(bytes_only, "istio", ["authorizer"]).missing(door, grant) == {Feature.CONDITIONAL_DENY}
    assert View(bytes_only, "istio", ["authorizer", "sdk"]).opens(door, grant)


@pytest.mark.parametrize("target", ["istio", "ambient", "envoy"])
def test_of_bytes_no_authorizer_is_asked_by_the_target_itself_either(target):
    text = b"""
version: 1
trust_domain: x.example
services: {a: {}, db: {tcp: 5432}}
allow: [{from: a, to: db, when: "now.getHours('UTC') < 7"}]
targets: {istio: {authorizer: everyhop}, ambient: {authorizer: everyhop, waypoint: w}, envoy: {authorizer: "unix:/run/x"}}
"""
    intents = Intents(parse_policy({"everyhop.yaml": text}))
    view, door = View(intents, target), intents.of("db").doors[0]
    (grant,) = door.grants
    assert view.missing(door, grant) == {Feature.CONDITION}
    assert not view.asks(door, grant)
