# SPDX-License-Identifier: Apache-2.0
"""Whoever is blocked is refused by Envoy itself: on open connections, before every rule, streams and tunnels included."""

import contextlib
import json
import socket
import ssl
import time

import pytest
from tests.integration.dataplane.conftest import POLICY
from tests.support.blocking import MeshBlocks, block_of
from tests.support.check_service import Checks
from tests.support.envoy_pair import (
    Mesh,
    exchange,
    free_port,
    problem,
    read_response,
    request_bytes,
    wait_for,
)
from tests.support.http2_client import Http2Client, StreamReset

from everyhop.anomaly.model import BlockMode

STOREFRONT = "identity:spiffe://shop.example/service/storefront"
ORDERS = "identity:spiffe://shop.example/service/orders"
UPGRADE = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]
GRPC = [("content-type", "application/grpc"), ("te", "trailers")]
FRAME = b"\0\0\0\0\x02hi"


@pytest.fixture(scope="module")
def domain():
    opened = "  - {from: outside, to: orders, operations: [list]}\ndeny:\n"
    policy = POLICY.replace("deny:\n", opened)
    with Mesh(policy) as mesh, Checks(mesh) as checks:
        mesh.checks = checks
        mesh.edge = ("127.0.0.1", free_port())
        mesh.sidecar("orders", edge=mesh.edge)
        mesh.sidecar("ledger")
        mesh.sidecar("storefront")
        mesh.blocks = MeshBlocks(mesh)
        yield mesh


@pytest.fixture
def mesh(domain):
    yield domain
    domain.blocks.put()
    for instance in domain.sidecars:
        wait_for(lambda name=instance: domain.blocks.confirmed(name))


def put(mesh, *blocks):
    """Block, and wait until every sidecar has confirmed it; return how long that took."""
    started = time.monotonic()
    mesh.blocks.put(*blocks)
    for instance in mesh.sidecars:
        wait_for(lambda name=instance: mesh.blocks.confirmed(name))
    return time.monotonic() - started


@contextlib.contextmanager
def unix(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        yield connection


def get(connection, path="/orders", **more):
    return exchange(connection, request_bytes("GET", path, **more))


# -- on open connections, at once


def test_the_next_request_of_an_open_connection_is_refused_and_of_another_caller_is_not(mesh):
    with (
        mesh.connect("orders", mesh.client("storefront")) as blocked,
        mesh.connect("orders", mesh.client("web")) as other,
    ):
        assert get(blocked)[0] == get(other)[0] == 200
        assert put(mesh, block_of(STOREFRONT, seconds=90)) < 1
        status, headers, body = get(blocked)
        assert status == 429
        assert 85 <= int(headers["retry-after"]) <= 91
        assert problem(body) == {
            "type": "about:blank",
            "title": "Blocked",
            "status": 429,
            "code": "BLOCKED",
            "decision": headers["x-everyhop-decision"],
        }
        assert headers["content-type"] == "application/problem+json"
        assert get(other)[0] == 200
        record = mesh.sidecars["orders"].record(headers["x-everyhop-decision"])
        assert (record.decision, record.reason, record.rule, record.status) == ("deny", "blocked", None, 429)
        assert record.detail["block"] == STOREFRONT
        assert record.snapshot == mesh.snapshot.hash
        put(mesh)
        assert get(blocked)[0] == 200


def test_so_is_the_next_stream_of_http2(mesh):
    """Of a caller who may keep nothing open: nobody's connection ends for it."""
    with contextlib.closing(
        Http2Client(mesh.connect("orders", mesh.client("stranger", alpn=("h2",))))
    ) as client:
        assert client.request("GET", "/healthz")[0] == 200
        put(mesh, block_of("identity:spiffe://shop.example/service/stranger"))
        status, headers, body, _ = client.request("GET", "/healthz")
        assert (status, problem(body)["code"]) == (429, "BLOCKED")
        assert int(headers["retry-after"]) > 3500
        put(mesh)
        assert client.request("GET", "/healthz")[0] == 200


def test_a_grpc_caller_is_told_to_come_back_later(mesh):
    put(mesh, block_of(STOREFRONT, seconds=None))
    with contextlib.closing(
        Http2Client(mesh.connect("orders", mesh.client("storefront", alpn=("h2",))))
    ) as client:
        status, headers, _, _ = client.request("POST", "/shop.v1.Orders/Watch", headers=GRPC, body=FRAME)
    assert (status, headers["grpc-status"]) == (200, "14")
    assert headers["retry-after"] == "86400"
    assert headers["x-everyhop-decision"]


def test_its_own_egress_refuses_and_records_it(mesh):
    put(mesh, block_of(STOREFRONT))
    with unix(mesh.sidecars["storefront"].sidecar.egress_socket) as connection:
        status, headers, body = get(connection)
    assert (status, problem(body)["code"]) == (429, "BLOCKED")
    record = mesh.sidecars["storefront"].record(headers["x-everyhop-decision"])
    assert (record.point, record.reason, record.detail["block"]) == ("egress", "blocked", STOREFRONT)
    assert (record.caller, record.target) == (mesh.spiffe_id("storefront"), "orders")


# -- before everything else, and not to be talked out of


@pytest.mark.parametrize("path", ["//orders", "/nothing", "/admin", "/orders/%2e%2e/admin", "/healthz"])
def test_a_blocked_caller_learns_nothing_of_the_policy(mesh, path):
    put(mesh, block_of(STOREFRONT))
    with mesh.connect("orders", mesh.client("storefront")) as connection:
        status, headers, body = get(connection, path)
    assert (status, problem(body)["code"]) == (429, "BLOCKED")
    assert mesh.sidecars["orders"].record(headers["x-everyhop-decision"]).reason == "blocked"


def test_no_header_makes_another_caller_of_it(mesh):
    put(mesh, block_of(STOREFRONT))
    web = mesh.spiffe_id("web")
    forged = (
        ("X-Everyhop-Caller", web),
        ("X-Forwarded-Client-Cert", f"URI={web}"),
        ("X-Forwarded-For", "203.0.113.9"),
        ("Retry-After", "0"),
        ("X-Everyhop-Decision", "00000000-0000-0000-0000-000000000000"),
    )
    with mesh.connect("orders", mesh.client("storefront")) as connection:
        status, headers, _ = get(connection, headers=forged)
    assert status == 429
    assert int(headers["retry-after"]) > 3500
    assert not headers["x-everyhop-decision"].startswith("00000000")


def test_a_like_named_caller_is_not_blocked(mesh):
    put(mesh, block_of(STOREFRONT), block_of("identity:spiffe://shop.example/service/we"))
    with mesh.connect("orders", mesh.client("web")) as connection:
        assert get(connection)[0] == 200


# -- what is open is cut


def is_open(connection, frame=b"ping"):
    try:
        connection.sendall(frame)
        return bool(connection.recv(100))
    except OSError:
        return False


def until_cut(connection):
    """Return how long it takes until the other side has ended a connection."""
    started = time.monotonic()
    connection.settimeout(5)
    with contextlib.suppress(ConnectionError):
        while connection.recv(1000):
            pass
    return time.monotonic() - started


def websocket(mesh, caller):
    connection = mesh.connect("orders", mesh.client(caller))
    connection.sendall(request_bytes("GET", "/live/1", headers=UPGRADE))
    assert read_response(connection)[0] == 101
    return connection


def test_an_open_websocket_is_cut_within_the_drain_time(mesh):
    with contextlib.closing(websocket(mesh, "storefront")) as connection:
        assert is_open(connection)
        mesh.blocks.put(block_of(STOREFRONT))
        assert until_cut(connection) < mesh.limits.drain + 0.5


def test_an_open_grpc_stream_is_cut_too(mesh):
    client = Http2Client(mesh.connect("orders", mesh.client("storefront", alpn=("h2",))))
    with contextlib.closing(client):
        head = [
            (":method", "POST"),
            (":path", "/shop.v1.Orders/Watch"),
            (":scheme", "https"),
            (":authority", "orders"),
        ]
        stream = client.open([*head, *GRPC])
        client.send(stream, FRAME)
        mesh.blocks.put(block_of(STOREFRONT))
        started = time.monotonic()
        with pytest.raises((StreamReset, ConnectionError)):
            client.response(stream)
        assert time.monotonic() - started < mesh.limits.drain + 0.5


def test_an_open_tcp_tunnel_is_cut_and_cannot_be_opened_again(mesh):
    path = mesh.sidecars["storefront"].sidecar.tcp_socket("ledger")
    with unix(path) as connection:
        assert is_open(connection)
        mesh.blocks.put(block_of(STOREFRONT))
        assert until_cut(connection) < mesh.limits.drain + 0.5
    with unix(path) as connection:
        assert not is_open(connection)
    put(mesh)
    with unix(path) as connection:
        assert is_open(connection)


def test_nobody_is_cut_by_the_end_of_a_block_or_by_a_block_of_one_who_may_not_stream(mesh):
    put(mesh, block_of(STOREFRONT))
    with contextlib.closing(websocket(mesh, "web")) as connection:
        put(mesh)
        put(
            mesh, block_of("identity:spiffe://shop.example/service/stranger"), block_of("address:203.0.113.7")
        )
        time.sleep(mesh.limits.drain + 0.5)
        assert is_open(connection)


# -- many, and at the edge


def edge(mesh, path="/orders"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(mesh.edge, timeout=5) as raw, context.wrap_socket(raw) as connection:
        status, headers, body = get(connection, path)
        return status, headers, json.loads(body)


def test_a_blocked_address_costs_the_agent_nothing(mesh):
    assert edge(mesh)[0] == 401
    mesh.checks.seen.clear()
    put(mesh, block_of("address:127.0.0.1", seconds=30), block_of("address:2001:db8::1"))
    for path in ("/orders", "/nothing", "//orders"):
        status, headers, body = edge(mesh, path)
        assert (status, body["code"]) == (429, "BLOCKED")
        assert 25 <= int(headers["retry-after"]) <= 31
        record = mesh.sidecars["orders"].record(headers["x-everyhop-decision"])
        assert (record.point, record.reason) == ("edge", "blocked")
        assert record.detail["block"] == "address:127.0.0.1"
    assert not mesh.checks.seen
    with mesh.connect("orders", mesh.client("storefront")) as connection:
        assert get(connection)[0] == 200  # peers inside are told by their identity, not by an address
    put(mesh, block_of("address:127.0.0.2"))
    assert edge(mesh)[0] == 401


def test_ten_thousand_blocks_are_looked_up_as_one(mesh):
    many = [block_of(f"identity:spiffe://shop.example/service/s{n}") for n in range(5_000)]
    many += [block_of(f"address:10.{n >> 8 & 255}.{n & 255}.1") for n in range(4_999)]
    put(mesh, *many, block_of(STOREFRONT))
    with (
        mesh.connect("orders", mesh.client("storefront")) as blocked,
        mesh.connect("orders", mesh.client("web")) as other,
    ):
        assert get(blocked)[0] == 429
        assert get(other)[0] == 200
    assert edge(mesh)[0] == 401


# -- restarts


def test_an_envoy_that_is_killed_refuses_from_its_first_request_on(mesh):
    put(mesh, block_of(STOREFRONT))
    running = mesh.sidecars["orders"]
    running.process.kill()
    running.process.wait()
    running.start().ready()

    def ask():
        with mesh.connect("orders", mesh.client("storefront")) as connection:
            return get(connection)[0]

    assert wait_for(ask) == 429


def test_without_the_agent_it_goes_on(mesh):
    put(mesh, block_of(STOREFRONT))
    mesh.call(mesh.stop_serving)
    try:
        with mesh.connect("orders", mesh.client("storefront")) as connection:
            assert get(connection)[0] == 429
    finally:
        mesh.call(mesh.serve)


def test_a_quarantined_sidecar_listens_to_nothing(mesh):
    put(mesh, block_of(ORDERS, mode=BlockMode.QUARANTINE))
    wait_for(lambda: _refuses(mesh.sidecars["orders"].sidecar.ingress))
    put(mesh)
    wait_for(lambda: not _refuses(mesh.sidecars["orders"].sidecar.ingress))
    with mesh.connect("orders", mesh.client("web")) as connection:
        assert get(connection)[0] == 200


def _refuses(address):
    try:
        with socket.create_connection(address, timeout=1):
            return False
    except OSError:
        return True
