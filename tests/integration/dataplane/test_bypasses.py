# SPDX-License-Identifier: Apache-2.0
"""Ways around the policy at the ingress, each refused: field notes on authorization, section 6, by their numbers."""

import json

import pytest
from tests.support.envoy_pair import exchange, problem, request_bytes
from tests.support.http2_client import Http2Client, StreamReset

AMBIGUOUS, DENIED = (400, "AMBIGUOUS_PATH"), (403, "ACCESS_DENIED")

PATHS = [
    ("1 double slash", "//admin", AMBIGUOUS),
    ("1 triple slash", "///admin", AMBIGUOUS),
    ("2 authority", "//admin/x", AMBIGUOUS),
    ("3 dot segments", "/public/../admin", AMBIGUOUS),
    ("3 mixed dot segments", "/public/./../admin", AMBIGUOUS),
    ("4 encoded dots", "/public/%2e%2e/admin", AMBIGUOUS),
    ("4 half encoded dots", "/public/.%2e/admin", AMBIGUOUS),
    ("5 encoded slashes", "/public%2f..%2fadmin", AMBIGUOUS),
    ("5 encoded slash", "/public/%2Fadmin", AMBIGUOUS),
    ("6 backslash", "/public\\..\\admin", AMBIGUOUS),
    ("6 encoded backslash", "/public/%5cadmin", AMBIGUOUS),
    ("7 double encoding", "/public/%252e%252e%252fadmin", AMBIGUOUS),
    ("8 encoded letter", "/%61dmin", AMBIGUOUS),
    ("8 encoded last letter", "/admi%6e", AMBIGUOUS),
    ("8 encoded guarded character", "/%40me", AMBIGUOUS),
    ("9 upper case", "/Admin", DENIED),
    ("9 upper case and slash", "/ADMIN/", DENIED),
    ("10 trailing slash", "/admin/", DENIED),
    ("10 trailing dot", "/admin/.", AMBIGUOUS),
    ("10 trailing slashes", "/admin//", AMBIGUOUS),
    ("11 matrix parameter", "/admin;x=1", AMBIGUOUS),
    ("11 matrix parameter before dots", "/public;/../admin", AMBIGUOUS),
    ("12 NUL", "/admin%00", AMBIGUOUS),
    ("12 line feed", "/admin%0a", AMBIGUOUS),
    ("13 query", "/admin?x=/public", DENIED),
    ("13 query that looks public", "/admin?/public/x", DENIED),
    ("13 absolute form", "http://orders/admin", AMBIGUOUS),
    ("13 absolute form of what is allowed", "http://orders/orders", AMBIGUOUS),
    ("13 asterisk form", "*", AMBIGUOUS),
    ("broken triplet", "/public/%zz", AMBIGUOUS),
    ("bracket", "/public/<x>", AMBIGUOUS),
]


@pytest.fixture
def caller(mesh):
    """A connection of the storefront to orders, HTTP/1.1."""
    with mesh.connect("orders", mesh.client("storefront")) as connection:
        yield connection


@pytest.fixture
def http2(mesh):
    client = Http2Client(mesh.connect("orders", mesh.client("storefront", alpn=("h2",))))
    yield client
    client.close()


def reached(mesh):
    return list(mesh.apps["orders"].seen)


@pytest.mark.parametrize(("path", "expected"), [p[1:] for p in PATHS], ids=[p[0] for p in PATHS])
def test_path_tricks(mesh, caller, path, expected):
    before = reached(mesh)
    method = "OPTIONS" if path == "*" else "GET"
    status, headers, body = exchange(caller, request_bytes(method, path))
    assert (status, problem(body)["code"]) == expected
    assert headers["content-type"] == "application/problem+json"
    assert "server" not in headers
    assert not any(name.startswith("x-envoy") for name in headers)
    assert reached(mesh) == before


@pytest.mark.parametrize(("path", "expected"), [p[1:] for p in PATHS], ids=[p[0] for p in PATHS])
def test_path_tricks_over_http2(mesh, http2, path, expected):
    before = reached(mesh)
    try:
        status, _, body, _ = http2.request("OPTIONS" if path == "*" else "GET", path)
    except StreamReset:
        assert path.startswith("http")  # no path at all in HTTP/2
    else:
        assert (status, problem(body)["code"]) == expected
    assert reached(mesh) == before


@pytest.mark.parametrize(
    "path",
    ["admin.Svc/Del", "shop.v1.Orders/Watch", "@evil", "/admin\n", "/admin#x", "/orders\0", "", "/orders x"],
)
def test_targets_without_slash_and_with_control_bytes_over_http2(mesh, http2, path):
    """Numbers 12, 14 and 15."""
    before = reached(mesh)
    try:
        status, _, _, _ = http2.request("POST", path, headers=[("content-type", "application/grpc")])
    except StreamReset:
        status = 0
    assert status in {0, 400} or status == 200  # gRPC refusals are told in trailers
    assert reached(mesh) == before


@pytest.mark.parametrize(
    "raw", [b"GET admin HTTP/1.1", b"GET @evil HTTP/1.1", b"GET /admin#x HTTP/1.1", b"GET /a\0b HTTP/1.1"]
)
def test_request_lines_that_are_none(mesh, caller, raw):
    before = reached(mesh)
    status, _, body = exchange(caller, raw + b"\r\nHost: orders\r\n\r\n")
    assert status == 400
    assert problem(body)["code"] in {"BAD_REQUEST", "AMBIGUOUS_PATH"}
    assert reached(mesh) == before


@pytest.mark.parametrize(
    "method", ["get", "GETX", "HEAD", "TRACE", "PURGE", "DELETE", "CONNECT", "PATCH", "X" * 200]
)
def test_methods_that_are_not_declared(mesh, caller, method):
    """Number 19; HEAD is not GET."""
    before = reached(mesh)
    caller.sendall(request_bytes(method, "/orders"))
    answer = caller.recv(65536)
    assert answer.split(b" ")[1] in {b"400", b"403", b"404"}, answer
    assert reached(mesh) == before


@pytest.mark.parametrize(
    "header",
    [
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "X-HTTP-Method",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Original-Method",
        "X-Original-Path",
        "X-Forwarded-Uri",
        "X-Forwarded-Path",
        "X-Forwarded-Prefix",
        "X-Forwarded-Host",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "Forwarded",
        "X-Envoy-Original-Path",
        "X-Envoy-Decorator-Operation",
        "X-Envoy-Retry-On",
        "X-Envoy-Upstream-Alt-Stat-Name",
        "X-Envoy-Internal",
    ],
)
def test_headers_that_rewrite_a_request_do_not_arrive(caller, header):
    """Numbers 18 and 20."""
    status, _, body = exchange(
        caller, request_bytes("GET", "/orders", headers=[(header, "/evil"), (header, "evil")])
    )
    assert status == 200
    arrived = {k.lower(): v for k, v in json.loads(body)["headers"]}
    assert "evil" not in arrived.get(header.lower(), "")
    assert arrived.get("x-forwarded-proto") == "https"


@pytest.mark.parametrize(
    "header",
    [
        "x-everyhop-caller",
        "X-Everyhop-Operation",
        "X-EVERYHOP-DECISION",
        "X-Everyhop-Anything",
        "X-Forwarded-Client-Cert",
    ],
)
def test_identity_headers_of_a_caller_are_replaced(mesh, caller, header):
    """Numbers 22 and 23, sent twice."""
    forged = "spiffe://shop.example/service/root"
    status, _, body = exchange(
        caller, request_bytes("GET", "/orders", headers=[(header, forged), (header, forged)])
    )
    assert status == 200
    headers = [(k.lower(), v) for k, v in json.loads(body)["headers"]]
    assert not [h for h in headers if forged in h[1]]
    assert [v for k, v in headers if k == "x-everyhop-caller"] == [mesh.spiffe_id("storefront")]
    assert [v for k, v in headers if k == "x-everyhop-operation"] == ["list"]
    assert len([k for k, _ in headers if k == "x-everyhop-decision"]) == 1
    xfcc = [v for k, v in headers if k == "x-forwarded-client-cert"]
    assert len(xfcc) == 1
    assert f"URI={mesh.spiffe_id('storefront')}" in xfcc[0]


@pytest.mark.parametrize(
    "header", ["x_everyhop_caller", "X_Forwarded_Proto", "x-everyhop_caller", "any_thing"]
)
def test_underscore_aliases_are_refused(mesh, caller, header):
    """Number 21: WSGI folds underscore and dash."""
    before = reached(mesh)
    status, _, _ = exchange(caller, request_bytes("GET", "/orders", headers=[(header, "root")]))
    assert status == 400
    assert reached(mesh) == before


def test_an_underscore_over_http2_ends_its_own_stream_only(http2):
    with pytest.raises(StreamReset):
        http2.request("GET", "/orders", headers=[("x_everyhop_caller", "root")])
    assert http2.request("GET", "/orders")[0] == 200


def test_hop_by_hop_cannot_remove_our_headers(mesh, caller):
    """Number 25."""
    headers = [("Connection", "x-everyhop-caller, x-everyhop-operation, x-forwarded-client-cert")]
    status, _, body = exchange(caller, request_bytes("GET", "/orders", headers=headers))
    assert status == 400 or dict(json.loads(body)["headers"])["x-everyhop-caller"] == mesh.spiffe_id(
        "storefront"
    )


SMUGGLING = {
    "CL and TE": b"POST /orders HTTP/1.1\r\nHost: o\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    "two CL": b"POST /orders HTTP/1.1\r\nHost: o\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "CL list": b"POST /orders HTTP/1.1\r\nHost: o\r\nContent-Length: 5, 6\r\n\r\nhello!",
    "CL plus": b"POST /orders HTTP/1.1\r\nHost: o\r\nContent-Length: +5\r\n\r\nhello",
    "CL hex": b"POST /orders HTTP/1.1\r\nHost: o\r\nContent-Length: 0x5\r\n\r\nhello",
    "TE unknown": b"POST /orders HTTP/1.1\r\nHost: o\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "TE twice": b"POST /orders HTTP/1.1\r\nHost: o\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "TE vertical tab": b"POST /orders HTTP/1.1\r\nHost: o\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "space before colon": b"POST /orders HTTP/1.1\r\nHost: o\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "chunk size junk": b"POST /orders HTTP/1.1\r\nHost: o\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "chunk size overflow": b"POST /orders HTTP/1.1\r\nHost: o\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"11111111111111111\r\nhello\r\n0\r\n\r\n",
    "header NUL": b"GET /orders HTTP/1.1\r\nHost: o\r\nA: b\0c\r\n\r\n",
    "no host": b"GET /orders HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /orders HTTP/1.1\r\nHost: orders\r\nHost: evil.example\r\n\r\n",
    "host list": b"GET /orders HTTP/1.1\r\nHost: orders, evil.example\r\n\r\n",
    "HTTP/1.0": b"GET /orders HTTP/1.0\r\nHost: o\r\n\r\n",
    "HTTP/0.9": b"GET /orders\r\n\r\n",
    "HTTP/3.7": b"GET /orders HTTP/3.7\r\nHost: o\r\n\r\n",
}


@pytest.mark.parametrize("raw", SMUGGLING.values(), ids=SMUGGLING)
def test_smuggling_shapes_are_refused(mesh, caller, raw):
    """Numbers 17, 24 and 25."""
    before = reached(mesh)
    caller.sendall(raw)
    answer = caller.recv(65536)
    assert answer == b"" or answer.split(b" ")[1] in {b"400", b"426", b"501"}, answer
    assert [line for line in reached(mesh)[len(before) :] if "POST" not in line] == []


def test_two_hosts_give_a_decision_that_is_a_refusal(mesh, caller):
    status, headers, body = exchange(caller, SMUGGLING["two hosts"])
    assert (status, problem(body)["code"]) == (400, "BAD_REQUEST")
    record = mesh.sidecars["orders"].record(headers["x-everyhop-decision"])
    assert (record.decision, record.reason) == ("deny", "ambiguous-host")


@pytest.mark.parametrize("line_end", [b"\r\n ", b"\r\n\t", b"\r", b"\n "])
def test_folds_and_odd_line_ends_do_not_smuggle_a_header(mesh, caller, line_end):
    raw = b"GET /orders HTTP/1.1\r\nHost: orders\r\nA: b" + line_end + b"X-Everyhop-Caller: root\r\n\r\n"
    status, _, body = exchange(caller, raw)
    if status == 200:
        headers = json.loads(body)["headers"]
        assert [v for k, v in headers if k.lower() == "x-everyhop-caller"] == [mesh.spiffe_id("storefront")]
        assert not [v for _, v in headers if "\r" in v or "\n" in v]
    else:
        assert status == 400


def test_a_pipelined_second_request_is_decided_by_itself(caller):
    caller.sendall(request_bytes("GET", "/orders") + request_bytes("GET", "/admin"))
    received = b""
    while b"ACCESS_DENIED" not in received:
        chunk = caller.recv(65536)
        assert chunk, received
        received += chunk
    assert received.startswith(b"HTTP/1.1 200")


def test_oversize_headers(mesh, caller):
    status, _, body = exchange(caller, request_bytes("GET", "/orders", headers=[("A", "x" * 20_000)]))
    assert (status, problem(body)["code"]) == (431, "HEADERS_TOO_LARGE")
    with mesh.connect("orders", mesh.client("storefront")) as other:
        status, _, _ = exchange(
            other, request_bytes("GET", "/orders", headers=[(f"h{n}", "v") for n in range(80)])
        )
        assert status == 431


def test_a_long_path_is_refused_and_recorded(mesh, caller):
    status, headers, _ = exchange(caller, request_bytes("GET", "/admin/" + "x" * 9000))
    assert status == 403
    record = mesh.sidecars["orders"].record(headers["x-everyhop-decision"])
    assert record.reason == "unknown-operation"
    assert len(record.path) <= 8192


def test_bytes_that_are_no_utf8_are_refused_and_recorded(mesh, caller):
    """Number 24."""
    status, _, _ = exchange(caller, b"GET /public/\xff\xfe HTTP/1.1\r\nHost: orders\r\nA: \xff\r\n\r\n")
    assert status == 400
    with mesh.connect("orders", mesh.client("storefront")) as other:
        status, _, _ = exchange(other, b"GET /orders HTTP/1.1\r\nHost: orders\r\nA: \xff\xfe\r\n\r\n")
        assert status in {200, 400}
    assert all(record.reason != "unreadable-line" for record in mesh.sidecars["orders"].lines())


def test_h2c_upgrade_reaches_nothing_new(mesh, caller):
    """Number 26."""
    headers = [
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
    ]
    status, answered, body = exchange(caller, request_bytes("GET", "/orders", headers=headers))
    assert status in {200, 403}
    assert "upgrade" not in answered
    if status == 200:
        assert "upgrade" not in {k.lower() for k, _ in json.loads(body)["headers"]}


def test_a_forged_decision_id_cannot_hide_a_refusal(mesh, caller):
    """A request that is refused before our header is set is recorded under an id of ours, not the caller's."""
    forged = "00000000-1111-4222-8333-444444444444"
    exchange(caller, request_bytes("GET", "/orders#x", headers=[("x-everyhop-decision", forged)]))
    sidecar = mesh.sidecars["orders"]
    with mesh.connect("orders", mesh.client("storefront")) as other:
        _, headers, _ = exchange(other, request_bytes("GET", "/admin"))
        sidecar.record(headers["x-everyhop-decision"])
    assert forged not in {record.id for record in sidecar.lines()}
    ids = [record.id for record in sidecar.lines()]
    assert len(set(ids)) == len(ids)


def test_every_line_of_this_module_is_a_record(mesh):
    with mesh.connect("orders", mesh.client("storefront")) as connection:
        _, answered, _ = exchange(connection, request_bytes("GET", "/admin"))
    assert mesh.sidecars["orders"].record(answered["x-everyhop-decision"]).reason == "no-rule"
    records = mesh.sidecars["orders"].lines()
    assert records
    assert {record.reason for record in records} >= {
        "allowed",
        "ambiguous-path",
        "no-rule",
        "unknown-operation",
    }
    assert "unreadable-line" not in {record.reason for record in records}
