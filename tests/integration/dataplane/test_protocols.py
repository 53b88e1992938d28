# SPDX-License-Identifier: Apache-2.0
"""gRPC with trailers, WebSocket only where declared, tcp, and an application that comes and goes."""

import contextlib
import json
import socket

import pytest
from tests.support.envoy_pair import exchange, problem, read_response, request_bytes, wait_for
from tests.support.http2_client import Http2Client, StreamReset

UPGRADE = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
]
GRPC = [("content-type", "application/grpc"), ("te", "trailers")]
FRAME = b"\0\0\0\0\x02hi"


@contextlib.contextmanager
def unix(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        yield connection


def egress(mesh):
    return unix(mesh.sidecars["storefront"].sidecar.egress_socket)


def http2(mesh, caller):
    return contextlib.closing(Http2Client(mesh.connect("orders", mesh.client(caller, alpn=("h2",)))))


# --- gRPC


def test_grpc_end_to_end_keeps_trailers(mesh):
    with egress(mesh) as connection:
        client = Http2Client(connection)
        status, headers, body, trailers = client.request(
            "POST", "/shop.v1.Orders/Watch", headers=GRPC, body=FRAME, scheme="http"
        )
    assert (status, headers["content-type"]) == (200, "application/grpc")
    seen = json.loads(body[5:])
    assert seen["body"] == FRAME.decode("latin-1")
    assert dict(seen["headers"])["x-everyhop-operation"] == "watch"
    assert trailers == {"grpc-status": "0", "x-trailer": "kept"}
    assert "POST /shop.v1.Orders/Watch HTTP/2" in mesh.apps["orders"].seen


@pytest.mark.parametrize(
    "path", ["/shop.v1.Admin/Drop", "/shop.v1.Orders/Other", "/shop.v1.Orders/watch", "/orders"]
)
def test_grpc_refusals_are_permission_denied(mesh, path):
    before = list(mesh.apps["orders"].seen)
    with http2(mesh, "storefront") as client:
        status, headers, _, _ = client.request(
            "POST" if path != "/orders" else "PUT", path, headers=GRPC, body=FRAME
        )
    assert (status, headers["grpc-status"]) == (200, "7")
    assert "x-everyhop-decision" in headers
    assert mesh.apps["orders"].seen == before


def test_grpc_with_an_ambiguous_path_is_refused(mesh):
    with http2(mesh, "storefront") as client:
        status, headers, _, _ = client.request("POST", "/shop.v1.Orders//Watch", headers=GRPC, body=FRAME)
    assert status == 200
    assert headers["grpc-status"] not in {"0", None}


def test_a_grpc_content_type_does_not_change_the_decision(mesh):
    with http2(mesh, "storefront") as client:
        assert client.request("GET", "/admin", headers=GRPC)[1]["grpc-status"] == "7"


# --- WebSocket


def test_a_websocket_through_both_sidecars(mesh):
    with egress(mesh) as connection:
        connection.sendall(request_bytes("GET", "/live/room-1", headers=UPGRADE))
        head = connection.recv(4096)
        assert head.startswith(b"HTTP/1.1 101")
        connection.sendall(b"frame")
        assert connection.recv(100) == b"ws:frame"
        records = wait_for(lambda: [r for r in mesh.sidecars["orders"].lines() if r.path == "/live/room-1"])
        assert [(r.kind, r.decision, r.operation) for r in records] == [("decision", "allow", "live")]
    closed = wait_for(
        lambda: [
            r for r in mesh.sidecars["orders"].lines() if r.path == "/live/room-1" and r.kind == "lifecycle"
        ]
    )
    assert closed[0].detail["decision"] == records[0].id


@pytest.mark.parametrize("path", ["/orders", "/live/info", "/public/x", "/healthz"])
def test_no_upgrade_where_none_is_declared(mesh, path):
    before = list(mesh.apps["orders"].seen)
    with mesh.connect("orders", mesh.client("storefront")) as connection:
        status, headers, body = exchange(connection, request_bytes("GET", path, headers=UPGRADE))
    assert (status, problem(body)["code"]) == (403, "ACCESS_DENIED")
    assert mesh.apps["orders"].seen == before
    record = mesh.sidecars["orders"].record(headers["x-everyhop-decision"])
    assert (record.decision, record.reason) == ("deny", "unknown-operation")


@pytest.mark.parametrize("value", ["foo", "h3", "TLS/1.0", "websocket, foo"])
def test_other_upgrades_are_refused_even_there(mesh, value):
    headers = [("Connection", "Upgrade"), ("Upgrade", value)]
    with mesh.connect("orders", mesh.client("storefront")) as connection:
        assert exchange(connection, request_bytes("GET", "/live/room", headers=headers))[0] == 403


def test_a_websocket_needs_permission(mesh):
    before = list(mesh.apps["orders"].seen)
    with mesh.connect("orders", mesh.client("stranger")) as connection:
        status, _, body = exchange(connection, request_bytes("GET", "/live/room", headers=UPGRADE))
    assert (status, problem(body)["code"]) == (403, "ACCESS_DENIED")
    assert mesh.apps["orders"].seen == before


@pytest.mark.parametrize("protocol", ["connect-udp", "connect-ip", "x"])
def test_other_extended_connects_are_refused(mesh, protocol):
    with http2(mesh, "storefront") as client:
        stream = client.open(
            [
                (":method", "CONNECT"),
                (":protocol", protocol),
                (":scheme", "https"),
                (":path", "/live/r"),
                (":authority", "orders"),
            ]
        )
        with contextlib.suppress(StreamReset):
            assert client.response(stream, until_data="head")[0] in {400, 403, 404}


def test_plain_connect_at_an_http_service_is_refused(mesh):
    before = mesh.apps["orders"].connections
    with http2(mesh, "storefront") as client:
        stream = client.open([(":method", "CONNECT"), (":authority", "orders:80")])
        with contextlib.suppress(StreamReset):
            assert client.response(stream, until_data="head")[0] in {400, 403, 404}
    assert mesh.apps["orders"].connections == before


# --- tcp


def test_tcp_by_its_socket_and_by_connect(mesh):
    with unix(mesh.sidecars["storefront"].sidecar.tcp_socket("ledger")) as connection:
        connection.sendall(b"ping")
        assert connection.recv(100).startswith(b"echo:")
    record = wait_for(lambda: [r for r in mesh.sidecars["ledger"].lines() if r.kind == "decision"])[-1]
    assert (record.decision, record.operation, record.rule) == ("allow", "tcp", "allow[1]")
    assert (record.method, record.path) == (None, None)
    assert record.caller == mesh.spiffe_id("storefront")


@pytest.mark.parametrize(("caller", "reason"), [("orders", "no-rule"), ("nobody", "unknown-caller")])
def test_tcp_refusals_reach_no_application(mesh, caller, reason):
    before = mesh.apps["ledger"].connections
    with contextlib.closing(Http2Client(mesh.connect("ledger", mesh.client(caller, alpn=("h2",))))) as client:
        stream = client.open([(":method", "CONNECT"), (":authority", "ledger:5432")])
        with contextlib.suppress(StreamReset):
            assert client.response(stream, until_data="head")[0] == 403
    wait_for(
        lambda: [r for r in mesh.sidecars["ledger"].lines() if r.reason == reason and r.decision == "deny"]
    )
    assert mesh.apps["ledger"].connections == before


def test_http_at_a_tcp_service_is_the_wrong_protocol(mesh):
    before = mesh.apps["ledger"].connections
    with contextlib.closing(
        Http2Client(mesh.connect("ledger", mesh.client("storefront", alpn=("h2",))))
    ) as client:
        status, headers, _, _ = client.request("GET", "/", authority="ledger")
    assert status == 403
    record = mesh.sidecars["ledger"].record(headers["x-everyhop-decision"])
    assert (record.decision, record.reason) == ("deny", "wrong-protocol")
    assert mesh.apps["ledger"].connections == before


def test_bytes_instead_of_http_at_a_tcp_service(mesh):
    before = mesh.apps["ledger"].connections
    for alpn in ((), ("h2",), ("http/1.1",)):
        with (
            contextlib.suppress(OSError),
            mesh.connect("ledger", mesh.client("storefront", alpn=alpn)) as connection,
        ):
            connection.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")
            connection.recv(100)
    assert mesh.apps["ledger"].connections == before


# --- the application


def test_before_the_application_listens(mesh):
    """A sidecar without an application answers 503 and takes it in as soon as it is there."""
    running = mesh.sidecar("web", app=False, name="web-1")
    mesh.app("web")
    try:
        context = mesh.client("storefront")
        with mesh.connect("web-1", context) as connection:
            status, _, body = exchange(connection, request_bytes("GET", "/"))
        assert status == 403  # web declares no operation
        assert problem(body)["code"] == "ACCESS_DENIED"
    finally:
        running.stop()
        del mesh.sidecars["web-1"]
        del mesh.endpoints["web"]


def test_an_application_that_comes_and_goes(mesh):
    sidecar = mesh.sidecars["orders"]
    app = sidecar.sidecar.app
    with mesh.connect("orders", mesh.client("storefront")) as connection:
        assert exchange(connection, request_bytes("GET", "/orders"))[0] == 200
        sidecar.apply(mesh.snapshot, app=None)

        def ask(expected):
            answer = exchange(connection, request_bytes("GET", "/orders"))
            return answer if answer[0] == expected else None

        try:
            _, headers, body = wait_for(lambda: ask(503))
            assert problem(body)["code"] == "UPSTREAM_UNAVAILABLE"
            record = sidecar.record(headers["x-everyhop-decision"])
            assert (record.decision, record.status) == ("allow", 503)
        finally:
            sidecar.apply(mesh.snapshot, app=app)
        assert wait_for(lambda: ask(200))


def test_a_body_passes_whole(mesh):
    body = bytes(range(256)) * 400
    with egress(mesh) as connection:
        status, _, answer = exchange(connection, request_bytes("POST", "/orders", body=body))
    assert status == 200
    assert json.loads(answer)["body"].encode("latin-1") == body


def test_chunked_body_passes_whole(mesh):
    with mesh.connect("orders", mesh.client("storefront")) as connection:
        connection.sendall(
            b"POST /orders HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        status, _, answer = read_response(connection)
    assert status == 200
    assert json.loads(answer)["body"] == "abcde"
