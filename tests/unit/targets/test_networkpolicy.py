# SPDX-License-Identifier: Apache-2.0
"""NetworkPolicies: an outer bound that says so, and the traps by name."""

import ipaddress

import pytest
from tests.support.kube import codes, compiled, objects

SERVICES = """
version: 1
trust_domain: shop.example
services:
  web: {operations: {home: GET /}}
  pay: {operations: {charge: POST /v1/payments}, probes: [GET /healthz]}
  db: {tcp: 5432}
allow:
  - {from: web, to: pay, operations: [charge]}
  - {from: pay, to: db}
  - {from: outside, to: web, operations: [home]}
"""
PLACES = """
targets:
  namespace: shop
  services: {db: {namespace: data, labels: {app: db, tier: store}}}
  gateway: {namespace: edge, service_account: gate, labels: {app: gate}}
"""
POLICY = SERVICES + PLACES + "  networkpolicy: {with: [istio]}\n"


def policies(policy=POLICY, *beside):
    return compiled(policy, "networkpolicy", *beside)


def specs(compilation):
    return {name: one["spec"] for name, one in objects(compilation).items()}


def peers(compilation):
    for spec in specs(compilation).values():
        for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
            yield from (*rule.get("from", ()), *rule.get("to", ()))


# --- refused --------------------------------------------------------------------------------------------------------


def test_alone_it_opens_no_operation_and_fails():
    found = policies(SERVICES + PLACES)
    assert {"mtls", "route"} <= set(codes(found, errors=True))
    assert set(specs(found)) == {"shop/deny-default", "data/deny-default"}


def test_a_tcp_port_alone_is_exact_as_far_as_labels_go():
    found = policies(SERVICES + PLACES + "  networkpolicy: {accept: [mtls]}\n")
    assert "db.tcp" not in str([one.message for one in found.diagnostics if one.is_error])
    assert set(specs(found)) == {"shop/deny-default", "data/deny-default", "data/in-db", "shop/out-pay"}
    assert not any(file.is_superset for file in found.files)


def test_callers_from_outside_need_a_gateway():
    text = "targets: {namespace: shop, networkpolicy: {with: [istio]}}\n"
    found = policies(SERVICES + text)
    assert codes(found, errors=True) == ["gateway"]
    assert "shop/in-web" not in specs(found)


def test_hosts_outside_have_no_names_here():
    egress = "  egress: {x: {host: api.example, from: [pay]}}\n"
    alone = policies(SERVICES + PLACES + egress + "  networkpolicy: {accept: [mtls]}\n")
    assert "egress" in codes(alone, errors=True)
    assert not any("ipBlock" in one for one in peers(alone))
    found = policies(SERVICES + PLACES + egress + "  networkpolicy: {with: [istio]}\n")
    assert "egress-addresses" in codes(found, errors=False)
    assert any("ipBlock" in one for one in peers(found))
    assert all(file.is_superset for file in found.files if "shop" in file.path)


# --- the traps ------------------------------------------------------------------------------------------------------


def test_recipes_98_both_selectors_stand_in_one_item():
    seen = list(peers(policies()))
    assert seen
    for one in seen:
        assert set(one) == {"namespaceSelector", "podSelector"}
        assert set(one["namespaceSelector"]["matchLabels"]) == {"kubernetes.io/metadata.name"}
        assert one["podSelector"]["matchLabels"]


def test_no_rule_lacks_peers_or_ports():
    for spec in specs(policies()).values():
        for key, side in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(key, ()):
                assert rule[side]
                assert rule["ports"]
                assert all(1 <= one["port"] <= 65535 for one in rule["ports"])
                assert all(one["protocol"] in {"TCP", "UDP"} for one in rule["ports"])


def test_default_deny_isolates_both_directions_of_every_pod():
    found = specs(policies())
    for name in ("shop/deny-default", "data/deny-default"):
        assert found[name] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_types_are_those_of_the_rules():
    for spec in specs(policies()).values():
        if spec["podSelector"]:
            assert spec["policyTypes"] == [key.capitalize() for key in ("ingress", "egress") if key in spec]


def test_cilium_11767_whoever_calls_may_ask_dns():
    found = specs(policies(SERVICES + PLACES + "  networkpolicy: {with: [authorizer], accept: [mtls]}\n"))
    for name in ("shop/out-web", "shop/out-pay"):
        dns = found[name]["egress"][-1]
        assert dns["to"][0]["namespaceSelector"]["matchLabels"] == {
            "kubernetes.io/metadata.name": "kube-system"
        }
        assert dns["to"][0]["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}
        assert dns["ports"] == [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]


def test_beside_cilium_no_port_is_opened_because_cilium_adds_both_up():
    found = policies(POLICY, "cilium")
    assert "cilium" in codes(found, errors=False)
    assert set(specs(found)) == {"shop/deny-default", "data/deny-default"}


@pytest.mark.parametrize(
    ("mesh", "namespace", "ports"),
    [("istio", "istio-system", {15012}), ("linkerd", "linkerd", {8080, 8086, 8090})],
)
def test_a_proxy_reaches_its_control_plane(mesh, namespace, ports):
    found = specs(policies(SERVICES + PLACES + f"  networkpolicy: {{with: [{mesh}]}}\n"))
    reached = {
        port["port"]
        for rule in found["shop/out-web"]["egress"]
        for port in rule["ports"]
        if rule["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == namespace
    }
    assert reached == ports


def test_istio_53723_ambient_comes_through_the_tunnel_and_the_waypoint():
    text = "  ambient: {waypoint: way}\n  networkpolicy: {with: [ambient]}\n"
    found = specs(policies(SERVICES + PLACES + text))
    pay = found["shop/in-pay"]["ingress"]
    assert [one["port"] for one in pay[0]["ports"]] == [8080, 15008]
    way = {"gateway.networking.k8s.io/gateway-name": "way"}
    assert pay[1]["from"][0]["podSelector"]["matchLabels"] == way
    assert pay[2]["from"] == [{"ipBlock": {"cidr": "169.254.7.127/32"}}]
    waypoint = found["shop/waypoint"]
    assert waypoint["podSelector"]["matchLabels"] == way
    assert [one["podSelector"]["matchLabels"] for one in waypoint["ingress"][0]["from"]][-1] == {"app": "web"}
    to_way = [
        rule for rule in found["shop/out-web"]["egress"] if rule["to"][0]["podSelector"]["matchLabels"] == way
    ]
    assert [rule["ports"] for rule in to_way] == [[{"protocol": "TCP", "port": 15008}]]


def test_probes_from_a_network_open_a_port_that_has_probes():
    found = specs(policies(POLICY.replace("  gateway:", "  probe_networks: [10.0.0.0/8]\n  gateway:")))
    blocks = {
        name: [
            one["ipBlock"]["cidr"]
            for rule in spec.get("ingress", ())
            for one in rule["from"]
            if "ipBlock" in one
        ]
        for name, spec in found.items()
    }
    assert {name: some for name, some in blocks.items() if some} == {"shop/in-pay": ["10.0.0.0/8"]}
    assert all(ipaddress.ip_network(one) for some in blocks.values() for one in some)


def test_an_outer_bound_says_so_in_its_first_lines():
    found = policies()
    shop = next(file for file in found.files if file.path == "networkpolicy/shop.yaml")
    assert shop.is_superset
    assert b"SUPERSET, an outer bound: not enforcement of the policy" in b"\n".join(
        shop.content.splitlines()[:4]
    )


# --- what comes out -------------------------------------------------------------------------------------------------


def test_edges_have_both_ends():
    found = specs(policies())
    ingress = {
        (name.removeprefix("shop/in-").removeprefix("data/in-"), one["podSelector"]["matchLabels"]["app"])
        for name, spec in found.items()
        if "/in-" in name
        for rule in spec["ingress"]
        for one in rule["from"]
    }
    assert ingress == {("web", "gate"), ("pay", "web"), ("pay", "pay"), ("pay", "db"), ("db", "pay")}
    egress = {
        (one["podSelector"]["matchLabels"]["app"], name.partition("/out-")[2])
        for name, spec in found.items()
        if "/out-" in name
        for rule in spec["egress"]
        for one in rule["to"]
        if "app" in one["podSelector"]["matchLabels"]
    }
    assert {one for one in egress if one[0] != "istiod"} == ingress - {("web", "gate")}


def test_a_gateway_in_a_namespace_of_services_gets_its_way_out():
    found = policies(POLICY.replace("namespace: edge", "namespace: shop"))
    assert "gateway-namespace" in codes(found, errors=False)
    assert specs(found)["shop/gateway-gate"]["policyTypes"] == ["Egress"]


def test_all_labels_of_a_service_select_it():
    assert specs(policies())["data/in-db"]["podSelector"]["matchLabels"] == {"app": "db", "tier": "store"}


def test_it_is_the_same_twice():
    assert policies() == policies()
