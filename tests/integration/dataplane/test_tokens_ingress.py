# SPDX-License-Identifier: Apache-2.0
"""Credentials at a real ingress: when they are asked about, what is remembered, and that no failure opens a door."""

import asyncio
import json
import time

import pytest
from tests.support.check_service import Checks, passes, refuses
from tests.support.envoy_pair import Mesh, exchange, request_bytes, wait_for

from everyhop.dataplane import token_memory
from everyhop.dataplane._protobuf import encode_resource
from everyhop.dataplane.configuration import FILTER, Configuration, Resource
from everyhop.dataplane.enforcement import filter_file

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {}
  web: {}
  plain: {operations: {list: GET /orders}}
  orders:
    operations:
      list: GET /orders
      read: {route: "GET /orders/{id}", token: required}
      admin: {route: GET /admin, token: operation}
      pay: {route: POST /pay, token: required, once: true}
      mine: GET /mine
      maybe: GET /maybe
    probes: [GET /healthz]
allow:
  - {from: [storefront, web], to: orders, operations: [list, read, admin, pay]}
  - {from: storefront, to: orders, operations: [mine], user: required}
  - {from: storefront, to: orders, operations: [maybe], user: optional}
  - {from: storefront, to: plain, operations: all}
"""
READ = ("GET", "/orders/7")
TOKEN = ("Authorization", "Bearer one")
USER = ("Txn-Token", "of-somebody")


@pytest.fixture(scope="module")
def domain():
    with Mesh(POLICY) as mesh, Checks(mesh) as checks:
        mesh.sidecar("orders")
        mesh.sidecar("plain")
        mesh.checks = checks
        yield mesh


@pytest.fixture
def mesh(domain):
    """The sidecars, with nothing remembered."""
    domain.checks.answer = remembered()
    domain.epoch = str(time.monotonic())
    domain.apply(POLICY)
    wait_for(lambda: f"revocations {domain.epoch}" in dumped(domain))
    domain.checks.seen.clear()
    return domain


def dumped(mesh):
    return mesh.sidecars["orders"].admin("/config_dump?resource=ecds_filters")[1]


def remembered(seconds=60, **headers):
    """Let every call pass, and have it remembered."""
    shown = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: passes(shown, until=int(time.time()) + seconds, headers=shown)


class Client:
    """One connection of a caller; what it asks is told with how often the agent was asked about it."""

    def __init__(self, mesh, caller="storefront", target="orders"):
        self.mesh = mesh
        self.connection = mesh.connect(target, mesh.client(caller))

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.connection.close()

    def ask(self, call, *headers):
        """Return the status, what the application saw (or the problem), and the number of questions."""
        before = len(self.mesh.checks.seen)
        status, self.headers, body = exchange(self.connection, request_bytes(*call, headers=headers))
        return status, json.loads(body), len(self.mesh.checks.seen) - before

    def statuses(self, call, *headers, times=1):
        found = [self.ask(call, *headers) for _ in range(times)]
        return [status for status, _, _ in found], [asked for _, _, asked in found]


def seen_by_application(body, name):
    return [value for key, value in body["headers"] if key == name]


def test_what_needs_nothing_is_not_asked_about_and_carries_no_user(mesh):
    with Client(mesh) as client:
        for call in (("GET", "/orders"), ("GET", "/healthz")):
            status, body, asked = client.ask(call, TOKEN, USER)
            assert (status, asked) == (200, 0)
            assert seen_by_application(body, "txn-token") == []
            assert seen_by_application(body, "authorization") == ["Bearer one"]
    with Client(mesh, target="plain") as client:
        status, body, asked = client.ask(("GET", "/orders"), TOKEN, USER)
        assert (status, asked, seen_by_application(body, "txn-token")) == (200, 0, [])


def test_a_call_is_asked_about_once(mesh):
    with Client(mesh) as client:
        assert client.statuses(READ, TOKEN, times=3) == ([200] * 3, [1, 0, 0])
        assert client.statuses(READ, ("Authorization", "Bearer two"), times=2) == ([200] * 2, [1, 0])
        assert client.statuses(("GET", "/admin"), TOKEN, times=2) == ([200] * 2, [1, 0])
        assert client.statuses(("GET", "/mine"), USER, times=2) == ([200] * 2, [1, 0])
        assert client.statuses(("GET", "/mine"), ("Txn-Token", "other"), times=2) == ([200] * 2, [1, 0])


def test_the_question(mesh):
    with Client(mesh) as client:
        client.ask(READ, TOKEN, USER, ("Cookie", "a=b"))
        (question,) = mesh.checks.seen
        assert question.point == ("ingress",)
        assert question.instance == ("orders",)
        assert question.principal == mesh.spiffe_id("storefront")
        assert question.destination == mesh.spiffe_id("orders")
        assert question.certificate.startswith("-----BEGIN%20CERTIFICATE-----")
        assert question.rbac["shadow_effective_policy_id"] == "read"
        assert question.rbac["enforced_effective_policy_id"].endswith("|allowed+s|allow[0]")
        names = {name for name, _ in question.headers}
        assert names == {
            "authorization",
            "x-everyhop-decision",
        }  # no user is believed here: it is gone already


def test_another_certificate_and_another_caller_are_asked_about_anew(mesh):
    for caller in ("storefront", "storefront", "web"):
        with Client(mesh, caller) as client:
            assert client.statuses(READ, TOKEN, times=2) == ([200] * 2, [1, 0])


def test_single_use_is_asked_about_each_time(mesh):
    with Client(mesh) as client:
        assert client.statuses(("POST", "/pay"), TOKEN, times=3) == ([200] * 3, [1, 1, 1])


def test_a_user_that_is_optional(mesh):
    with Client(mesh) as client:
        assert client.statuses(("GET", "/maybe"), times=2) == ([200] * 2, [0, 0])
        status, body, asked = client.ask(("GET", "/maybe"), USER)
        assert (status, asked, seen_by_application(body, "txn-token")) == (200, 1, ["of-somebody"])
        mesh.checks.answer = lambda _: refuses(401, "USER_REQUIRED")
        assert client.statuses(("GET", "/mine"), times=2) == ([401] * 2, [1, 1])


def test_headers_of_the_answer_reach_the_application_also_from_memory(mesh):
    mesh.checks.answer = remembered(x_everyhop_user="u%C3%A4", x_everyhop_roles="a,b")
    forged = (("X-Everyhop-User", "root"), ("X-Everyhop-Roles", "admin"))
    with Client(mesh) as client:
        for asked in (1, 0, 0):
            status, body, found = client.ask(("GET", "/mine"), USER, *forged)
            assert (status, found) == (200, asked)
            assert seen_by_application(body, "x-everyhop-user") == ["u%C3%A4"]
            assert seen_by_application(body, "x-everyhop-roles") == ["a,b"]
        decision = client.headers["x-seen-decision"]
        assert mesh.sidecars["orders"].record(decision).detail["user"] == "u%C3%A4"
        status, body, _ = client.ask(("GET", "/orders"), *forged)
        assert seen_by_application(body, "x-everyhop-user") == []


def test_memory_sets_no_other_header(mesh):
    mesh.checks.answer = lambda _: passes(until=int(time.time()) + 60, headers={"x-other": "1"})
    with Client(mesh) as client:
        for _ in range(2):
            assert seen_by_application(client.ask(READ, TOKEN)[1], "x-other") == []


def test_what_is_remembered_ends(mesh):
    mesh.checks.answer = remembered(2)
    with Client(mesh) as client:
        assert client.statuses(READ, TOKEN, times=2) == ([200] * 2, [1, 0])
        time.sleep(2.05)
        assert client.statuses(READ, TOKEN) == ([200], [1])
        mesh.checks.answer = lambda _: passes()
        assert client.statuses(READ, ("Authorization", "Bearer two"), times=2) == ([200] * 2, [1, 1])
        mesh.checks.answer = lambda _: passes(until="tomorrow")
        assert client.statuses(READ, ("Authorization", "Bearer 3"), times=2) == ([200] * 2, [1, 1])


def test_a_refusal_is_an_answer_a_record_and_not_remembered(mesh):
    mesh.checks.answer = lambda _: refuses(403, "INSUFFICIENT_SCOPE", "Insufficient scope")
    with Client(mesh) as client:
        status, body, asked = client.ask(READ, TOKEN)
        assert (status, asked) == (403, 1)
        decision = client.headers["x-everyhop-decision"]
        assert body == {
            "type": "about:blank",
            "title": "Insufficient scope",
            "status": 403,
            "code": "INSUFFICIENT_SCOPE",
            "decision": decision,
        }
        assert client.headers["content-type"] == "application/problem+json"
        assert client.headers["www-authenticate"] == 'Bearer realm="everyhop"'
        record = mesh.sidecars["orders"].record(decision)
        assert (record.decision, record.reason, record.status) == ("deny", "INSUFFICIENT_SCOPE", 403)
        assert (record.rule, record.operation) == ("allow[0]", "read")
        assert record.caller == mesh.spiffe_id("storefront")
        mesh.checks.answer = remembered()
        assert client.statuses(READ, TOKEN) == ([200], [1])


@pytest.mark.parametrize("name", ["Authorization", "Txn-Token"])
def test_two_of_a_kind_are_shown_as_two(mesh, name):
    call = READ if name == "Authorization" else ("GET", "/mine")
    with Client(mesh) as client:
        client.ask(call, (name, "one"), (name.lower(), "two"))
        shown = mesh.checks.seen[-1].all(name.lower())
        assert shown in ([["one,two"], ["one", "two"]])  # never only one of them
        assert client.statuses(call, (name, "one")) == ([200], [1])


def test_without_the_agent_only_what_is_remembered_goes_on(mesh):
    mesh.checks.answer = remembered(3)
    with Client(mesh) as client:
        assert client.statuses(READ, TOKEN, times=2) == ([200] * 2, [1, 0])
        mesh.call(mesh.checks.stop)
        try:
            assert client.statuses(READ, TOKEN) == ([200], [0])
            assert client.statuses(("GET", "/orders")) == ([200], [0])
            status, body, _ = client.ask(READ, ("Authorization", "Bearer new"))
            assert (status, body["code"]) == (503, "CHECK_UNAVAILABLE")
            record = mesh.sidecars["orders"].record(client.headers["x-everyhop-decision"])
            assert (record.decision, record.reason) == ("deny", "CHECK_UNAVAILABLE")
            time.sleep(3)
            assert client.statuses(READ, TOKEN) == ([503], [0])
        finally:
            mesh.call(mesh.checks.start)
        wait_for(lambda: client.statuses(READ, TOKEN) == ([200], [1]))


def test_an_answer_that_takes_too_long_is_none(mesh):
    async def late(_):
        await asyncio.sleep(3)
        return passes()

    mesh.checks.answer = late
    with Client(mesh) as client:
        assert client.statuses(READ, TOKEN)[0] == [503]


def test_a_new_epoch_empties_the_memory_within_a_second(mesh):
    with Client(mesh) as client:
        assert client.statuses(READ, TOKEN, times=2) == ([200] * 2, [1, 0])
        mesh.checks.answer = lambda _: refuses(401, "TOKEN_REVOKED")
        assert client.statuses(READ, TOKEN) == ([200], [0])
        mesh.epoch += "-next"
        began = time.monotonic()
        mesh.apply()
        wait_for(lambda: client.statuses(READ, TOKEN)[0] == [401], seconds=1)
        assert time.monotonic() - began < 1


def test_a_new_policy_empties_the_memory(mesh):
    with Client(mesh) as client:
        assert client.statuses(READ, TOKEN, times=2) == ([200] * 2, [1, 0])
        mesh.apply(POLICY.replace("probes: [GET /healthz]", "probes: [GET /health]"))
        wait_for(lambda: client.ask(("GET", "/health"))[0] == 200)
        wait_for(lambda: mesh.secrets.configs.enforced("orders") == mesh.snapshot.hash)
        assert client.statuses(READ, TOKEN, times=2) == ([200] * 2, [1, 0])


def test_a_requirement_comes_and_goes_on_an_open_connection(mesh):
    mesh.checks.answer = lambda _: refuses(401, "MISSING_TOKEN")
    plain = ("GET", "/orders")
    with Client(mesh, target="plain") as client:
        assert client.statuses(plain) == ([200], [0])
        mesh.apply(POLICY.replace("{list: GET /orders}", "{list: {route: GET /orders, token: required}}"))
        wait_for(lambda: client.statuses(plain)[0] == [401], seconds=1)
        mesh.apply(POLICY)
        wait_for(lambda: client.statuses(plain)[0] == [200], seconds=1)


BROKEN = {
    "no program": "",
    "nonsense": "this is not lua",
    "fails at load": "error('no')",
    "fails on each call": "function envoy_on_request(handle) error('no') end",
    "fails after it said so elsewhere": "function envoy_on_request(handle)\n"
    "handle:streamInfo():dynamicMetadata():set('everyhop', 'okay', true)\nlocal x = nil + 1\nend",
    "says it in another type": "function envoy_on_request(handle)\n"
    "handle:streamInfo():dynamicMetadata():set('everyhop', 'ok', 'true')\nend",
}


@pytest.mark.parametrize("program", BROKEN.values(), ids=BROKEN)
def test_a_broken_memory_opens_no_door(mesh, program):
    running = mesh.sidecars["orders"]
    mesh.checks.answer = lambda _: refuses(401, "MISSING_TOKEN")
    configs = mesh.secrets.configs
    good = configs.published("orders")
    resources = {kind: dict(found) for kind, found in good.resources.items()}
    (resource,) = filter_file("memory", token_memory.program(program), "x")["resources"]
    resources[FILTER]["memory"] = Resource(f"broken-{hash(program)}", encode_resource(resource)[1])
    mesh.call(configs.publish, "orders", Configuration(label="c" * 64, resources=resources))
    time.sleep(0.2)
    with Client(mesh) as client:
        for call in (READ, ("GET", "/admin"), ("POST", "/pay"), ("GET", "/mine")):
            assert client.statuses(call, TOKEN, USER, times=2) == ([401] * 2, [1, 1])
    assert running.process.poll() is None


def test_the_memory_is_bounded(mesh, monkeypatch):
    monkeypatch.setattr(token_memory, "MAX_REMEMBERED", 4)
    mesh.epoch += "-small"
    mesh.apply()
    wait_for(lambda: "-small" in dumped(mesh))
    with Client(mesh) as client:
        tokens = [("Authorization", f"Bearer {number}") for number in range(12)]
        for token in tokens:
            assert client.statuses(READ, token, times=2) == ([200] * 2, [1, 0])
        asked = [client.statuses(READ, token)[1][0] for token in tokens]
        assert asked[0] == 1
        long = ("Authorization", "Bearer " + "x" * 9000)
        assert client.statuses(READ, long, times=2) == ([200] * 2, [1, 1])


def test_no_credential_is_in_the_log_or_the_dump(mesh):
    secret = "Bearer s3cr3t-of-a-caller"
    with Client(mesh) as client:
        client.statuses(READ, ("Authorization", secret), ("Txn-Token", "s3cr3t-of-a-user"), times=2)
        client.statuses(("GET", "/mine"), ("Txn-Token", "s3cr3t-of-a-user"), times=2)
    running = mesh.sidecars["orders"]
    time.sleep(0.1)
    for text in (running.sidecar.access_log.read_text(), running.output(), running.admin("/config_dump")[1]):
        assert "s3cr3t-of-a" not in text
