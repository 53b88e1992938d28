# SPDX-License-Identifier: Apache-2.0
"""What callers see and how they call."""

import pytest
from tests.support.compiled import compiled

POLICY = """
services:
  a: {operations: {x: GET /}}
  b: {operations: {x: GET /}}
  slow: {operations: {x: GET /}}
  db: {tcp: 5432}
allow:
  - {from: a, to: slow, operations: all}
  - {from: slow, to: db}
  - {from: b, to: a, operations: all, user: required, when: user.level > 2}
attributes: {user: {level: int}}
targets:
  namespace: shop
  cluster_domain: corp.local
  services:
    slow: {namespace: back, timeout: 5s, retries: 3}
    a: {retries: 0}
    db: {timeout: 9s}
  egress:
    bank: {host: api.bank.example, port: 8443, from: [a, slow]}
"""


@pytest.fixture(scope="module")
def made():
    return compiled("istio", POLICY)


def seen(made, name):
    return made.spec("Sidecar", f"service-{name}")["egress"][0]["hosts"]


def test_a_caller_sees_nothing_that_it_may_not_call(made):
    assert seen(made, "a") == ["back/slow.back.svc.corp.local", "./api.bank.example", "istio-system/*"]
    assert seen(made, "db") == ["istio-system/*"]


def test_a_door_that_stays_shut_is_not_seen_either(made):
    assert "istio.condition" in made.errors
    assert seen(made, "b") == ["istio-system/*"]


def test_who_asks_the_authorizer_sees_it_and_nobody_else():
    authorizer = "authorizer.everyhop.svc.corp.local"
    asking = compiled(
        "istio",
        POLICY
        + f"  tokens: {{issuer: 'https://i.x', jwks_uri: 'https://i.x/k'}}\n  istio: {{authorizer: e, authorizer_host: {authorizer}}}\n",
    )
    assert f"*/{authorizer}" in seen(asking, "a")  # a call of it has a condition
    assert not any(authorizer in host for name in ("b", "slow", "db") for host in seen(asking, name))


def test_what_is_not_registered_is_not_reached(made):
    for one in made.all("Sidecar"):
        assert one["spec"]["outboundTrafficPolicy"] == {"mode": "REGISTRY_ONLY"}
        assert one["spec"]["workloadSelector"]["labels"]
    assert "istio.egress" in made.warnings


def test_an_egress_host_is_seen_in_the_namespaces_of_its_callers_alone(made):
    found = {one["metadata"]["namespace"]: one["spec"] for one in made.all("ServiceEntry")}
    assert set(found) == {"shop", "back"}
    assert found["shop"]["exportTo"] == ["."]
    assert found["shop"]["hosts"] == ["api.bank.example"]
    assert found["shop"]["ports"] == [{"number": 8443, "name": "tls", "protocol": "TLS"}]
    assert not any("bank" in host for host in seen(made, "b"))


def test_nothing_is_sent_twice_that_an_application_may_have_seen(made):
    (http,) = made.spec("VirtualService", "service-slow")["http"]
    assert http["timeout"] == "5s"
    assert http["retries"] == {"attempts": 3, "retryOn": "connect-failure,refused-stream"}
    (none,) = made.spec("VirtualService", "service-a")["http"]
    assert none["retries"] == {"attempts": 0}


def test_bytes_have_no_timeout_and_who_says_nothing_gets_no_routes(made):
    assert made.spec("VirtualService", "service-db") is None
    assert made.spec("VirtualService", "service-b") is None


def test_every_service_is_called_with_mutual_tls(made):
    found = {one["spec"]["host"]: one["spec"]["trafficPolicy"] for one in made.all("DestinationRule")}
    assert set(found) == {f"{n}.shop.svc.corp.local" for n in ("a", "b", "db")} | {"slow.back.svc.corp.local"}
    assert all(policy == {"tls": {"mode": "ISTIO_MUTUAL"}} for policy in found.values())


def test_a_timeout_alone_leaves_retries_to_the_mesh():
    made = compiled("istio", POLICY.replace("timeout: 5s, retries: 3", "timeout: 5s"))
    (http,) = made.spec("VirtualService", "service-slow")["http"]
    assert http["timeout"] == "5s"
    assert "retries" not in http
