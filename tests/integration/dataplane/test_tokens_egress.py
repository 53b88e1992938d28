# SPDX-License-Identifier: Apache-2.0
"""Tokens on their way out: the right one for each operation, and always with the certificate that it is bound to."""

import json
import socket
import threading
import time
from collections import Counter

import pytest
from tests.integration.dataplane.test_config_dump import runs_what_its_files_say
from tests.support.check_service import Checks, passes, refuses
from tests.support.envoy_pair import Mesh, SpiffeId, exchange, request_bytes, wait_for
from tests.support.held_tokens import HeldTokens, judge

from everyhop.dataplane import ads

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {}
  orders:
    operations:
      list: GET /orders
      read: {route: "GET /orders/{id}", token: required}
      special: GET /orders/special
      admin: {route: GET /admin, token: operation}
      pay: {route: POST /pay, token: required, once: true}
      live: {websocket: "/live/{room}", token: required}
    probes: [GET /healthz]
allow:
  - {from: storefront, to: orders, operations: all}
"""
UPGRADE = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]
READ, ADMIN, PAY = ("GET", "/orders/7"), ("GET", "/admin"), ("POST", "/pay")


class Domain:
    """A caller and a callee, tokens held for the caller, and the check of them at the callee."""

    def __init__(self, mesh, checks, tokens):
        self.mesh, self.checks, self.tokens = mesh, checks, tokens
        tokens.mesh = mesh
        self.caller = SpiffeId.parse(mesh.spiffe_id("storefront"))
        mesh.call(mesh.identities.hold, self.caller)
        wait_for(lambda: mesh.call(mesh.identities.current, self.caller))
        self.certificates = [mesh.call(mesh.identities.current, self.caller).x5t]
        self.refused = Counter()
        checks.answer = self.answer
        mesh.sidecar("orders")
        mesh.sidecar("storefront")

    def answer(self, request):
        if request.point == ("ingress",):
            judged = judge(request)
            if judged.status.code:
                self.refused[judged.dynamic_metadata["code"]] += 1
            return judged
        x5t = next(c for c in self.certificates if c.startswith(request.extensions["generation"]))
        token = self.tokens.token_for(self.caller, request.extensions["target"], None, x5t)
        return passes({"authorization": f"Bearer {token}"})

    def connect(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(5)
        connection.connect(str(self.mesh.sidecars["storefront"].sidecar.egress_socket))
        return connection

    def call(self, call, *headers):
        """Return the status and what the application saw, or the problem."""
        with self.connect() as connection:
            status, _, body = exchange(connection, request_bytes(*call, headers=headers))
        return status, json.loads(body)

    def token(self, call, *headers):
        """Return the Authorization headers that the application got."""
        status, body = self.call(call, *headers)
        assert status == 200, body
        return [value for name, value in body["headers"] if name == "authorization"]

    def held(self, operation="-", x5t=None):
        x5t = x5t or self.certificates[-1]
        return [f"Bearer storefront.orders.{operation}.{x5t}.{self.tokens.serial}"]

    def rotate(self):
        """Give the caller another certificate, with tokens of its own."""
        self.certificates.append(self.mesh.renew("storefront").x5t)
        self.mesh.apply()

    def refresh(self):
        """Renew the tokens of the certificate in use."""
        self.tokens.serial += 1
        self.mesh.call(self.mesh.changes.bump)

    def clusters(self):
        lines = self.mesh.sidecars["storefront"].admin("/clusters")[1].splitlines()
        return {line.partition("::")[0] for line in lines if line.startswith("to-")}


@pytest.fixture(scope="module")
def domain():
    tokens = HeldTokens()
    with Mesh(POLICY, tokens=tokens) as mesh, Checks(mesh) as checks:
        yield Domain(mesh, checks, tokens)


def test_each_operation_gets_its_token(domain):
    assert domain.token(("GET", "/orders")) == []
    assert domain.token(("GET", "/orders/special")) == []
    assert domain.token(("GET", "/healthz")) == []
    assert domain.token(READ) == domain.held()
    assert domain.token(ADMIN) == domain.held("admin")
    assert domain.token(PAY) == domain.held()


def test_envoy_runs_what_the_files_say(domain):
    for running in domain.mesh.sidecars.values():
        runs_what_its_files_say(running)


def test_an_authorization_of_the_application(domain):
    own = ("Authorization", "Basic b3du")
    assert domain.token(("GET", "/orders"), own) == ["Basic b3du"]
    for call in (READ, PAY):
        assert domain.token(call, own, ("authorization", "Bearer other")) == domain.held()
    assert domain.token(ADMIN, own) == domain.held("admin")


def test_what_describes_the_call_passes(domain):
    told = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=1,b=2"}
    _, body = domain.call(READ, *told.items())
    seen = dict(body["headers"])
    assert {name: seen[name] for name in told} == told


def test_single_use_is_fetched_for_each_call(domain):
    before = len(domain.checks.seen)
    for _ in range(3):
        domain.token(PAY)
    asked = [request for request in domain.checks.seen[before:] if request.point == ("egress",)]
    assert len(asked) == 3
    assert {(r.extensions["target"], r.extensions["operation"]) for r in asked} == {("orders", "pay")}
    assert {r.instance for r in asked} == {("storefront",)}


def test_when_no_single_token_is_to_be_had(domain):
    domain.checks.answer = lambda _: refuses(503, "UNAVAILABLE")
    try:
        status, body = domain.call(PAY)
        assert (status, body["code"]) == (503, "UNAVAILABLE")
    finally:
        domain.checks.answer = domain.answer


def test_a_token_that_is_not_there(domain):
    domain.tokens.missing = {("orders", None)}
    domain.mesh.apply()
    try:
        wait_for(lambda: domain.call(READ)[0] == 503)
        _, body = domain.call(READ)
        assert body["code"] == "TOKEN_UNAVAILABLE"
        record = domain.mesh.sidecars["storefront"].record(body["decision"])
        assert (record.decision, record.reason, record.target) == ("deny", "TOKEN_UNAVAILABLE", "orders")
        assert domain.token(ADMIN) == domain.held("admin")
        assert domain.token(("GET", "/orders")) == []
    finally:
        domain.tokens.missing = set()
        domain.mesh.apply()
    wait_for(lambda: domain.call(READ)[0] == 200)


def test_a_renewed_token_arrives_in_the_cluster_that_carries_it(domain):
    before = domain.clusters()
    domain.refresh()
    wait_for(lambda: domain.token(READ) == domain.held(), seconds=1)
    wait_for(lambda: domain.token(ADMIN) == domain.held("admin"), seconds=1)
    assert domain.clusters() == before


def test_until_its_tokens_are_there_the_new_certificate_is_not_shown(domain):
    shown = domain.mesh.call(domain.mesh.identities.current, domain.caller)
    domain.tokens.shown = {str(domain.caller): shown}
    try:
        domain.certificates.append(domain.mesh.renew("storefront").x5t)
        domain.mesh.apply()
        for call in (READ, ADMIN, PAY):
            assert domain.call(call)[0] == 200
        assert domain.token(READ) == domain.held(x5t=shown.x5t)
    finally:
        domain.tokens.shown = {}
    domain.mesh.apply()
    wait_for(lambda: domain.token(READ) == domain.held())


class Load:
    """Calls over one connection until told to stop; counts what came back."""

    def __init__(self, domain, call):
        self.answers, self.errors = Counter(), []
        self._domain, self._call = domain, call
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            with self._domain.connect() as connection:
                while not self._stop.is_set():
                    self.answers[exchange(connection, request_bytes(*self._call))[0]] += 1
        except OSError as error:
            self.errors.append(error)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._stop.set()
        self._thread.join(10)


def test_20_rotations_and_renewals_fail_no_call_and_end_no_stream(domain, monkeypatch):
    monkeypatch.setattr(ads, "_LINGER_SECONDS", 0.5)
    calls = [READ, ADMIN, PAY, ("GET", "/orders"), ("GET", "/orders/slow")]
    loads = [Load(domain, call) for call in calls]
    domain.refused.clear()
    with domain.connect() as stream:
        stream.sendall(request_bytes("GET", "/live/1", headers=UPGRADE))
        assert stream.recv(4096).startswith(b"HTTP/1.1 101")
        for load in loads:
            load.__enter__()
        for _ in range(20):
            domain.rotate()
            time.sleep(0.1)
            domain.refresh()
            time.sleep(0.1)
        for load in loads:
            load.__exit__()
        wait_for(lambda: len({name.rpartition("@")[2] for name in domain.clusters() if "@" in name}) == 1)
        stream.sendall(b"still here")
        assert stream.recv(4096) == b"ws:still here"
    assert [load.errors for load in loads] == [[]] * 5
    assert [set(load.answers) for load in loads] == [{200}] * 5
    assert min(sum(load.answers.values()) for load in loads[:4]) > 200
    assert not domain.refused
    assert domain.token(READ) == domain.held()


def test_the_agent_restarts_between_two_certificates(domain):
    domain.mesh.call(domain.mesh.stop_serving)
    try:
        assert domain.token(READ) == domain.held()
    finally:
        domain.mesh.call(domain.mesh.serve)
    domain.rotate()
    wait_for(lambda: domain.token(READ) == domain.held())
    assert domain.call(ADMIN)[0] == domain.call(PAY)[0] == 200


def test_a_sidecar_that_starts_with_tokens_has_them_from_its_first_call_on(domain):
    running = domain.mesh.sidecar("storefront", app=False, name="second")
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(running.sidecar.egress_socket))
            assert exchange(connection, request_bytes(*READ))[0] == 200
    finally:
        running.stop()
        del domain.mesh.sidecars["second"]


def test_a_stolen_token_is_worth_nothing_with_another_certificate(domain):
    stolen = ("Authorization", domain.held()[0])
    for caller in ("storefront", "orders"):
        with domain.mesh.connect("orders", domain.mesh.client(caller)) as connection:
            status, _, body = exchange(connection, request_bytes(*READ, headers=[stolen]))
        expected = (401, "BINDING_MISMATCH") if caller == "storefront" else (403, "ACCESS_DENIED")
        assert (status, json.loads(body)["code"]) == expected


def test_no_token_is_in_a_file_or_a_dump(domain):
    running = domain.mesh.sidecars["storefront"]
    domain.token(READ)
    mark = f"storefront.orders.-.{domain.certificates[-1]}"
    for path in running.sidecar.directory.rglob("*.json"):
        assert mark not in path.read_text()
    time.sleep(0.1)
    texts = [running.sidecar.access_log.read_text(), running.output(), running.admin("/config_dump")[1]]
    texts.append(running.admin("/config_dump?include_eds")[1])
    assert not [text for text in texts if mark in text]
