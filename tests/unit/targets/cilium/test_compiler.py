# SPDX-License-Identifier: Apache-2.0
"""CiliumNetworkPolicies: what is refused, the traps by name, and that what comes out is what a schema and Cilium take."""

import pytest
from tests.support.crds import Definitions
from tests.support.kube import Pod, cilium_egress, cilium_ingress, codes, compiled, objects, pod_of

from everyhop.policy import parse_policy

TARGETS = """
targets:
  namespace: shop
  services: {db: {namespace: data, port: 5432}}
  cilium: {accept: [mtls]}
"""
SERVICES = """
version: 1
trust_domain: shop.example
services:
  web: {operations: {home: GET /}}
  admin: {operations: {home: GET /}}
  pay:
    operations:
      charge: POST /v1/payments
      read: GET /v1/payments/{id}
    probes: [GET /healthz]
  db: {tcp: 5432}
allow:
  - {from: web, to: pay, operations: [charge]}
  - {from: admin, to: pay, operations: [charge, read]}
  - {from: pay, to: db}
"""
POLICY = SERVICES + TARGETS


def cilium(policy=POLICY, *beside):
    return compiled(policy, "cilium", *beside)


def with_targets(text, services=SERVICES):
    return services + "targets:\n  namespace: shop\n" + text


def overlapping(callers):
    return f"""
version: 1
trust_domain: shop.example
services:
  web: {{}}
  admin: {{}}
  pay: {{operations: {{read: "GET /orders/{{id}}", search: GET /orders/search, put: PUT /orders/search}}}}
allow:
  - {{from: web, to: pay, operations: [read]}}
  - {{from: [{callers}], to: pay, operations: [search]}}
targets: {{cilium: {{accept: [mtls]}}}}
"""


def rules_of(compilation, name):
    return objects(compilation)[name]["spec"]


def all_ports(compilation):
    for one in objects(compilation).values():
        for direction in ("ingress", "egress"):
            for rule in one["spec"][direction]:
                for port in rule.get("toPorts", ()):
                    yield direction, rule, port


# --- refused --------------------------------------------------------------------------------------------------------


def test_cilium_28986_mutual_authentication_is_not_taken_for_mtls():
    found = cilium(with_targets("  cilium: {}\n"))
    assert "mtls" in codes(found, errors=True)
    assert found.failed
    assert all(one["spec"]["ingress"] == [{}] for one in objects(found).values())
    assert b"authentication" not in b"".join(file.content for file in found.files)


@pytest.mark.parametrize("needs", ["token: required", "user", "when"])
def test_a_clause_that_it_cannot_hold_has_no_rule(needs):
    policy = POLICY
    if needs == "token: required":
        policy = policy.replace(
            "charge: POST /v1/payments", 'charge: {route: "POST /v1/payments", token: required}'
        )
        refused = {"token", "token-binding"}
    elif needs == "user":
        policy = policy.replace("[charge]}", "[charge], user: required}")
        refused = {"user"}
    else:
        policy = policy.replace("[charge]}", """[charge], when: "request.method == 'POST'"}""")
        refused = {"condition"}
    found = cilium(policy)
    assert refused <= set(codes(found, errors=True))
    snapshot = parse_policy({"everyhop.yaml": policy.encode()})
    web, pay = pod_of(snapshot, "web"), pod_of(snapshot, "pay")
    assert not cilium_ingress(objects(found).values(), web, pay, 8080, "POST", "/v1/payments")
    assert cilium_ingress(objects(found).values(), web, pay, 8080, "GET", "/healthz")


def test_a_route_that_contains_another_door_is_refused():
    found = cilium(overlapping("admin"))
    assert codes(found, errors=True) == ["overlap"]
    assert "pay.read to web without pay.search" in found.diagnostics[-1].message
    web, pay = Pod("default", "web", {"app": "web"}), Pod("default", "pay", {"app": "pay"})
    for path in ("/orders/search", "/orders/1"):
        assert not cilium_ingress(objects(found).values(), web, pay, 8080, "GET", path)


def test_a_route_that_contains_another_door_is_fine_for_who_may_pass_both():
    found = cilium(overlapping("admin, web"))
    assert codes(found, errors=True) == []


def test_an_overlap_is_left_to_what_stands_beside_it():
    found = cilium(overlapping("admin"), "sdk")
    assert codes(found, errors=True) == []
    assert "overlap" in codes(found)


def test_callers_from_outside_need_a_gateway():
    policy = SERVICES.replace("allow:", "allow:\n  - {from: outside, to: web, operations: [home]}")
    found = cilium(policy + TARGETS)
    assert codes(found, errors=True) == ["gateway"]
    assert rules_of(found, "shop/calls-web")["ingress"] == [{}]


def test_a_dns_label_that_is_none_gives_no_rule_for_dns():
    found = cilium(with_targets("  cilium: {accept: [mtls], dns_label: kube-dns}\n"))
    assert codes(found, errors=True) == ["dns-label"]
    assert all("dns" not in port.get("rules", {}) for _, _, port in all_ports(found))


def test_behind_a_waypoint_it_refuses():
    text = "  ambient: {waypoint: way}\n  cilium: {traffic: encrypted, with: [ambient]}\n"
    assert "waypoint" in codes(cilium(with_targets(text)), errors=True)


# --- the traps ------------------------------------------------------------------------------------------------------


def test_cilium_41314_a_regex_that_is_too_large_is_refused_and_not_written():
    many = "".join(f"/{{p{number}}}" for number in range(6))
    found = cilium(POLICY.replace("GET /v1/payments/{id}", f'"GET {many}"'))
    assert codes(found, errors=True) == ["regex-size"]
    assert all("p0" not in str(one) for one in objects(found).values())
    assert len(rules_of(found, "shop/calls-pay")["ingress"]) == 2


def test_cilium_41314_a_regex_gives_up_encoded_bytes_with_a_warning():
    found = cilium(POLICY.replace("GET /v1/payments/{id}", "GET /{a}/{b}/{c}"))
    assert codes(found, errors=True) == []
    assert "regex-size" in codes(found)


def test_layer_4_never_absorbs_layer_7():
    policy = with_targets(
        "  probe_networks: [10.0.0.0/8]\n  egress: {x: {host: api.example, from: [pay]}}\n  cilium: {accept: [mtls]}\n"
    )
    for one in objects(cilium(policy)).values():
        plain = {
            port["ports"][0]["port"]
            for rule in one["spec"]["ingress"]
            for port in rule.get("toPorts", ())
            if "rules" not in port
        }
        http = {
            port["ports"][0]["port"]
            for rule in one["spec"]["ingress"]
            for port in rule.get("toPorts", ())
            if "rules" in port
        }
        assert not plain & http, one["metadata"]["name"]
        assert all("toPorts" in rule for rule in one["spec"]["ingress"] if rule)


def test_no_list_of_rules_is_empty():
    seen = 0
    for _, rule, port in all_ports(cilium()):
        assert rule.get("fromEndpoints") or rule.get("toEndpoints")
        if "rules" in port:
            (kind,) = port["rules"]
            assert port["rules"][kind]
            assert all(set(one) == {"method", "path"} for one in port["rules"].get("http", ()))
            seen += 1
    assert seen > 3


def test_cilium_13280_expressions_are_anchored_and_do_not_take_head():
    for direction, _, port in all_ports(cilium()):
        for one in port.get("rules", {}).get("http", ()):
            assert direction == "ingress"
            assert one["path"].startswith("^/")
            assert one["path"].endswith("$")
            assert one["method"] in {"^GET$", "^POST$"}


def test_cilium_11767_who_calls_nobody_needs_no_dns_and_who_calls_has_it_in_the_same_policy():
    policy = with_targets(
        "  egress: {x: {host: api.example, from: [pay]}}\n  cilium: {accept: [mtls]}\n",
        SERVICES.replace("  db: {tcp: 5432}", "  db: {tcp: 5432}\n  idle: {}").replace(
            "    probes: [GET /healthz]\n", ""
        ),
    )
    found = objects(cilium(policy))
    assert found["shop/calls-idle"]["spec"]["egress"] == [{}]
    egress = found["shop/calls-pay"]["spec"]["egress"]
    assert [rule["toFQDNs"] for rule in egress if "toFQDNs" in rule] == [[{"matchName": "api.example"}]]
    names = [
        one for rule in egress for port in rule["toPorts"] for one in port.get("rules", {}).get("dns", ())
    ]
    assert {"matchName": "api.example"} in names
    assert {"matchName": "api.example.shop.svc.cluster.local"} in names  # ndots:5
    assert {"matchPattern": "*"} not in names


def test_dns_names_are_those_of_namespaces_that_are_called():
    egress = rules_of(cilium(), "shop/calls-pay")["egress"]
    patterns = [one["matchPattern"] for one in egress[-1]["toPorts"][0]["rules"]["dns"]]
    assert "*.data.svc.cluster.local" in patterns
    assert "*.data.svc.cluster.local.shop.svc.cluster.local" in patterns
    assert all(one.endswith(".cluster.local") for one in patterns)
    assert not any("kube-system" in one for one in patterns)


def test_cilium_31803_another_name_at_the_same_address_is_warned_of_and_held_by_sni():
    policy = with_targets(
        "  egress: {x: {host: api.example, port: 8443, from: [pay]}}\n  cilium: {accept: [mtls]}\n"
    )
    found = cilium(policy)
    assert "egress-aliasing" in codes(found)
    (rule,) = [rule for _, rule, _ in all_ports(found) if "toFQDNs" in rule]
    assert rule["toPorts"] == [
        {"ports": [{"port": "8443", "protocol": "TCP"}], "serverNames": ["api.example"]}
    ]


def test_default_deny_is_asked_for_in_both_directions_and_undone_by_none():
    found = objects(cilium())
    assert {"shop/deny-default", "data/deny-default"} <= set(found)
    for one in found.values():
        assert one["spec"]["enableDefaultDeny"] == {"ingress": True, "egress": True}
        assert one["spec"]["ingress"]
        assert one["spec"]["egress"]
    assert found["shop/deny-default"]["spec"]["endpointSelector"] == {}


def test_each_peer_names_its_namespace_and_account_with_the_source_of_the_label():
    for one in objects(cilium()).values():
        for rule in (*one["spec"]["ingress"], *one["spec"]["egress"]):
            for peer in (*rule.get("fromEndpoints", ()), *rule.get("toEndpoints", ())):
                labels = peer["matchLabels"]
                assert all(key.startswith("k8s:") for key in labels)
                assert "k8s:io.kubernetes.pod.namespace" in labels
                is_dns = labels.get("k8s:k8s-app") == "kube-dns"
                assert is_dns or "k8s:io.cilium.k8s.policy.serviceaccount" in labels


def test_a_label_cannot_take_the_place_of_the_namespace():
    policy = SERVICES + (
        "targets:\n  namespace: shop\n  cilium: {accept: [mtls]}\n  services:\n"
        "    web: {labels: {io.kubernetes.pod.namespace: other, app: web}}\n"
    )
    peers = [
        peer["matchLabels"]
        for _, rule, _ in all_ports(cilium(policy))
        for peer in rule.get("fromEndpoints", ())
    ]
    assert {peer["k8s:io.kubernetes.pod.namespace"] for peer in peers} == {"shop"}


def test_pods_of_another_cluster_are_strangers_when_the_cluster_is_named():
    found = cilium(with_targets("  cilium: {accept: [mtls], cluster: east}\n"))
    peers = [
        peer["matchLabels"]
        for _, rule, _ in all_ports(found)
        for peer in (*rule.get("fromEndpoints", ()), *rule.get("toEndpoints", ()))
    ]
    assert peers
    assert all(peer["k8s:io.cilium.k8s.policy.cluster"] == "east" for peer in peers)


def test_traffic_that_a_mesh_encrypts_is_warned_of():
    found = cilium(with_targets("  cilium: {with: [istio]}\n"))
    assert "encrypted" in codes(found, errors=False)


def test_traffic_that_a_mesh_encrypts_ends_at_the_port_and_says_so():
    found = cilium(with_targets("  cilium: {with: [istio, authorizer], traffic: encrypted}\n"))
    assert codes(found, errors=True) == []
    assert all(file.is_superset for file in found.files)
    assert all("http" not in port.get("rules", {}) for _, _, port in all_ports(found))
    assert any("istiod" in str(one) for one in objects(found).values())


def test_encrypted_traffic_needs_somebody_who_holds_the_routes():
    found = cilium(with_targets("  cilium: {accept: [mtls], traffic: encrypted}\n"))
    assert "encrypted" in codes(found, errors=True)
    assert rules_of(found, "shop/calls-pay")["ingress"] == [{}]


def test_probes_from_a_network_are_http_rules_too():
    found = cilium(with_targets("  probe_networks: [10.0.0.0/8]\n  cilium: {accept: [mtls]}\n"))
    (rule,) = [rule for _, rule, _ in all_ports(found) if "fromCIDR" in rule]
    assert rule["fromCIDR"] == ["10.0.0.0/8"]
    assert [one["path"] for one in rule["toPorts"][0]["rules"]["http"]] == ["^/healthz(?:\\?[!-~]*)?$"]


def test_a_gateway_in_a_namespace_of_services_gets_its_way_to_them_and_a_warning():
    services = SERVICES.replace("allow:", "allow:\n  - {from: outside, to: web, operations: [home]}")
    text = "  gateway: {namespace: shop, service_account: edge}\n  cilium: {accept: [mtls]}\n"
    found = cilium(with_targets(text, services))
    assert codes(found, errors=True) == []
    assert "gateway-namespace" in codes(found)
    assert len(rules_of(found, "shop/gateway-edge")["egress"]) == 2
    web = rules_of(found, "shop/calls-web")["ingress"]
    assert web[0]["fromEndpoints"][0]["matchLabels"]["k8s:io.cilium.k8s.policy.serviceaccount"] == "edge"


# --- what comes out -------------------------------------------------------------------------------------------------


def test_the_same_path_for_several_sets_of_callers_adds_up():
    snapshot = parse_policy({"everyhop.yaml": POLICY.encode()})
    found = objects(cilium()).values()
    pods = {name: pod_of(snapshot, name) for name in snapshot.services}
    asked = {
        (name, method, path): cilium_ingress(found, pods[name], pods["pay"], 8080, method, path)
        for name in pods
        for method, path in (("POST", "/v1/payments"), ("GET", "/v1/payments/7"), ("GET", "/healthz"))
    }
    assert {key for key, allowed in asked.items() if allowed} == {
        ("web", "POST", "/v1/payments"),
        ("admin", "POST", "/v1/payments"),
        ("admin", "GET", "/v1/payments/7"),
        *((name, "GET", "/healthz") for name in pods),
    }
    assert cilium_ingress(found, pods["pay"], pods["db"], 5432, "", "")
    assert not cilium_ingress(found, pods["web"], pods["db"], 5432, "", "")
    assert cilium_egress(found, pods["pay"], pods["db"], 5432)
    assert not cilium_egress(found, pods["web"], pods["db"], 5432)


@pytest.mark.parametrize(
    "stranger",
    [
        Pod("other", "web", {"app": "web"}),
        Pod("shop", "default", {"app": "web"}),
        Pod("shop", "web", {"app": "web2"}),
        Pod("shop", "web", {}),
    ],
)
def test_a_pod_that_lacks_one_mark_of_a_caller_is_nobody(stranger):
    pay = Pod("shop", "pay", {"app": "pay"})
    assert not cilium_ingress(objects(cilium()).values(), stranger, pay, 8080, "POST", "/v1/payments")


def test_a_pod_that_no_policy_is_about_gets_nothing():
    pod = Pod("shop", "rogue", {"app": "pay"})
    web = Pod("shop", "web", {"app": "web"})
    assert not cilium_ingress(objects(cilium()).values(), web, pod, 8080, "POST", "/v1/payments")


def test_comments_name_rule_and_line():
    content = cilium().files[1].content.decode()
    assert "# pay.charge: allow[1] at everyhop.yaml:15, allow[0] at everyhop.yaml:14" in content
    assert "# pay.probes[0]: probe at everyhop.yaml:11" in content
    assert content.startswith("# Generated by everyhop for cilium; do not edit.\n")


def test_it_is_the_same_twice():
    assert cilium() == cilium()


@pytest.mark.parametrize(
    "policy",
    [
        POLICY,
        with_targets(
            "  probe_networks: [10.0.0.0/8]\n  egress: {x: {host: api.example, from: [pay]}}\n"
            "  gateway: {namespace: shop, service_account: edge}\n  cilium: {accept: [mtls], cluster: east}\n"
        ),
        with_targets("  cilium: {with: [linkerd], traffic: encrypted}\n"),
    ],
    ids=["plain", "everything", "encrypted"],
)
def test_objects_satisfy_the_schema_and_what_cilium_checks_beyond_it(shared_material, policy):
    definitions = Definitions(shared_material / "schemas", "cilium")
    found = cilium(policy)
    for one in objects(found).values():
        assert definitions.problem(one) is None, one
    for _, rule, port in all_ports(found):
        peers = {"fromEndpoints", "fromCIDR", "toEndpoints", "toFQDNs"} & set(rule)
        assert len(peers) == 1  # Cilium combines no two of them
        assert all(1 <= int(one["port"]) <= 65535 for one in port["ports"])
        assert len(port["ports"]) <= 40
        if "http" in port.get("rules", {}):
            assert {one["protocol"] for one in port["ports"]} == {"TCP"}
        if "serverNames" in port:
            assert "rules" not in port
