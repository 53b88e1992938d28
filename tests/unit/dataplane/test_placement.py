# SPDX-License-Identifier: Apache-2.0
"""Each clause names who decides it, and the reason is the one that the enforcing code itself gave."""

import json

import pytest

from everyhop.cli.__main__ import main
from everyhop.dataplane import placing
from everyhop.dataplane.placement import describe, render
from everyhop.policy import parse_policy

POLICY = """\
version: 1
trust_domain: shop.example
attributes:
  request: {headers: [x-region]}
  device: {managed: bool}
  resource: {owner: string}
services:
  storefront: {}
  batch: {}
  orders: {operations: {list: GET /orders, read: "GET /orders/{id}", drop: "DELETE /orders/{id}"}}
  ledger: {tcp: 5432}
allow:
  - {from: storefront, to: orders, operations: [list], when: "request.headers['x-region'] == 'eu' && !(now.getHours('UTC') < 8)"}
  - {from: storefront, to: orders, operations: [read], when: "request.query['a'] == 'b' || device.managed"}
  - {from: batch, to: orders, operations: [list], user: required, when: "user.mfa"}
  - {from: batch, to: orders, operations: [drop], when: "request.path_params.id == resource.owner"}
  - {from: batch, to: orders, operations: [read]}
  - {from: [storefront, batch], to: ledger, when: "in_cidr(request.source_ip, '10.0.0.0/8')"}
  - {from: batch, to: ledger, when: "now.getHours('Europe/Paris') < 8"}
deny:
  - {from: batch, to: orders, operations: [read], when: "now.getDayOfWeek('Europe/Paris') == 0"}
"""


def shown(text=POLICY):
    snapshot = parse_policy({"p.yaml": text.encode()})
    return {rule["rule"]: rule for rule in describe(snapshot)["rules"]}


def clauses(rule):
    return [(clause["clause"], clause["where"], clause["why"]) for clause in rule["clauses"]]


def test_a_rule_that_envoy_decides_alone():
    rule = shown()["allow[0]"]
    assert (rule["cases"], rule["why"]) == ({"envoy": 1}, [])
    assert clauses(rule) == [
        ("from storefront to orders: list", "envoy", []),
        ("request.headers['x-region'] == 'eu'", "envoy", []),
        ("now.getHours('UTC') < 8", "envoy", []),
    ]


def test_what_only_the_agent_or_the_application_knows():
    rule = shown()["allow[1]"]
    assert rule["cases"] == {"agent": 1}
    assert clauses(rule)[1:] == [
        ("request.query['a'] == 'b'", "agent", ["Envoy has no request.query"]),
        ("device.managed", "application", ["no proxy knows the device"]),
    ]
    assert clauses(shown()["allow[3]"])[1][1:] == ("application", ["no proxy knows the resource"])
    known = POLICY + "directory: {resources: {order: {service: orders, parameter: id, items: {}}}}\n"
    assert clauses(shown(known)["allow[3]"])[1][1:] == ("agent", ["Envoy has no request.path_params"])


def test_users_are_the_agents():
    rule = shown()["allow[2]"]
    assert rule["why"] == ["a rule is about users, whom the agent verifies"]
    assert clauses(rule)[1:] == [
        ("user: required", "agent", ["the agent verifies users"]),
        ("user.mfa", "agent", ["the agent verifies users"]),
    ]


def test_one_rule_for_the_agent_takes_the_others_of_its_case_along():
    rules = shown()
    assert rules["allow[4]"]["cases"] == {"agent": 1}
    assert rules["allow[4]"]["why"] == ["another rule for the same callers is not Envoy's"]
    assert rules["deny[0]"]["cases"] == {"agent": 1}


def test_a_connection_is_never_asked_about():
    rules = shown()
    assert rules["allow[5]"]["cases"] == {"envoy": 1, "refused": 1}
    assert rules["allow[6]"]["cases"] == {"refused": 1}
    assert clauses(rules["allow[6]"])[1][1] == "refused"


def test_watched_rules_and_crowded_doors_say_why(monkeypatch):
    watched = shown(POLICY + "mode: shadow\n")["allow[0]"]
    assert watched["why"] == ["what is only watched is decided twice, by the agent"]
    monkeypatch.setattr(placing, "MAX_EXPRESSIONS", 1)
    crowded = shown()["allow[0]"]
    assert (crowded["cases"], crowded["why"]) == (
        {"agent": 1},
        ["there are too many conditions at this door"],
    )


def test_the_text_and_the_command(tmp_path, capsys):
    path = tmp_path / "p.yaml"
    path.write_text(POLICY)
    snapshot = parse_policy({"p.yaml": POLICY.encode()})
    text = render(describe(snapshot))
    assert "allow[1]  allow  p.yaml:14:5  decided by agent (1)" in text
    assert "  device.managed                   application  no proxy knows the device" in text
    assert "decided by envoy\n" in render(describe(parse_policy({"p.yaml": PLAIN.encode()})))
    assert main(["policy", "show", str(path), "--placement", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["rules"][0]["cases"] == {"envoy": 1}
    assert main(["policy", "show", str(path), "--placement"]) == 0
    assert "as a whole" in capsys.readouterr().out


PLAIN = """\
version: 1
trust_domain: shop.example
services: {storefront: {}, orders: {operations: {list: GET /orders}}}
allow: [{from: storefront, to: orders, operations: [list]}]
"""


@pytest.mark.parametrize("text", [PLAIN])
def test_a_policy_without_conditions_is_envoys(text):
    (rule,) = shown(text).values()
    assert (rule["cases"], clauses(rule)) == ({}, [("from storefront to orders: list", "envoy", [])])
