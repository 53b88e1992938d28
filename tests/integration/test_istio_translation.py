# SPDX-License-Identifier: Apache-2.0
"""Istio's own code reads our objects, and a real Envoy that runs what comes of them decides as everyhop's engine."""

from itertools import product

import pytest
from tests.support.compiled import compiled
from tests.support.istio_check import PROGRAM, free_port, pods, translated
from tests.support.mesh_policies import POLICIES, SHOP
from tests.support.peers import peer_program, why_absent

from everyhop.authz import Engine
from everyhop.policy import parse_policy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        peer_program(PROGRAM) is None, reason=f"{why_absent(PROGRAM)} with EVERYHOP_ISTIO_CHECK=1"
    ),
]

ALONE = """
services:
  web: {operations: {x: GET /}}
  job: {operations: {x: GET /}}
  orders:
    operations:
      list: GET /orders
      read: GET /orders/{id}
      export: GET /orders/export
      lines: GET /orders/{id}/lines
      files: GET /files/{path...}
      charge: {route: POST /charge, token: operation}
      refund: {route: POST /refund, token: required}
      watch: {grpc: shop.v1.Orders/Watch}
    probes: [GET /healthz]
allow:
  - {from: web, to: orders, operations: [list, read, lines, charge, refund]}
  - {from: job, to: orders, operations: [export, files, watch]}
  - {from: any, to: orders, operations: [list]}
  - {from: outside, to: orders, operations: [list, read]}
deny:
  - {from: job, to: orders, operations: [list], reason: "no"}
targets:
  namespace: shop
  services: {orders: {port: PORT}}
  gateway: {namespace: edge, service_account: gw}
  tokens: {issuer: "https://id.example", jwks_uri: "https://id.example/keys"}
  istio: {accept: [ambiguous-paths, token-binding]}
  ambient: {accept: [ambiguous-paths, token-binding], waypoint: wp}
"""
TOKENS = {"POST /charge", "POST /refund"}
PATHS = (
    "/", "/orders", "/orders/", "/orders?x=1", "/orders?x=/../y", "/Orders", "/orders/7", "/orders/7/", "/orders/7/8",
    "/orders/export", "/orders/export/", "/orders/7/lines", "/orders/export/lines", "/orders//lines", "/orders/a%20b",
    "/orders/a@b", "/files", "/files/", "/files/a", "/files/a/b", "/files/a/", "/healthz", "/healthz/", "/health",
    "/shop.v1.Orders/Watch", "/shop_v1.Orders/Watch", "/shop.v1.Orders/watch", "/charge", "/refund", "/charges", "/x",
)  # fmt: skip
METHODS = ("GET", "POST", "PUT", "get")
PEERS = {
    **{name: f"spiffe://shop.example/ns/shop/sa/{name}" for name in ("web", "job", "orders", "stranger")},
    "outside": "spiffe://shop.example/ns/edge/sa/gw",
    "foreign": "spiffe://evil.example/ns/shop/sa/web",
    "longer": "spiffe://shop.example/ns/shop/sa/web/x",
    "nobody": "",
}
MODES = {"istio": "", "ambient": "wp"}


def workload(name, waypoint, namespace="shop"):
    return {"name": name, "namespace": namespace, "labels": {"app": name}, "waypoint": waypoint}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("target", MODES)
def test_istio_takes_every_object_without_a_warning(target, name):
    made = compiled(target, POLICIES[name])
    found = translated(made.files, [])
    assert found["objects"] >= len(made.objects) - len(made.all("Namespace"))
    assert found["problems"] == []


def test_istio_does_say_something_of_a_bad_object():
    bad = b"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a, namespace: b}
spec: {action: ALLOW, rules: [{to: [{operation: {paths: ['/a/{id}/b']}}]}]}
"""
    assert translated({"bad.yaml": bad}, [])["problems"]


@pytest.fixture(scope="module", params=MODES)
def running(request, tmp_path_factory):
    target, ports = request.param, {"orders": free_port(), "web": free_port()}
    made = compiled(target, ALONE.replace("PORT", str(ports["orders"])))
    assert made.errors == set()
    found = translated(made.files, [workload(name, MODES[target]) for name in ports])
    with pods(found["workloads"], tmp_path_factory.mktemp("envoy"), ports) as envoy:
        yield envoy


@pytest.fixture
def misplaced(tmp_path):
    """The same service, listening where the policy does not say."""
    made = compiled("istio", ALONE.replace("PORT", "8080"))
    found = translated(made.files, [workload("orders", "")])
    with pods(found["workloads"], tmp_path, {"orders": free_port()}) as envoy:
        yield envoy


def test_another_port_of_the_pod_is_shut(misplaced):
    for peer, path in product(PEERS.values(), ("/orders", "/healthz", "/orders/7")):
        assert misplaced.ask("orders", peer, "GET", path) == 403


def test_envoy_decides_as_the_engine(running):
    engine = Engine(
        parse_policy(
            {"p.yaml": f"version: 1\ntrust_domain: shop.example\n{ALONE}".replace("PORT", "1").encode()}
        )
    )
    allowed = 0
    for (name, peer), method, path in product(PEERS.items(), METHODS, PATHS):
        caller = name if name == "outside" else f"spiffe://shop.example/service/{name}"
        asked = engine.decide(caller=caller, target="orders", method=method, path=path)
        expected = asked.is_allowed and f"{method} {path}" not in TOKENS
        assert (running.ask("orders", peer, method, path) == 200) is expected, (name, method, path)
        allowed += expected
    assert allowed > 20


def test_a_service_that_nobody_may_call_answers_nobody(running):
    for peer, path in product(PEERS.values(), ("/", "/healthz", "/orders")):
        assert running.ask("web", peer, "GET", path) == 403


GOOD = ("https://id.example", "spiffe://shop.example/service/web", "orders#charge", "orders.charge")


@pytest.mark.parametrize(
    "claims",
    [
        ("https://id.example/", *GOOD[1:]),
        ("https://evil.example", *GOOD[1:]),
        (GOOD[0], "spiffe://shop.example/service/job", *GOOD[2:]),
        (GOOD[0], "spiffe://shop.example/service/webx", *GOOD[2:]),
        (GOOD[0], "", *GOOD[2:]),
        (*GOOD[:2], "orders", GOOD[3]),
        (*GOOD[:2], "orders#refund", GOOD[3]),
        (*GOOD[:2], "", GOOD[3]),
        (*GOOD[:3], "orders.refund"),
        (*GOOD[:3], ""),
        (*GOOD[:3], "orders.charge.x"),
    ],
    ids=[
        "issuer-slash", "issuer", "client", "client-prefix", "no-client", "service-audience", "other-audience",
        "no-audience", "scope", "no-scope", "scope-longer",
    ],
)  # fmt: skip
def test_a_token_for_something_else_does_not_open(running, claims):
    assert running.ask("orders", PEERS["web"], "POST", "/charge", "|".join(claims)) == 403


def test_a_token_opens_to_its_own_caller_alone(running):
    good = "|".join(GOOD)
    assert running.ask("orders", PEERS["web"], "POST", "/charge", good) == 200
    assert running.ask("orders", PEERS["web"], "POST", "/charge", "|".join((*GOOD[:3], "x,charge"))) == 200
    for name in set(PEERS) - {"web"}:
        assert running.ask("orders", PEERS[name], "POST", "/charge", good) == 403
    assert running.ask("orders", PEERS["web"], "POST", "/refund", good) == 403
    for audience in ("orders", "orders#refund"):
        refund = "|".join((*GOOD[:2], audience, "refund"))
        assert running.ask("orders", PEERS["web"], "POST", "/refund", refund) == 200


@pytest.mark.parametrize(
    "path",
    ["/orders/..%2fx", "/files/../x", "/files/%2e%2e/x", "/orders/..", "/orders/../../etc", "/files/..;/x"],
)
def test_a_path_that_climbs_out_is_not_let_through_as_it_came(running, path):
    """What is let through is a path of the policy after normalisation, or an encoded slash, which this policy accepts."""
    answer = running.ask("orders", PEERS["outside"], "GET", path)
    assert answer != 200 or "%2f" in path


@pytest.fixture(scope="module", params=MODES)
def asking(request, tmp_path_factory):
    target, ports = request.param, {"orders": free_port(), "payments": free_port()}
    policy = SHOP.replace(
        "payments: {namespace: pay,", f"payments: {{namespace: pay, port: {ports['payments']},"
    )
    policy = policy.replace(
        "  services:\n    payments:", f"  services:\n    orders: {{port: {ports['orders']}}}\n    payments:"
    )
    assert all(str(port) in policy for port in ports.values())
    names = [
        workload("orders", MODES[target] and "waypoint"),
        workload("payments", MODES[target] and "waypoint", "pay"),
    ]
    found = translated(compiled(target, policy).files, names, aliases=["old.example"])
    with pods(found["workloads"], tmp_path_factory.mktemp("envoy"), ports) as envoy:
        yield envoy


CHECKOUT = "spiffe://shop.example/ns/shop/sa/checkout"


def test_where_the_authorizer_is_asked_its_silence_refuses(asking):
    assert asking.ask("orders", CHECKOUT, "GET", "/orders") == 200  # a literal path: nobody is asked
    assert asking.ask("orders", CHECKOUT, "GET", "/orders/7") == 403
    assert asking.ask("payments", "spiffe://shop.example/ns/shop/sa/orders", "POST", "/v1/big") == 403


def test_an_alias_is_ours_and_another_trust_domain_is_not(asking):
    assert asking.ask("orders", CHECKOUT.replace("shop.example", "old.example"), "GET", "/orders") == 200
    assert asking.ask("orders", CHECKOUT.replace("shop.example", "new.example"), "GET", "/orders") == 403


def policies_for_bytes(target, name):
    asked = [workload(name, MODES[target] and "waypoint")]
    found = translated(compiled(target, SHOP).files, asked, aliases=["old.example"])
    (network,) = found["workloads"][name]["tcp"]
    rules = network["typedConfig"]["rules"]
    assert rules.get("action", "ALLOW") == "ALLOW"
    return {key.split("[")[2].partition("]")[0]: policy for key, policy in rules["policies"].items()}


@pytest.mark.parametrize(
    ("target", "denies"), [("istio", "everyhop-deny-all"), ("ambient", "everyhop-deny-waypoint")]
)
@pytest.mark.parametrize("name", ["orders", "db"])
def test_bytes_pass_at_the_port_of_a_tcp_service_alone_and_never_at_a_waypoint(name, target, denies):
    found = policies_for_bytes(target, name)
    nobody = found.pop(denies)
    assert nobody == {"permissions": [{"notRule": {"any": True}}], "principals": [{"notId": {"any": True}}]}
    assert set(found) == ({"allow-db"} if (name, target) == ("db", "istio") else set())
    assert all("5432" in str(policy["permissions"]) for policy in found.values())
