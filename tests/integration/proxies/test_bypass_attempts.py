# SPDX-License-Identifier: Apache-2.0
"""The table of bypass attempts, byte for byte, at a foreign Envoy over gRPC and HTTP and at nginx, over mutual TLS.

Nothing that must be refused arrives; what a proxy refuses by itself never asks; and each answer of the authorizer is
the pure engine's.
"""

import contextlib
import http.client
import json

import pytest
from tests.support.http2_client import Http2Client, StreamReset

from everyhop.authz import Engine

table = pytest.importorskip(
    "tests.vectors.bypass_attempts", reason="the table of attempts is not in this tree"
)
POLICY = table.POLICY
SERVED = 200
OWN_REFUSALS = {0, 400, 403, 404, 405, 421, 426, 431, 501}
"""What a proxy that never asked may answer: its own refusal of a request that is none, or the end of the connection."""

ATTEMPTS = [
    (attempt, wire)
    for attempt in table.ATTEMPTS
    for wire in (table.HTTP1, table.HTTP2)
    if wire in attempt.on and not attempt.checks_body and not attempt.state
]


def bytes_of(attempt):
    lines = [b" ".join((attempt.method, attempt.target, attempt.version))]
    lines += [b"Host: " + host for host in attempt.host]
    lines += [name + b": " + value for name, value in attempt.headers]
    names = {name.lower() for name, _ in attempt.headers}
    if attempt.body and not names & {b"content-length", b"transfer-encoding"}:
        lines.append(b"Content-Length: %d" % len(attempt.body))
    return b"\r\n".join([*lines, b"", b""]) + attempt.body


def send(connection, attempt, wire):
    """Make an attempt; return status and body, status 0 when the connection or the stream ended without an answer."""
    if wire == table.HTTP2:
        return send_http2(connection, attempt)
    try:
        connection.sendall(bytes_of(attempt))
        answer = http.client.HTTPResponse(connection, method=attempt.method.decode("latin-1"))
        answer.begin()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""


def send_http2(client, attempt):
    headers = [(name.lower(), value) for name, value in attempt.headers]
    headers += [(b"host", host) for host in attempt.host[1:]]
    authority = attempt.host[0] if attempt.host else None
    try:
        status, _, body, _ = client.request(
            attempt.method, attempt.target, authority=authority, headers=headers, body=attempt.body
        )
    except (StreamReset, OSError):
        return 0, b""
    return status, body


@contextlib.contextmanager
def connected(mesh, asked, caller, wire):
    """A connection on which the caller has shown a certificate."""
    alpn = ("h2",) if wire == table.HTTP2 else ("http/1.1",)
    with asked.proxy.connect(mesh.client(uri=uri_of(caller), alpn=alpn)) as connection:
        yield Http2Client(connection) if wire == table.HTTP2 else connection


def uri_of(caller):
    return caller if "://" in caller else f"spiffe://shop.example/service/{caller}"


@pytest.mark.parametrize(
    ("attempt", "wire"), ATTEMPTS, ids=[f"{wire} {attempt.id}" for attempt, wire in ATTEMPTS]
)
def test_attempt(mesh, asked, attempt, wire):
    app, known = mesh.apps["orders"], len(asked.authorizer.records())
    expected = {status for status, _ in attempt.expect}
    with connected(mesh, asked, attempt.caller, wire) as connection:
        if attempt.before is not None:
            assert send(connection, attempt.before, wire)[0] == SERVED
        before = list(app.seen)
        status, body = send(connection, attempt, wire)
    records = asked.authorizer.records()[known:]
    if attempt.before is not None:
        records = records[1:]
    if attempt.expect == (table.PLAIN,) and attempt.host == (b"orders",):
        assert status == SERVED
    if app.seen == before:
        assert status != SERVED
    else:
        assert SERVED in expected, f"arrived: {app.seen[len(before) :]}"
        seen = {
            name.lower().encode() for name, value in json.loads(body)["headers"] if value in _values(attempt)
        }
        assert not seen & set(attempt.hidden)
    assert len(records) <= 1
    for record in records:
        decision = Engine(mesh.snapshot).decide(
            caller=uri_of(attempt.caller), target="orders", method=record.method, path=record.path
        )
        if record.reason == "unknown-operation" and decision.is_allowed:  # an upgrade where none is declared
            assert attempt.number == 26
        else:
            assert (record.decision, record.reason) == (decision.effect, decision.reason)
        assert status == record.status
    if not records:
        assert status in OWN_REFUSALS


def _values(attempt):
    """What would show that a client's field came through, and not one that the proxy or everyhop set."""
    return {value.decode("latin-1") for _, value in attempt.headers}
