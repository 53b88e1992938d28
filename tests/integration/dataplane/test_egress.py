# SPDX-License-Identifier: Apache-2.0
"""The way out: only the launch's own workload, only to declared services, only to exactly that identity."""

import base64
import contextlib
import json
import socket
import stat

import pytest
from tests.support.envoy_pair import (
    SECRET,
    exchange,
    free_port,
    problem,
    read_response,
    request_bytes,
    wait_for,
)
from tests.support.http2_client import Http2Client

GOOD = b"storefront:" + SECRET


def credentials(raw):
    return [("Proxy-Authorization", "Basic " + base64.b64encode(raw).decode())]


@contextlib.contextmanager
def proxy(mesh, service="storefront"):
    port = mesh.sidecars[service].sidecar.egress_port
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        yield connection


@contextlib.contextmanager
def local(mesh, service="storefront"):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(mesh.sidecars[service].sidecar.egress_socket))
        yield connection


def refused(answer, status, code):
    got, headers, body = answer
    assert (got, problem(body)["code"]) == (status, code)
    assert headers["content-type"] == "application/problem+json"
    assert headers["x-everyhop-decision"] == problem(body)["decision"]
    return headers["x-everyhop-decision"]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="none"),
        pytest.param(credentials(b"storefront:wrong"), id="wrong"),
        pytest.param(credentials(GOOD + b"x"), id="longer"),
        pytest.param(credentials(GOOD[:-1]), id="shorter"),
        pytest.param(credentials(b"orders:" + SECRET), id="other service"),
        pytest.param(credentials(b":" + SECRET), id="no name"),
        pytest.param(credentials(SECRET), id="no colon"),
        pytest.param([("Proxy-Authorization", "Bearer " + SECRET.decode())], id="bearer"),
        pytest.param([("Authorization", credentials(GOOD)[0][1])], id="other header"),
        pytest.param([("Proxy-Authorization", "Basic !!")], id="no base64"),
    ],
)
def test_the_proxy_asks_for_the_secret(mesh, headers):
    before = list(mesh.apps["orders"].seen)
    with proxy(mesh) as connection:
        answer = exchange(connection, request_bytes("GET", "http://orders/orders", headers=headers))
    identifier = refused(answer, 407, "PROXY_AUTHENTICATION_REQUIRED")
    assert answer[1]["proxy-authenticate"].startswith("Basic")
    record = mesh.sidecars["storefront"].record(identifier)
    assert (record.decision, record.reason) == ("deny", "no-proxy-secret")
    assert mesh.apps["orders"].seen == before


def test_connect_needs_the_secret_too(mesh):
    with proxy(mesh) as connection:
        connection.sendall(b"CONNECT ledger:5432 HTTP/1.1\r\nHost: ledger:5432\r\n\r\n")
        assert read_response(connection)[0] == 407


def test_the_secret_is_in_no_file(mesh):
    for path in mesh.sidecars["storefront"].sidecar.directory.rglob("*.json"):
        content = path.read_bytes()
        assert SECRET not in content
        assert base64.b64encode(GOOD) not in content
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_call_through_the_proxy(mesh):
    with proxy(mesh) as connection:
        raw = request_bytes(
            "GET", "http://orders/orders?a=1", host="ignored.example", headers=credentials(GOOD)
        )
        status, _, body = exchange(connection, raw)
    assert status == 200
    seen = json.loads(body)
    assert seen["line"] == "GET /orders?a=1 HTTP/1.1"
    headers = {k.lower(): v for k, v in seen["headers"]}
    assert headers["host"] == "orders"
    assert headers["x-everyhop-caller"] == mesh.spiffe_id("storefront")
    assert not {"proxy-authorization", "proxy-connection", "via", "x-forwarded-for"} & headers.keys()


@pytest.mark.parametrize(
    "host", ["orders", "orders:80", "orders:8080", "orders.shop.example", "ORDERS", "orders.shop.example:1"]
)
def test_names_of_a_service(mesh, host):
    with local(mesh) as connection:
        assert exchange(connection, request_bytes("GET", "/orders", host=host))[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "orders.evil.example",
        "127.0.0.1",
        "localhost",
        "stranger",
        "vault",
        "ordersx",
        "orders.",
        "xorders",
        "orders.shop.example.evil",
        "user@orders",
        "*",
        "storefront",
        "[::1]",
    ],
)
def test_undeclared_destinations(mesh, host):
    with local(mesh) as connection:
        answer = exchange(connection, request_bytes("GET", "/orders", host=host))
    identifier = refused(answer, 403, "UNDECLARED_DESTINATION")
    record = mesh.sidecars["storefront"].record(identifier)
    assert (record.decision, record.reason) == ("deny", "undeclared-destination")
    assert record.caller == mesh.spiffe_id("storefront")
    assert record.snapshot == mesh.snapshot.hash


@pytest.mark.parametrize("target", ["evil.example:443", "orders:80", "vault:8200", "127.0.0.1:22"])
def test_tunnels_to_undeclared_destinations(mesh, target):
    with proxy(mesh) as connection:
        raw = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{'Proxy-Authorization: ' + credentials(GOOD)[0][1]}\r\n\r\n"
        assert exchange(connection, raw.encode())[0] == 403


def test_http_to_a_tcp_service(mesh):
    with local(mesh) as connection:
        answer = exchange(connection, request_bytes("GET", "/", host="ledger"))
    identifier = refused(answer, 403, "UNDECLARED_DESTINATION")
    assert mesh.sidecars["storefront"].record(identifier).reason == "wrong-protocol"


def test_the_local_socket_is_for_its_owner(mesh):
    sidecar = mesh.sidecars["storefront"].sidecar
    for path in (sidecar.egress_socket, sidecar.admin_socket, sidecar.tcp_socket("ledger")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not sidecar.tcp_socket("vault").exists()


def test_identity_headers_of_the_workload_itself_do_not_travel(mesh):
    forged = [
        ("x-everyhop-caller", "root"),
        ("x-forwarded-client-cert", "URI=root"),
        ("x-forwarded-for", "1.2.3.4"),
    ]
    with local(mesh) as connection:
        _, _, body = exchange(connection, request_bytes("GET", "/orders", headers=forged))
    assert b"root" not in body
    assert b"1.2.3.4" not in body


def test_another_identity_at_the_declared_address_is_not_talked_to(mesh):
    """The endpoint answers with a valid SVID of this trust domain, but of another service."""
    places = dict(mesh.endpoints)
    sidecar = mesh.sidecars["storefront"]
    mesh.endpoints["orders"] = (mesh.sidecars["ledger"].sidecar.ingress,)
    try:
        sidecar.apply(mesh.snapshot)

        def asked():
            with local(mesh) as connection:
                answer = exchange(connection, request_bytes("GET", "/orders"))
            return answer if answer[0] != 200 else None

        answer = wait_for(asked)
        identifier = refused(answer, 503, "UPSTREAM_UNAVAILABLE")
        record = sidecar.record(identifier)
        assert (record.decision, record.reason) == ("deny", "untrusted-server")
        assert "verify" in record.detail["failure"]
    finally:
        mesh.endpoints = places
        sidecar.apply(mesh.snapshot)


def test_a_dead_endpoint_is_passed_over(mesh):
    places = dict(mesh.endpoints)
    sidecar = mesh.sidecars["storefront"]
    mesh.endpoints["orders"] = (*places["orders"], ("127.0.0.1", free_port()))
    try:
        sidecar.apply(mesh.snapshot)
        for _ in range(20):
            with local(mesh) as connection:
                assert exchange(connection, request_bytes("GET", "/orders"))[0] == 200
    finally:
        mesh.endpoints = places
        sidecar.apply(mesh.snapshot)


def test_no_endpoint_at_all(mesh):
    places = dict(mesh.endpoints)
    sidecar = mesh.sidecars["storefront"]
    mesh.endpoints.pop("orders")
    try:
        sidecar.apply(mesh.snapshot)

        def asked():
            with local(mesh) as connection:
                answer = exchange(connection, request_bytes("GET", "/orders"))
            return answer if answer[0] != 200 else None

        refused(wait_for(asked), 503, "UPSTREAM_UNAVAILABLE")
    finally:
        mesh.endpoints = places
        sidecar.apply(mesh.snapshot)
        wait_for(lambda: _works(mesh))


def _works(mesh):
    with local(mesh) as connection:
        return exchange(connection, request_bytes("GET", "/orders"))[0] == 200


def test_http2_on_the_local_socket(mesh):
    with local(mesh) as connection:
        status, _, body, _ = Http2Client(connection).request("GET", "/orders/7", scheme="http")
        assert status == 200
        assert json.loads(body)["line"] == "GET /orders/7 HTTP/1.1"


def test_a_refusal_of_the_other_side_passes_through(mesh):
    with local(mesh) as connection:
        status, headers, body = exchange(connection, request_bytes("GET", "/admin"))
    assert (status, problem(body)["code"]) == (403, "ACCESS_DENIED")
    record = mesh.sidecars["orders"].record(headers["x-everyhop-decision"])
    assert (record.caller, record.decision) == (mesh.spiffe_id("storefront"), "deny")
