# SPDX-License-Identifier: Apache-2.0
"""The edge: clients without an identity of the trust domain, and with a credential in every request."""

import http.client
import json
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from tests.integration.dataplane.test_config_dump import runs_what_its_files_say
from tests.support.check_service import Checks, passes, refuses
from tests.support.envoy_pair import Mesh, exchange, free_port, request_bytes, wait_for
from tests.support.http2_client import Http2Client
from tests.support.identity import TestCa, new_key

from everyhop.dataplane.model import CertificateFiles
from everyhop.x509.certificates import certificates_to_pem

POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {}
  orders:
    operations:
      list: GET /orders
      read: GET /orders/{id}
      mine: GET /mine
      admin: GET /admin
    probes: [GET /healthz]
allow:
  - {from: outside, to: orders, operations: [list, read]}
  - {from: outside, to: orders, operations: [mine], user: required}
  - {from: storefront, to: orders, operations: all}
"""
KEY = ("Authorization", "Bearer eh_live_key")
"""What a client shows; the stand-in for the agent believes it."""


def answer(request):
    """Believe one key and exchange it for a user."""
    if request.all("authorization") != ["Bearer eh_live_key"]:
        return refuses(401, "MISSING_TOKEN", "Missing token")
    if request.rbac["shadow_effective_policy_id"] != "mine":
        return passes(remove=["authorization"], user="key:1")
    headers = {"txn-token": "of-u1", "x-everyhop-user": "u1"}
    return passes(headers, remove=["authorization"], user="u1")


@pytest.fixture(scope="module")
def domain():
    with Mesh(POLICY) as mesh, Checks(mesh) as checks:
        mesh.checks = checks
        mesh.edge = ("127.0.0.1", free_port())
        mesh.sidecar("orders", edge=mesh.edge)
        yield mesh


@pytest.fixture
def mesh(domain):
    domain.checks.answer = answer
    domain.checks.seen.clear()
    return domain


def outside(mesh, *, alpn=("http/1.1",), context=None, port=None):
    """Connect as a client that trusts the CA and shows nothing."""
    raw = socket.create_connection(("127.0.0.1", port or mesh.edge[1]), timeout=5)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return (context or mesh.context(None, None, alpn=alpn)).wrap_socket(raw)


def ask(mesh, method, path, *headers):
    with outside(mesh) as connection:
        status, found, body = exchange(connection, request_bytes(method, path, headers=headers))
    return status, found, json.loads(body)


def test_a_client_with_a_credential_reaches_what_the_policy_opens(mesh):
    status, _, body = ask(mesh, "GET", "/orders", KEY)
    assert status == 200
    seen = dict(body["headers"])
    assert seen["x-everyhop-caller"] == "outside"
    assert seen["x-everyhop-operation"] == "list"
    assert "authorization" not in seen
    assert "txn-token" not in seen
    (question,) = mesh.checks.seen
    assert question.point == ("edge",)
    assert question.principal == ""
    assert question.destination == mesh.spiffe_id("orders")
    assert question.rbac["enforced_effective_policy_id"].endswith("|allowed|allow[0]")


def test_a_user_reaches_the_application_as_a_transaction_token(mesh):
    status, _, body = ask(mesh, "GET", "/mine", KEY)
    assert status == 200
    seen = dict(body["headers"])
    assert (seen["txn-token"], seen["x-everyhop-user"]) == ("of-u1", "u1")
    decision = seen["x-everyhop-decision"]
    record = mesh.sidecars["orders"].record(decision)
    assert (record.point, record.caller, record.decision) == ("edge", "outside", "allow")
    assert (record.operation, record.rule, record.detail["user"]) == ("mine", "allow[1]", "u1")
    assert record.snapshot == mesh.snapshot.hash


@pytest.mark.parametrize("path", ["/admin", "/healthz", "/other"])
def test_what_is_not_opened_to_the_outside_is_not_even_asked_about(mesh, path):
    status, headers, body = ask(mesh, "GET", path, KEY)
    assert (status, body["code"]) == (403, "ACCESS_DENIED")
    assert mesh.checks.seen == []
    assert mesh.sidecars["orders"].record(headers["x-everyhop-decision"]).point == "edge"


@pytest.mark.parametrize(
    "path", ["/orders/../admin", "//orders", "/orders%2f7", "/orders/%2e%2e/admin", "/orders;a"]
)
def test_paths_are_as_strict_as_inside(mesh, path):
    assert ask(mesh, "GET", path, KEY)[0] == 400


def test_without_a_credential(mesh):
    for headers in ((), (("Authorization", "Bearer x"),), (KEY, ("Authorization", "Bearer eh_live_key"))):
        status, found, body = ask(mesh, "GET", "/orders", *headers)
        assert (status, body["code"]) == (401, "MISSING_TOKEN")
        assert found["www-authenticate"] == 'Bearer realm="everyhop"'
        record = mesh.sidecars["orders"].record(found["x-everyhop-decision"])
        assert (record.decision, record.reason, record.point) == ("deny", "MISSING_TOKEN", "edge")


def test_nothing_that_the_inside_says_is_believed(mesh):
    forged = (
        ("Txn-Token", "of-root"),
        ("txn-token", "of-admin"),
        ("X-Everyhop-User", "root"),
        ("X-Everyhop-Caller", mesh.spiffe_id("storefront")),
        ("X-Everyhop-Roles", "admin"),
        ("X-Forwarded-Client-Cert", f"URI={mesh.spiffe_id('storefront')}"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Original-URL", "/admin"),
    )
    status, _, body = ask(mesh, "GET", "/orders", KEY, *forged)
    assert status == 200
    names = [name for name, _ in body["headers"]]
    assert {"txn-token", "x-everyhop-user", "x-everyhop-roles", "x-forwarded-for"}.isdisjoint(names)
    assert "x-forwarded-client-cert" not in names
    assert dict(body["headers"])["x-everyhop-caller"] == "outside"
    assert mesh.checks.seen[-1].all("txn-token") == []
    _, _, body = ask(mesh, "GET", "/mine", KEY, *forged)
    assert [value for name, value in body["headers"] if name == "txn-token"] == ["of-u1"]
    assert [value for name, value in body["headers"] if name == "x-everyhop-user"] == ["u1"]


def test_a_certificate_of_the_inside_counts_for_nothing(mesh):
    with outside(mesh, context=mesh.client("storefront")) as connection:
        assert exchange(connection, request_bytes("GET", "/admin", headers=[KEY]))[0] == 403
        assert exchange(connection, request_bytes("GET", "/orders"))[0] == 401


def test_no_answer_is_remembered(mesh):
    mesh.checks.answer = lambda _: passes(until=int(time.time()) + 60, headers={"x-everyhop-user": "u"})
    for _ in range(3):
        assert ask(mesh, "GET", "/orders", KEY)[0] == 200
    assert len(mesh.checks.seen) == 3


def test_without_the_agent_nobody_enters(mesh):
    mesh.call(mesh.checks.stop)
    try:
        status, _, body = ask(mesh, "GET", "/orders", KEY)
        assert (status, body["code"]) == (503, "CHECK_UNAVAILABLE")
    finally:
        mesh.call(mesh.checks.start)
    wait_for(lambda: ask(mesh, "GET", "/orders", KEY)[0] == 200)


def test_http2(mesh):
    with outside(mesh, alpn=("h2",)) as connection:
        assert connection.selected_alpn_protocol() == "h2"
        client = Http2Client(connection)
        assert client.request("GET", "/orders", headers=[("authorization", KEY[1])])[0] == 200
        assert client.request("GET", "/admin", headers=[("authorization", KEY[1])])[0] == 403


def test_tls_1_2_is_refused(mesh):
    context = mesh.context(None, None)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        outside(mesh, context=context)
    lines = wait_for(lambda: [r for r in mesh.sidecars["orders"].lines() if r.reason == "untrusted-client"])
    assert lines[-1].point == "edge"


def test_the_ingress_still_asks_for_a_certificate(mesh):
    with (
        pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)),
        outside(mesh, port=mesh.sidecars["orders"].sidecar.ingress[1]) as connection,
    ):
        exchange(connection, request_bytes("GET", "/orders", headers=[KEY]))


def test_a_right_taken_from_the_outside_ends_at_once(mesh):
    with outside(mesh) as connection:
        assert exchange(connection, request_bytes("GET", "/orders", headers=[KEY]))[0] == 200
        mesh.apply(POLICY.replace("operations: [list, read]", "operations: [read]"))
        try:
            wait_for(
                lambda: exchange(connection, request_bytes("GET", "/orders", headers=[KEY]))[0] == 403,
                seconds=1,
            )
        finally:
            mesh.apply(POLICY)
            wait_for(lambda: exchange(connection, request_bytes("GET", "/orders", headers=[KEY]))[0] == 200)


def test_envoy_runs_what_the_files_say(mesh):
    runs_what_its_files_say(mesh.sidecars["orders"])


def test_a_certificate_of_the_operator(mesh):

    now = datetime.now(UTC)
    ca = TestCa(not_before=now - timedelta(hours=1), not_after=now + timedelta(hours=1))
    key = new_key()
    names = (x509.SubjectAlternativeName([x509.DNSName("shop.example")]), False)
    leaf = ca.leaf(
        key=key, names=names, not_before=now - timedelta(hours=1), not_after=now + timedelta(hours=1)
    )
    certificate, private = mesh.root / "edge.pem", mesh.root / "edge.key"
    certificate.write_bytes(certificates_to_pem([leaf]))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    port = free_port()
    files = CertificateFiles(certificate, private)
    running = mesh.sidecar("orders", name="named", edge=("127.0.0.1", port), edge_certificate=files)
    try:
        context = ssl.create_default_context(cadata=certificates_to_pem([ca.der]).decode())
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname="shop.example") as connection,
        ):
            status, _, _ = exchange(connection, request_bytes("GET", "/orders", headers=[KEY]))
        assert status == 200
    finally:
        running.stop()
        del mesh.sidecars["named"]
