# SPDX-License-Identifier: Apache-2.0
"""Routes: only what is open to outside, exactly, and what they do not hold has to be held by somebody."""

import re

import pytest
from tests.support.crds import Definitions
from tests.support.kube import codes, compiled, objects

SERVICES = """
version: 1
trust_domain: shop.example
services:
  web:
    operations:
      home: GET /
      item: GET /items/{id}
      files: GET /v1.0/{path...}
      order: POST /orders
      secret: GET /secret
      watch: {grpc: shop.v1.Orders/Watch}
      live: {websocket: /live}
allow:
  - {from: outside, to: web, operations: [%s]}
  - {from: web, to: web, operations: [secret]}
"""
TARGETS = """
targets:
  namespace: shop
  gateway: {namespace: edge, service_account: gate, hosts: [shop.example]}
  services: {web: {timeout: 5s}}
  gateway-api: {gateway: main, gateway_namespace: edge%s}
"""


def routes(operations="home, order, watch, live", further="", policy=None):
    return compiled(policy or SERVICES % operations + TARGETS % further, "gateway-api")


def matches(compilation, kind="HTTPRoute"):
    return [
        one
        for made in objects(compilation, kind).values()
        for rule in made["spec"]["rules"]
        for one in rule["matches"]
    ]


def test_without_a_gateway_there_are_no_routes():
    found = routes(policy=SERVICES % "home" + "targets: {namespace: shop}\n")
    assert codes(found, errors=True) == ["gateway"]
    assert found.files == ()


@pytest.mark.parametrize(("operation", "feature"), [("item", "parameter"), ("files", "rest")])
def test_a_template_is_refused_unless_somebody_holds_it(operation, feature):
    found = routes(f"home, {operation}")
    assert codes(found, errors=True) == [feature]
    assert matches(found) == [{"path": {"type": "Exact", "value": "/"}, "method": "GET"}]


@pytest.mark.parametrize(
    ("was", "becomes", "feature"),
    [
        ("order: POST /orders", "order: {route: POST /orders, token: required}", "token"),
        ("operations: [order]}", "operations: [order], user: required}", "user"),
        ("operations: [order]}", "operations: [order], when: \"request.method == 'POST'\"}", "condition"),
    ],
)
def test_what_a_route_does_not_hold_is_refused(was, becomes, feature):
    policy = SERVICES % "order" + TARGETS % ""
    found = routes(policy=policy.replace(was, becomes))
    assert feature in codes(found, errors=True)
    assert matches(found) == []
    held = routes(policy=policy.replace(was, becomes).replace("edge}", "edge, with: [sdk]}"))
    assert codes(held, errors=True) == []
    assert len(matches(held)) == 1


def test_only_what_is_open_to_outside_has_a_route():
    assert {one["path"]["value"] for one in matches(routes())} == {"/", "/orders", "/live"}
    assert matches(routes(), "GRPCRoute") == [
        {"method": {"type": "Exact", "service": "shop.v1.Orders", "method": "Watch"}}
    ]


def test_each_match_is_of_one_method_and_one_path():
    for one in matches(routes()):
        assert one["path"]["type"] == "Exact"
        assert one["method"] in {"GET", "POST"}


def test_an_expression_is_warned_of_and_matches_no_more_than_its_segments():
    found = routes("item, files", ", with: [istio]")
    assert codes(found) == ["regex"] * 2
    files, item = (one["path"]["value"] for one in matches(found))
    assert re.fullmatch(item, "/items/7")
    assert not re.fullmatch(item, "/items/7/x")
    assert re.fullmatch(files, "/v1.0/")
    assert not re.fullmatch(files, "/v1x0/a")


def test_no_host_is_warned_of_and_too_many_are_refused():
    policy = SERVICES % "home" + (TARGETS % "").replace(", hosts: [shop.example]", "")
    found = routes(policy=policy)
    assert codes(found) == ["hosts"]
    assert all("hostnames" not in one["spec"] for one in objects(found).values())
    many = ", ".join(f"h{number}.example" for number in range(17))
    assert codes(routes("home", f", hosts: [{many}]"), errors=True) == ["hosts"]


def test_more_matches_than_a_rule_takes_make_further_routes():
    operations = "".join(f"      o{number}: GET /o/{number}\n" for number in range(130))
    policy = (
        f"version: 1\ntrust_domain: shop.example\nservices:\n  web:\n    operations:\n{operations}"
        "allow: [{from: outside, to: web, operations: all}]\n" + TARGETS % ""
    )
    found = routes(policy=policy)
    assert [len(one["spec"]["rules"][0]["matches"]) for one in objects(found).values()] == [64, 64, 2]
    assert len({one["path"]["value"] for one in matches(found)}) == 130


def test_a_path_that_is_too_long_is_refused():
    found = routes(
        policy=(SERVICES % "item" + TARGETS % ", with: [istio]").replace(
            "/items/{id}", "/" + "+" * 600 + "/{id}"
        )
    )
    assert codes(found, errors=True) == ["path"]


def test_it_says_that_it_authorizes_nothing():
    assert b"Routes only: nothing here authorizes a call." in routes().files[0].content


def test_a_route_names_gateway_hosts_and_the_service():
    spec = objects(routes())["shop/http-web"]["spec"]
    assert spec["parentRefs"] == [{"name": "main", "namespace": "edge"}]
    assert spec["hostnames"] == ["shop.example"]
    assert spec["rules"][0]["backendRefs"] == [{"name": "web", "port": 8080}]
    assert spec["rules"][0]["timeouts"] == {"request": "5s"}


@pytest.mark.parametrize("with_", ["", ", with: [istio]"])
def test_objects_satisfy_the_schema_and_rules_beyond_it(shared_material, with_):
    definitions = Definitions(shared_material / "schemas", "gateway-api")
    found = routes("home, item, order, watch, live", with_)
    for one in objects(found).values():
        assert definitions.problem(one) is None
    for one in matches(
        found
    ):  # CEL of HTTPRoute: no dot segments, no double slashes, nothing encoded in an exact path
        path = one["path"]["value"]
        assert path.startswith("/")
        assert not any(bad in path for bad in ("//", "/./", "/../", "%2f", "%2F", "#"))
