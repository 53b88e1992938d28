# SPDX-License-Identifier: Apache-2.0
"""Ambient mode: the pair of policies, and nothing that ztunnel would read as something else."""

import pytest
from tests.support.compiled import compiled
from tests.support.crds import Definitions
from tests.support.golden import assert_golden
from tests.support.mesh_policies import PAYMENT, SHOP

PAYMENT_BY_WAYPOINT = PAYMENT.rstrip().removesuffix("}") + ", ambient: {waypoint: waypoint}}\n"
GOLDEN = {"payment": PAYMENT_BY_WAYPOINT, "shop": SHOP}

SERVICES = """
services:
  a: {operations: {x: GET /}}
  pay: {operations: {charge: POST /charge, read: "GET /p/{id}"}, probes: [GET /healthz]}
  db: {tcp: 5432}
allow:
  - {from: a, to: pay, operations: all}
  - {from: a, to: db}
"""


def ambient(targets="", *beside, services=SERVICES):
    return compiled("ambient", f"{services}\ntargets: {{namespace: shop, {targets}}}\n", *beside)


def policies(made, key):
    return [one for one in made.all("AuthorizationPolicy") if key in one["spec"]]


# -- what is refused


def test_without_a_waypoint_layer_7_is_refused_and_the_alternative_named():
    made = ambient()
    assert {"ambient.route", "ambient.parameter", "ambient.probes"} <= made.errors
    (first, *_) = [one for one in made.compilation.diagnostics if one.code == "ambient.route"]
    assert "waypoint" in first.message
    assert "targets: ambient: waypoint" in first.message
    assert "istio" in (first.suggestion or "")
    assert made.spec("AuthorizationPolicy", "admit-pay") is None
    assert made.all("Gateway") == []


def test_without_a_waypoint_bytes_are_held_by_ztunnel():
    made = ambient()
    assert made.spec("AuthorizationPolicy", "admit-db") == {
        "selector": {"matchLabels": {"app": "db"}},
        "action": "ALLOW",
        "rules": [
            {
                "from": [{"source": {"principals": ["shop.example/ns/shop/sa/a"]}}],
                "to": [{"operation": {"ports": ["5432"]}}],
            }
        ],
    }


@pytest.mark.parametrize(
    "services",
    ["services: {a: {service_account: wp}}", "services: {pay: {service_account: wp}}", "gateway: {namespace: shop, service_account: wp}"],
    ids=["caller", "target", "gateway"],
)  # fmt: skip
def test_who_has_the_waypoints_account_would_go_around_it(services):
    made = ambient(f"ambient: {{waypoint: wp, accept: [ambiguous-paths]}}, {services}")
    assert "ambient.waypoint-account" in made.errors
    assert made.spec("AuthorizationPolicy", "admit-pay") is None
    assert made.spec("AuthorizationPolicy", "allow-pay") is None


def test_the_same_account_in_another_namespace_is_another_identity():
    made = ambient(
        "ambient: {waypoint: wp, accept: [ambiguous-paths]}, gateway: {namespace: edge, service_account: wp}"
    )
    assert made.errors == set()
    assert made.spec("AuthorizationPolicy", "admit-pay") is not None


def test_a_service_that_is_called_like_the_waypoint_is_refused():
    made = ambient("ambient: {waypoint: pay, accept: [ambiguous-paths]}")
    assert "ambient.waypoint-account" in made.errors
    assert made.spec("AuthorizationPolicy", "allow-pay") is None


def test_ztunnel_lets_out_what_it_does_not_know_so_egress_is_refused():
    made = ambient(
        "ambient: {waypoint: wp, accept: [ambiguous-paths]}, egress: {bank: {host: b.example, from: [a]}}"
    )
    assert "ambient.egress" in made.errors


def test_in_the_root_namespace_nothing_is_written():
    made = ambient("ambient: {root_namespace: shop}")
    assert "ambient.root-namespace" in made.errors
    assert made.objects == []


# -- traps by name


@pytest.fixture(scope="module")
def made():
    return ambient("ambient: {waypoint: wp, accept: [ambiguous-paths]}")


def test_behind_a_waypoint_ztunnel_sees_the_waypoint_so_it_admits_nobody_else(made):
    spec = made.spec("AuthorizationPolicy", "admit-pay")
    (rule,) = spec["rules"]
    assert rule["from"] == [{"source": {"principals": ["shop.example/ns/shop/sa/wp"]}}]
    assert rule["to"] == [{"operation": {"ports": ["8080"]}}]


def test_the_waypoint_is_told_the_real_callers(made):
    spec = made.spec("AuthorizationPolicy", "allow-pay")
    assert spec["targetRefs"] == [{"group": "", "kind": "Service", "name": "pay"}]
    assert "selector" not in spec
    principals = {
        one for rule in spec["rules"] for source in rule["from"] for one in source["source"]["principals"]
    }
    assert "shop.example/ns/shop/sa/a" in principals
    assert "shop.example/ns/shop/sa/wp" not in principals


def test_a_waypoint_denies_by_itself_because_namespace_policies_are_not_in_force_there(made):
    spec = made.spec("AuthorizationPolicy", "everyhop-deny-waypoint")
    assert spec == {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "wp"}]}


def test_ztunnel_gets_nothing_that_it_would_drop(made):
    found = policies(made, "selector")
    assert found
    for one in found:
        assert one["spec"]["action"] == "ALLOW"
        for rule in one["spec"]["rules"]:
            assert set(rule) <= {"from", "to"}  # no `when`
            assert all(set(source["source"]) == {"principals"} for source in rule["from"])
            assert all(set(to["operation"]) == {"ports"} for to in rule.get("to", []))


def test_layer_7_is_only_ever_written_with_target_refs(made):
    for one in made.all("AuthorizationPolicy"):
        text = str(one["spec"].get("rules", ""))
        if "paths" in text or "methods" in text or one["spec"].get("action") == "CUSTOM":
            assert "targetRefs" in one["spec"]


def test_no_deny_is_written_so_none_loses_its_effect_at_ztunnel(made):
    assert {one["spec"].get("action") for one in made.all("AuthorizationPolicy")} <= {None, "ALLOW", "CUSTOM"}


def test_a_waypoint_sees_the_services_port_so_it_is_not_told_the_pods(made):
    rules = made.spec("AuthorizationPolicy", "allow-pay")["rules"]
    assert all("ports" not in to["operation"] for rule in rules for to in rule["to"])


def test_bytes_go_around_the_waypoint(made):
    assert made.spec("AuthorizationPolicy", "allow-db") is None
    (rule,) = made.spec("AuthorizationPolicy", "admit-db")["rules"]
    assert rule["from"] == [{"source": {"principals": ["shop.example/ns/shop/sa/a"]}}]
    assert "ambient.tcp-waypoint" in made.warnings


def test_strict_mtls_and_deny_all_are_ztunnels_too(made):
    assert made.spec("PeerAuthentication", "default") == {"mtls": {"mode": "STRICT"}}
    assert made.spec("AuthorizationPolicy", "everyhop-deny-all") == {}


def test_the_namespace_is_in_the_mesh_and_uses_the_waypoint(made):
    (namespace,) = made.all("Namespace")
    labels = namespace["metadata"]["labels"]
    assert labels["istio.io/dataplane-mode"] == "ambient"
    assert labels["istio.io/use-waypoint"] == "wp"
    assert "istio.io/ingress-use-waypoint" not in labels
    (gateway,) = made.all("Gateway")
    assert gateway["spec"]["gatewayClassName"] == "istio-waypoint"
    assert gateway["metadata"]["labels"]["istio.io/waypoint-for"] == "service"


def test_the_gateway_goes_through_the_waypoint_where_the_outside_may_call():
    services = SERVICES + "  - {from: outside, to: pay, operations: [charge]}\n"
    made = ambient(
        "gateway: {namespace: edge, service_account: gw}, ambient: {waypoint: wp, accept: [ambiguous-paths]}",
        services=services,
    )
    (namespace,) = made.all("Namespace")
    assert namespace["metadata"]["labels"]["istio.io/ingress-use-waypoint"] == "true"


def test_who_may_reach_the_waypoint_is_who_may_call_something_behind_it(made):
    spec = made.spec("AuthorizationPolicy", "reach-wp")
    assert spec["selector"] == {"matchLabels": {"gateway.networking.k8s.io/gateway-name": "wp"}}
    (rule,) = spec["rules"]
    assert set(rule["from"][0]["source"]["principals"]) == {
        f"shop.example/ns/shop/sa/{name}" for name in ("a", "pay", "db")  # pay has a probe, open to all
    }  # fmt: skip


def test_with_the_sdk_beside_it_ztunnel_is_the_outer_bound_and_says_so():
    made = ambient("ambient: {with: [sdk]}")
    assert made.errors == set()
    (file,) = made.compilation.files
    assert file.is_superset
    head = file.content.decode().partition("---")[0]
    assert "SUPERSET" in head
    assert "Layer 7 is held beside it by: sdk" in head
    (rule,) = made.spec("AuthorizationPolicy", "admit-pay")["rules"]
    assert "shop.example/ns/shop/sa/a" in rule["from"][0]["source"]["principals"]


def test_timeouts_are_not_silently_left_out():
    assert "ambient.timing" in ambient("ambient: {waypoint: wp}, services: {pay: {timeout: 5s}}").warnings


# -- the whole output


@pytest.mark.parametrize("name", GOLDEN)
def test_the_output_is_the_one_that_was_read(name):
    assert_golden(f"ambient/{name}", compiled("ambient", GOLDEN[name]).files)


@pytest.mark.parametrize("name", GOLDEN)
def test_every_object_with_a_definition_is_one_that_the_api_server_takes(name, shared_material):
    definitions = Definitions(shared_material / "schemas", "istio")
    objects = compiled("ambient", GOLDEN[name]).objects
    unknown = {one["kind"] for one in objects if not definitions.knows(one)}
    assert unknown == {"Namespace", "Gateway"}
    for one in objects:
        if definitions.knows(one):
            assert definitions.problem(one) is None, one["metadata"]["name"]
