# SPDX-License-Identifier: Apache-2.0
"""ClusterNetworkPolicies: never an Accept, 25 rules and peers at most, in an order that holds over several objects."""

import pytest
from tests.support.kube import codes, compiled, objects

SERVICES = """
version: 1
trust_domain: shop.example
services:
  web: {operations: {home: GET /}}
  pay: {operations: {charge: POST /v1/payments}}
  db: {tcp: 5432}
allow:
  - {from: web, to: pay, operations: [charge]}
  - {from: pay, to: db}
"""
TARGETS = """
targets:
  namespace: shop
  egress: {x: {host: api.example, from: [pay]}}
  clusternetworkpolicy: {with: [istio], priority: 40}
"""
POLICY = SERVICES + TARGETS


def policies(policy=POLICY):
    return compiled(policy, "clusternetworkpolicy")


def many(callers):
    """A service with callers and a caller of as many services on ports of their own."""
    names = [f"s{number}" for number in range(callers)]
    services = "".join(f"  {name}: {{tcp: {2000 + number}}}\n" for number, name in enumerate(names))
    return (
        f"version: 1\ntrust_domain: shop.example\nservices:\n{services}  hub: {{tcp: 9000}}\n"
        f"allow:\n  - {{from: [{', '.join(names)}], to: hub}}\n  - {{from: hub, to: [{', '.join(names)}]}}\n"
        "targets: {clusternetworkpolicy: {with: [istio], priority: 40}}\n"
    )


def test_alone_it_opens_nothing_and_fails():
    found = policies(SERVICES + "targets: {namespace: shop}\n")
    assert {"mtls", "route", "tcp"} <= set(codes(found, errors=True))
    assert set(objects(found)) == {"deny-default"}


def test_more_priorities_than_there_are_is_refused():
    found = policies(many(30).replace("priority: 40", "priority: 999"))
    assert codes(found, errors=True) == ["priority"]
    assert found.files == ()
    assert policies(many(30).replace("priority: 40", "priority: 998")).files


def test_behind_a_waypoint_it_refuses():
    text = POLICY.replace("with: [istio]", "with: [ambient]") + "  ambient: {waypoint: way}\n"
    assert "waypoint" in codes(policies(text), errors=True)


def test_nothing_is_accepted_so_namespaces_may_still_refuse():
    actions = {
        rule["action"]
        for one in objects(policies()).values()
        for rule in (*one["spec"].get("ingress", ()), *one["spec"].get("egress", ()))
    }
    assert actions == {"Pass", "Deny"}


@pytest.mark.parametrize("callers", [2, 25, 26, 60])
def test_25_rules_and_25_peers_at_most_and_none_is_lost(callers):
    found = objects(policies(many(callers)))
    hubs = [one["spec"] for one in found.values() if _subject(one) == "hub"]
    assert [one["priority"] for one in hubs] == list(range(40, 40 + len(hubs)))
    assert found["deny-default"]["spec"]["priority"] == 40 + len(hubs)
    peers = [peer for spec in hubs for rule in spec.get("ingress", ()) for peer in rule["from"]]
    ports = [
        port["tcp"]["destinationPort"]["number"]
        for spec in hubs
        for rule in spec.get("egress", ())
        for port in rule["protocols"]
        if "tcp" in port
    ]
    assert {one["pods"]["podSelector"]["matchLabels"]["app"] for one in peers} == {
        f"s{n}" for n in range(callers)
    }
    assert set(ports) >= {2000 + n for n in range(callers)}
    for one in found.values():
        for rule in (*one["spec"].get("ingress", ()), *one["spec"].get("egress", ())):
            assert len(rule.get("from", rule.get("to"))) in range(1, 26)
        assert len(one["spec"].get("ingress", ())) <= 25
        assert len(one["spec"].get("egress", ())) <= 25


def _subject(one):
    return one["spec"]["subject"].get("pods", {}).get("podSelector", {}).get("matchLabels", {}).get("app")


def test_pods_are_denied_before_networks_are_passed_because_networks_mean_pods_too():
    egress = next(one for one in objects(policies()).values() if _subject(one) == "pay")["spec"]["egress"]
    names = [one["name"] for one in egress]
    assert names.index("deny-pods") < names.index("hosts")
    assert names[-1] == "hosts"
    assert egress[-1]["protocols"] == [{"tcp": {"destinationPort": {"number": 443}}}]
    assert egress[names.index("deny-pods")]["to"] == [{"namespaces": {}}]


def test_the_default_deny_is_about_our_namespaces_in_both_directions():
    spec = objects(policies())["deny-default"]["spec"]
    (expression,) = spec["subject"]["namespaces"]["matchExpressions"]
    assert expression == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["shop"]}
    assert [one["action"] for one in (*spec["ingress"], *spec["egress"])] == ["Deny"] * 3


def test_what_the_definition_asks_for():
    for one in objects(policies()).values():
        spec = one["spec"]
        assert one["apiVersion"] == "policy.networking.k8s.io/v1alpha2"
        assert "namespace" not in one["metadata"]
        assert set(spec) <= {"tier", "priority", "subject", "ingress", "egress"}
        assert spec["tier"] == "Admin"
        assert 0 <= spec["priority"] <= 1000
        assert len(spec["subject"]) == 1
        for key, side in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(key, ()):
                assert set(rule) <= {"name", "action", side, "protocols"}
                assert len(rule["name"]) <= 100
                assert all(len(peer) == 1 for peer in rule[side])
                assert all(set(peer) <= {"pods", "namespaces", "networks"} for peer in rule[side])
                if side == "from":
                    assert all("networks" not in peer for peer in rule[side])
                for protocol in rule.get("protocols", ()):
                    ((kind, port),) = protocol.items()
                    assert kind in {"tcp", "udp"}
                    assert 1 <= port["destinationPort"]["number"] <= 65535


def test_every_file_says_that_it_is_a_superset():
    for file in policies().files:
        assert file.is_superset
        assert b"SUPERSET" in file.content


def test_it_is_the_same_twice():
    assert policies() == policies()
