# SPDX-License-Identifier: Apache-2.0
"""Conditions in running sidecars: edits under load, filters that Envoy rejects, connections to tcp services."""

import contextlib
import threading
import time

import pytest
from tests.support.deciding_agent import DecidingAgent
from tests.support.envoy_pair import Mesh, exchange, request_bytes, wait_for
from tests.support.http2_client import Http2Client, StreamReset

from everyhop.dataplane._protobuf import encode_message
from everyhop.dataplane.configuration import FILTER, ROUTES, Configuration, Resource, load_configuration
from everyhop.dataplane.files import write_files
from everyhop.dataplane.render import render_sidecar
from everyhop.policy import parse_policy

POLICY = """\
version: 1
trust_domain: shop.example
attributes: {request: {headers: [x-region]}}
services:
  storefront: {}
  orders: {operations: {list: GET /orders, admin: GET /admin}}
  ledger: {tcp: 5432}
allow:
  - {from: storefront, to: orders, operations: [list]@WHEN@}
  - {from: storefront, to: ledger@TCP@}
"""
EUROPE = "request.headers['x-region'] == 'eu'"
PLACES = {
    "open": "",
    "envoy": f', when: "{EUROPE}"',
    "agent": f", when: \"{EUROPE} && now.getHours('Europe/Paris') >= 0\"",
    "other envoy": f", when: \"now > timestamp('2020-01-01T00:00:00Z') && {EUROPE}\"",
}


def policy(place, *, tcp="", **changed):
    text = POLICY.replace("@WHEN@", PLACES[place]).replace("@TCP@", tcp)
    for old, new in changed.items():
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def mesh():
    with Mesh(policy("open")) as mesh, DecidingAgent(mesh, "orders") as agent:
        mesh.agent = agent
        agent.apply(mesh.snapshot)
        mesh.sidecar("orders")
        mesh.sidecar("ledger")
        yield mesh


@pytest.fixture(autouse=True)
def _opened(mesh):
    put(mesh, "open")


def put(mesh, place, *, wait=True, **changed):
    """Put a policy in force: first at the agent, then at the sidecars."""
    text = policy(place, **changed)
    mesh.agent.apply(parse_policy({"p.yaml": text.encode()}))
    mesh.apply(text)
    if wait:
        for name in ("orders", "ledger"):
            wait_for(lambda: mesh.secrets.configs.enforced(name) == mesh.snapshot.hash, what=name)  # noqa: B023


class Load:
    """Keeps asking for one path with one region over one connection; remembers every status."""

    def __init__(self, mesh, region, path="/orders"):
        self.mesh, self.answers, self.errors = mesh, [], []
        self._request = request_bytes("GET", path, headers=[("X-Region", region)])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            with self.mesh.connect("orders", self.mesh.client("storefront")) as connection:
                while not self._stop.is_set():
                    self.answers.append(exchange(connection, self._request)[0])
        except OSError as error:
            self.errors.append(error)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._stop.set()
        self._thread.join(10)


def ask(mesh, region):
    with mesh.connect("orders", mesh.client("storefront")) as connection:
        return exchange(connection, request_bytes("GET", "/orders", headers=[("X-Region", region)]))[0]


def test_no_edit_lets_a_call_pass_that_old_and_new_refuse(mesh):
    """Conditions move between Envoy and the agent; all of these policies refuse calls from elsewhere."""
    put(mesh, "envoy")
    asked = mesh.agent.asked
    with Load(mesh, "us") as refused, Load(mesh, "eu") as allowed, Load(mesh, "eu", "/admin") as unknown:
        for number in range(45):
            before = len(refused.answers)
            put(mesh, ("agent", "other envoy", "envoy")[number % 3], wait=number % 5 == 0)
            wait_for(lambda: len(refused.answers) > before + 1)  # noqa: B023
    assert set(refused.answers) == {403}
    assert set(unknown.answers) == {403}
    assert set(allowed.answers) == {200}
    assert not refused.errors + allowed.errors + unknown.errors
    assert mesh.agent.asked > asked


@pytest.mark.parametrize("place", ["envoy", "agent"])
def test_a_condition_on_an_open_edge_counts_on_open_connections_and_is_gone_when_it_goes(mesh, place):
    with Load(mesh, "us") as load, Load(mesh, "us", "/admin") as closed:
        for _ in range(10):
            put(mesh, place)
            wait_for(lambda: load.answers[-1:] == [403], seconds=2)
            before = len(load.answers)
            wait_for(lambda: len(load.answers) > before + 3)  # noqa: B023
            assert set(load.answers[before:]) == {403}
            put(mesh, "open")
            wait_for(lambda: load.answers[-1:] == [200], seconds=2)
    assert set(load.answers) == {200, 403}
    assert set(closed.answers) == {403}
    assert not load.errors


def conditioned_filter(expression):
    """An RBAC filter that lets everybody in where an expression holds."""
    kind = "type.googleapis.com/"
    allow = {"@type": kind + "envoy.config.rbac.v3.Action", "name": "x", "action": "ALLOW"}
    matcher = {
        "@type": kind + "xds.type.matcher.v3.CelMatcher",
        "expr_match": {"cel_expr_checked": {"expr": expression}},
    }
    attributes = {"@type": kind + "xds.type.matcher.v3.HttpAttributesCelMatchInput"}
    single = {
        "input": {"name": "i", "typed_config": attributes},
        "custom_match": {"name": "c", "typed_config": matcher},
    }
    entry = {
        "predicate": {"single_predicate": single},
        "on_match": {"action": {"name": "a", "typed_config": allow}},
    }
    rbac = {
        "@type": kind + "envoy.extensions.filters.http.rbac.v3.RBAC",
        "matcher": {"matcher_list": {"matchers": [entry]}},
    }
    return encode_message(
        "envoy.config.core.v3.TypedExtensionConfig", {"name": "authz", "typed_config": rbac}
    )


TRUE = {"id": "2", "const_expr": {"bool_value": True}}
REJECTED = {
    "unknown function": {"id": "1", "call_expr": {"function": "@open_sesame", "args": [TRUE]}},
    "expression too large": {
        "id": "1",
        "call_expr": {
            "function": "matches",
            "args": [
                {"id": "2", "const_expr": {"string_value": "a"}},
                {"id": "3", "const_expr": {"string_value": "(?:a|bc|def){90}"}},
            ],
        },
    },
    "no expression": {"id": "1"},
}


def published(mesh, target, content, *, without=()):
    """Publish another policy's configuration with a filter of ours; return what is in force."""
    snapshot = parse_policy({"p.yaml": policy("envoy").encode()})
    running = mesh.sidecars["orders"]
    directory = mesh.root / f"candidate-{time.monotonic()}"
    write_files(directory, render_sidecar(snapshot, running.sidecar, mesh.endpoints))
    loaded = load_configuration(directory)
    resources = {kind: dict(held) for kind, held in loaded.resources.items()}
    for kind, name in without:
        del resources[kind][name]
    resources[target[0]][target[1]] = Resource(f"bad-{len(content)}", content)
    configuration = Configuration(label=snapshot.hash, resources=resources)
    mesh.agent.apply(snapshot)
    mesh.call(mesh.secrets.configs.publish, "orders", configuration)
    return snapshot.hash


@pytest.mark.parametrize("name", sorted(REJECTED))
def test_a_condition_that_envoy_rejects_leaves_the_old_policy_whole(mesh, name):
    """The new routes would end the checks that the old filter counts on: they must not come without the new filter."""
    put(mesh, "agent")
    old = mesh.snapshot.hash
    assert (ask(mesh, "us"), ask(mesh, "eu")) == (403, 200)
    wanted = published(mesh, (FILTER, "authz"), conditioned_filter(REJECTED[name]))
    wait_for(lambda: "rejects its TypedExtensionConfig" in mesh.log.text, what="Envoy's refusal")
    with Load(mesh, "us") as refused:
        wait_for(lambda: len(refused.answers) > 20)
    assert set(refused.answers) == {403}
    assert ask(mesh, "eu") == 200
    assert mesh.secrets.configs.enforced("orders") == old != wanted


def test_routes_that_envoy_rejects_bring_no_filter_that_counts_on_them(mesh):
    put(mesh, "envoy")
    snapshot = parse_policy({"p.yaml": policy("agent").encode()})
    running = mesh.sidecars["orders"]
    directory = mesh.root / "candidate-routes"
    write_files(directory, render_sidecar(snapshot, running.sidecar, mesh.endpoints))
    loaded = load_configuration(directory)
    resources = {kind: dict(held) for kind, held in loaded.resources.items()}
    enabling = resources[ROUTES]["ingress"].content
    resources[ROUTES]["ingress"] = Resource("bad", enabling + b"\xff")
    mesh.agent.apply(snapshot)
    mesh.call(mesh.secrets.configs.publish, "orders", Configuration(label=snapshot.hash, resources=resources))
    wait_for(lambda: "rejects its RouteConfiguration" in mesh.log.text, what="Envoy's refusal")
    assert (ask(mesh, "us"), ask(mesh, "eu")) == (403, 200)
    assert mesh.secrets.configs.enforced("orders") == mesh.snapshot.hash


def test_a_sidecar_that_has_only_a_rejected_condition_lets_nobody_in(mesh):
    running = mesh.sidecar("orders", name="orders-2", ready=False)
    try:
        good = mesh.secrets.configs.published("orders-2")
        resources = {kind: dict(held) for kind, held in good.resources.items()}
        content = conditioned_filter(REJECTED["unknown function"])
        resources[FILTER]["authz"] = Resource("bad", content)
        mesh.call(
            mesh.secrets.configs.publish, "orders-2", Configuration(label=good.label, resources=resources)
        )
        wait_for(lambda: "sidecar orders-2 rejects" in mesh.log.text, what="Envoy's refusal")
        try:
            with mesh.connect("orders-2", mesh.client("storefront")) as connection:
                assert exchange(connection, request_bytes("GET", "/orders"))[0] == 403
        except OSError:
            assert running.admin("/ready")[0] != 200
        assert mesh.secrets.configs.enforced("orders-2") is None
    finally:
        mesh.sidecars.pop("orders-2").stop()


@pytest.mark.parametrize(
    ("when", "status", "reason"),
    [
        ("in_cidr(request.source_ip, '127.0.0.0/8')", 200, "allowed"),
        ("in_cidr(request.source_ip, '10.0.0.0/8')", 403, "condition-false"),
        ("now > timestamp('2020-01-01T00:00:00Z') && caller.name == 'storefront'", 200, "allowed"),
        ("now.getHours('UTC') > 23", 403, "condition-false"),
        ("now.getHours('Europe/Paris') >= 0", 403, "condition-error"),
    ],
)
def test_a_connection_to_a_tcp_service_is_decided_by_time_and_place(mesh, when, status, reason):
    put(mesh, "open", tcp=f', when: "{when}"')
    with contextlib.closing(
        Http2Client(mesh.connect("ledger", mesh.client("storefront", alpn=("h2",))))
    ) as client:
        stream = client.open([(":method", "CONNECT"), (":authority", "ledger:5432")])
        with contextlib.suppress(StreamReset):
            assert client.response(stream, until_data="head")[0] == status

    def recorded():
        lines = mesh.sidecars["ledger"].lines()
        return [r for r in lines if r.kind == "decision" and r.snapshot == mesh.snapshot.hash]

    record = wait_for(recorded, what="the record")[0]
    assert (record.reason, record.operation) == (reason, "tcp")
