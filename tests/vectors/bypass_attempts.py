# SPDX-License-Identifier: Apache-2.0
"""Ways around a policy at the door of an application, as data: each attempt as bytes, and what must come of it.

The numbers are those of a catalogue of 37 attempts, collected from advisories; ``SOURCES`` names where each class was
seen.  The policy is ``POLICY``: the caller ``storefront`` may ``GET /public/...`` and little else; ``/admin`` is open
to nobody.  A kind of enforcement point runs every attempt that it can be asked at all: ``on`` says at which wire.
"""

from __future__ import annotations

from dataclasses import dataclass, field

HTTP1, HTTP2, GRPC = "http1", "http2", "grpc"
BOTH = frozenset({HTTP1, HTTP2})
ALL = frozenset({HTTP1, HTTP2, GRPC})
ONLY1, ONLY2, ONLY_GRPC = frozenset({HTTP1}), frozenset({HTTP2}), frozenset({GRPC})

DENIED = (403, "ACCESS_DENIED")
AMBIGUOUS = (400, "AMBIGUOUS_PATH")
BAD = (400, "BAD_REQUEST")
MALFORMED_BODY = (400, "BODY_MALFORMED")
NOT_JSON = (415, "BODY_NOT_JSON")
UNAVAILABLE = (503, "UNAVAILABLE")
PLAIN = (200, "")
"""Served as though the trick were not there: the application sees the plain request and no header of the trick."""

_SCHEMA = '{"type":"object","properties":{"role":{"const":"user"}},"required":["role"],"additionalProperties":false}'
POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}]}
  stranger: {workload: [{run: true}]}
  orders:
    workload: [{run: true}]
    operations:
      public: GET /public/{rest...}
      purge: DELETE /public/{rest...}
      submit: {route: POST /submit, body: 'SCHEMA'}
      admin: GET /admin
      write: POST /admin
      me: GET /@me
      note: GET /notes/{id}
      secret: GET /notes/secret
      live: {websocket: "/live/{room}"}
      charge: {grpc: shop.v1.Orders/Charge}
      drop: {grpc: shop.v1.Admin/Drop}
allow:
  - {from: storefront, to: orders, operations: [public, submit, note, live, charge]}
""".replace("SCHEMA", _SCHEMA)

GRPC_ADMIN, GRPC_PLAIN = b"/shop.v1.Admin/Drop", b"/shop.v1.Orders/Charge"

COLLAPSED = (AMBIGUOUS, DENIED)
"""Werkzeug's server makes one slash of several at the front before anybody is asked."""

Pairs = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One variant of an attempt.

    ``target`` is the request target, byte for byte (HTTP/2: ``:path``).  ``host`` is the one ``Host``, or all of them
    (HTTP/2: the first is ``:authority``, the others are fields).  ``expect`` are the answers (status, code) that are
    right; where there are several, points differ in which of them they give, and docs/reference/bypasses.md says it.
    ``before`` is an attempt that is made first, on the same connection.  ``caller`` is who shows a certificate.
    ``hidden`` are fields that must not arrive at the application where the request is served.
    """

    number: int
    name: str
    target: bytes = b"/admin"
    method: bytes = b"GET"
    headers: Pairs = ()
    host: tuple[bytes, ...] = (b"orders",)
    version: bytes = b"HTTP/1.1"
    body: bytes = b""
    on: frozenset[str] = BOTH
    expect: tuple[tuple[int, str], ...] = (DENIED,)
    caller: str = "storefront"
    before: Attempt | None = None
    hidden: tuple[bytes, ...] = ()
    state: str = ""
    checks_body: bool = field(default=False)

    @property
    def id(self) -> str:
        """Return the number and the name."""
        return f"{self.number} {self.name}"


SOURCES = {
    1: "CVE-2026-26205, CVE-2021-29492",
    2: "CVE-2026-26205",
    3: "CVE-2019-9901",
    4: "CVE-2019-9901",
    5: "ISTIO-SECURITY-2021-005",
    6: "ISTIO-SECURITY-2021-005",
    7: "Istio path normalization",
    8: "RFC 3986 section 6.2.2.2",
    9: "Istio security best practices",
    10: "RFC 3986 section 6.2.3",
    11: "RFC 3986 section 3.3 (parameters)",
    12: "CVE-2019-9900",
    13: "RFC 9112 section 3.2",
    14: "CVE-2026-33186",
    15: "CVE-2026-54282",
    16: "CVE-2026-48710",
    17: "CVE-2021-39155",
    18: "method override conventions",
    19: "RFC 9110 section 9.1",
    20: "GHSA-6384-m2mw-rf54",
    21: "CVE-2026-39858",
    22: "CVE-2024-45806",
    23: "CVE-2026-26308, CVE-2021-32777",
    24: "CVE-2023-27488",
    25: "RFC 9112 section 6.3",
    26: "CVE-2024-23326",
    27: "GHSA-6jwx-7vp4-9847",
    28: "Envoy ext_authz security considerations",
    29: "CVE-2026-39350",
    30: "CVE-2023-27493",
    31: "Envoy failure_mode_allow",
    32: "GHSA-4gph-2hhr-5mwg",
    33: "CVE-2026-41131, CVE-2026-55866",
    34: "CVE-2026-24851, CVE-2025-25196",
    35: "cedar#2428, GHSA-hm46-7j72-rpv9",
    36: "opa#4338",
    37: "decision replay",
}

ELSEWHERE = {
    30: "no point reads a name from a certificate's subject, and a SPIFFE ID with a control character is refused in "
    "the handshake: tests/unit/spiffe, tests/integration/dataplane/test_identity.py",
    35: "conditions are the engine's: tests/unit/authz",
}
"""Attempts that are no request: where they are made instead."""


def _paths(number, *rows):
    """Make an attempt of each (name, target, answer), on every wire; a gRPC call is a POST of the same path."""
    return [
        Attempt(number=number, name=name, target=target, expect=tuple(answers), on=ALL)
        for name, target, *answers in rows
    ]


def _plain(number, name, headers, **more):
    """Make an attempt by headers at a call that is allowed, and one at a call that is not."""
    hidden = more.pop("hidden", tuple(dict.fromkeys(key.lower() for key, _ in headers)))
    return [
        Attempt(
            number=number,
            name=f"{name}, beside an allowed call",
            target=b"/public/x",
            headers=headers,
            expect=more.pop("expect", (PLAIN,)),
            hidden=hidden,
            **more,
        ),
        Attempt(number=number, name=f"{name}, to reach /admin", headers=headers, **more),
    ]


_CHUNKED = ((b"Transfer-Encoding", b"chunked"),)
_WEBSOCKET = (
    (b"Connection", b"Upgrade"),
    (b"Upgrade", b"websocket"),
    (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Key", b"MTIzNDU2Nzg5MDEyMzQ1Ng=="),
)
_ME = b"spiffe://shop.example/service/storefront"
_ROOT = b"spiffe://shop.example/service/root"
_FORGED = b"00000000-1111-4222-8333-444444444444"
_JSON = ((b"Content-Type", b"application/json"),)

ATTEMPTS: tuple[Attempt, ...] = (
    *_paths(
        1,
        ("two slashes", b"//admin", *COLLAPSED),
        ("three slashes", b"///admin", *COLLAPSED),
        ("two slashes within", b"/public//../admin", AMBIGUOUS),
        ("two slashes before a gRPC method", b"/" + GRPC_ADMIN, *COLLAPSED),
    ),
    *_paths(
        2,
        ("a path that reads as an authority", b"//admin/x", *COLLAPSED),
        ("and names another host", b"//evil.example/public/x", *COLLAPSED),
    ),
    *_paths(
        3,
        ("dot segments", b"/public/../admin", AMBIGUOUS),
        ("both dot segments", b"/public/./../admin", AMBIGUOUS),
        ("a dot segment first", b"/./admin", AMBIGUOUS),
        ("dot segments between gRPC methods", b"/shop.v1.Orders/../shop.v1.Admin/Drop", AMBIGUOUS),
    ),
    *_paths(
        4,
        ("encoded dots", b"/public/%2e%2e/admin", AMBIGUOUS),
        ("one of two encoded", b"/public/.%2e/admin", AMBIGUOUS),
        ("in capitals", b"/public/%2E%2E/admin", AMBIGUOUS),
    ),
    *_paths(
        5,
        ("encoded slashes", b"/public%2f..%2fadmin", AMBIGUOUS),
        ("an encoded slash", b"/public/%2Fadmin", AMBIGUOUS),
    ),
    *_paths(
        6,
        ("backslashes", b"/public\\..\\admin", AMBIGUOUS),
        ("encoded backslashes", b"/public/..%5cadmin", AMBIGUOUS),
        ("in capitals", b"/public/%5Cadmin", AMBIGUOUS),
    ),
    *_paths(
        7,
        ("encoded twice", b"/public/%252e%252e%252fadmin", AMBIGUOUS),
        ("an encoded percent sign", b"/public/%25", AMBIGUOUS),
    ),
    *_paths(
        8,
        ("an encoded letter", b"/%61dmin", AMBIGUOUS),
        ("the last one", b"/admi%6e", AMBIGUOUS),
        ("a character of a route", b"/%40me", AMBIGUOUS),
        ("a broken triplet", b"/public/%zz", AMBIGUOUS),
        ("an overlong slash", b"/public/%c0%af..%c0%afadmin%2e", AMBIGUOUS),
        ("an encoded letter of a gRPC method", b"/shop.v1.Admin/%44rop", AMBIGUOUS),
    ),
    *_paths(
        9,
        ("a capital letter", b"/Admin", DENIED),
        ("capitals", b"/ADMIN/", DENIED),
        ("of an allowed path", b"/PUBLIC/x", DENIED),
        ("of a gRPC method", b"/shop.v1.orders/charge", DENIED),
    ),
    *_paths(
        10,
        ("a slash behind", b"/admin/", DENIED),
        ("a dot behind", b"/admin/.", AMBIGUOUS),
        ("two slashes behind", b"/admin//", AMBIGUOUS),
        ("a slash behind a gRPC method", GRPC_PLAIN + b"/", DENIED),
    ),
    *_paths(
        11,
        ("a parameter", b"/admin;x=1", AMBIGUOUS),
        ("before dot segments", b"/public;/../admin", AMBIGUOUS),
        ("encoded", b"/public/x%3b/admin", AMBIGUOUS),
    ),
    *_paths(
        12,
        ("an encoded NUL", b"/admin%00", AMBIGUOUS),
        ("an encoded line feed", b"/admin%0a", AMBIGUOUS),
        ("an encoded delete", b"/public/%7f", AMBIGUOUS),
    ),
    *(
        Attempt(number=12, name=name, target=target, expect=(AMBIGUOUS, BAD))
        for name, target in (
            ("a control character", b"/admin\x01"),
            ("bytes beyond ASCII", b"/public/\xff\xfe"),
        )
    ),
    Attempt(number=12, name="a line feed", target=b"/admin\n", on=ONLY2, expect=(AMBIGUOUS, BAD)),
    Attempt(number=12, name="a NUL", target=b"/admin\x00", on=BOTH, expect=(AMBIGUOUS, BAD)),
    Attempt(number=13, name="an allowed path in the query", target=b"/admin?x=/public/x"),
    Attempt(number=13, name="a query that is one", target=b"/admin?/public/x"),
    Attempt(number=13, name="a fragment", target=b"/admin#/public/x", expect=(AMBIGUOUS, BAD)),
    Attempt(
        number=13,
        name="a fragment behind an allowed path",
        target=b"/public/x#/admin",
        expect=(AMBIGUOUS, BAD),
    ),
    Attempt(number=13, name="the absolute form", target=b"http://orders/admin", expect=(AMBIGUOUS, BAD)),
    Attempt(
        number=13,
        name="the absolute form of what is allowed",
        target=b"http://orders/public/x",
        expect=(AMBIGUOUS, BAD),
    ),
    Attempt(
        number=13,
        name="the absolute form with another host",
        target=b"http://evil.example/public/x",
        expect=(AMBIGUOUS, BAD),
    ),
    Attempt(number=13, name="the asterisk form", method=b"OPTIONS", target=b"*", expect=(AMBIGUOUS, BAD)),
    Attempt(
        number=13,
        name="the authority form",
        method=b"CONNECT",
        target=b"orders:443",
        on=ONLY1,
        expect=(AMBIGUOUS, BAD, DENIED),
    ),
    Attempt(number=14, name="a path without its slash", target=b"admin", expect=(AMBIGUOUS, BAD)),
    Attempt(number=14, name="an allowed path without its slash", target=b"public/x", expect=(AMBIGUOUS, BAD)),
    Attempt(
        number=14,
        name="a gRPC method without its slash",
        target=GRPC_ADMIN[1:],
        on=ONLY_GRPC,
        expect=(AMBIGUOUS, BAD),
    ),
    Attempt(
        number=14,
        name="an allowed gRPC method without its slash",
        target=GRPC_PLAIN[1:],
        on=ONLY_GRPC,
        expect=(AMBIGUOUS, BAD),
    ),
    Attempt(number=14, name="no path", target=b"", on=ONLY2 | ONLY_GRPC, expect=(AMBIGUOUS, BAD)),
    Attempt(
        number=15,
        name="a target that moves the host",
        target=b"@evil.example/public/x",
        expect=(AMBIGUOUS, BAD),
    ),
    Attempt(number=15, name="a target that is a port", target=b":80/public/x", expect=(AMBIGUOUS, BAD)),
    Attempt(number=16, name="a host with a path", host=(b"orders/public/x?",), expect=(BAD, DENIED)),
    Attempt(
        number=16,
        name="a host with a path, beside an allowed call",
        target=b"/public/x",
        host=(b"orders/admin?",),
        expect=(BAD,),
    ),
    Attempt(
        number=16,
        name="a host with a user",
        target=b"/public/x",
        host=(b"orders@evil.example",),
        expect=(BAD,),
    ),
    Attempt(number=16, name="a host with a fragment", target=b"/public/x", host=(b"orders#",), expect=(BAD,)),
    Attempt(
        number=16, name="a host with a backslash", target=b"/public/x", host=(b"orders\\evil",), expect=(BAD,)
    ),
    Attempt(number=17, name="a host in capitals", host=(b"ORDERS",)),
    Attempt(number=17, name="a host with dot and port", host=(b"orders.:443",)),
    Attempt(number=17, name="another host", host=(b"evil.example",)),
    Attempt(
        number=17,
        name="another host, beside an allowed call",
        target=b"/public/x",
        host=(b"evil.example",),
        expect=(PLAIN,),
    ),
    Attempt(
        number=17,
        name="two hosts",
        target=b"/public/x",
        host=(b"orders", b"evil.example"),
        on=ONLY1,
        expect=(BAD,),
    ),
    Attempt(
        number=17,
        name="an authority and another host",
        target=b"/public/x",
        host=(b"orders", b"evil.example"),
        on=ONLY2,
        expect=(BAD, PLAIN),
    ),
    Attempt(
        number=17,
        name="two hosts in one field",
        target=b"/public/x",
        host=(b"orders, evil.example",),
        expect=(BAD,),
    ),
    Attempt(number=17, name="no host", target=b"/public/x", host=(), on=ONLY1, expect=(BAD, PLAIN)),
    *(
        attempt
        for name in (b"X-HTTP-Method-Override", b"X-Method-Override", b"X-HTTP-Method")
        for attempt in _plain(18, name.decode(), ((name, b"DELETE"),))
    ),
    Attempt(number=18, name="_method in the query", target=b"/public/x?_method=DELETE", expect=(PLAIN,)),
    Attempt(
        number=18,
        name="_method in a form",
        method=b"POST",
        target=b"/public/x",
        body=b"_method=GET",
        headers=((b"Content-Type", b"application/x-www-form-urlencoded"),),
    ),
    *(
        Attempt(
            number=19,
            name=f"{method.decode()[:8]}{'…' if len(method) > 8 else ''}",
            method=method,
            target=b"/public/x",
            expect=(DENIED, BAD, PLAIN) if method == b"get" else (DENIED, BAD, AMBIGUOUS),
            on=ALL if method != b"CONNECT" else ONLY1,
        )
        for method in (b"get", b"GETX", b"HEAD", b"TRACE", b"CONNECT", b"PATCH", b"PURGE", b"X" * 200)
    ),
    Attempt(number=19, name="a POST where a GET is allowed", method=b"POST", target=b"/public/x"),
    *(
        attempt
        for name in (
            b"X-Original-URL",
            b"X-Rewrite-URL",
            b"X-Original-Method",
            b"X-Forwarded-Uri",
            b"X-Forwarded-Path",
            b"X-Forwarded-Prefix",
            b"X-Forwarded-Host",
            b"X-Forwarded-For",
            b"Forwarded",
            b"X-Envoy-Original-Path",
        )
        for attempt in _plain(20, name.decode(), ((name, b"/evil"),))
    ),
    *(
        Attempt(
            number=21,
            name=name.decode(),
            target=b"/public/x",
            headers=((name, b"root"),),
            expect=(BAD, PLAIN),
            hidden=(name.lower(), name.lower().replace(b"_", b"-")),
            on=ALL,
        )
        for name in (
            b"x_everyhop_caller",
            b"X_Forwarded_Proto",
            b"x-everyhop_subject",
            b"X_HTTP_Method_Override",
        )
    ),
    *(
        attempt
        for name, value in (
            (b"x-everyhop-caller", _ROOT),
            (b"X-Everyhop-Operation", b"admin"),
            (b"X-EVERYHOP-User", b"root"),
            (b"X-Forwarded-Client-Cert", b"Hash=" + b"a" * 64 + b";URI=" + _ROOT),
            (b"X-Envoy-Internal", b"true"),
        )
        for attempt in _plain(22, name.decode(), ((name, value),))
    ),
    Attempt(
        number=22,
        name="a gRPC call that claims a caller",
        target=GRPC_ADMIN,
        headers=((b"x-everyhop-caller", _ROOT),),
        on=ONLY_GRPC,
        expect=(DENIED, BAD),
    ),
    Attempt(
        number=22,
        name="a Txn-Token where none is read",
        target=b"/public/x",
        headers=((b"Txn-Token", b"e30.e30.x"),),
        expect=(PLAIN,),
        hidden=(b"txn-token",),
    ),
    Attempt(
        number=23,
        name="the caller twice",
        headers=((b"x-everyhop-caller", _ME), (b"x-everyhop-caller", _ROOT)),
        on=ALL,
        expect=(DENIED, BAD),
    ),
    Attempt(
        number=23,
        name="two callers in one field",
        headers=((b"x-everyhop-caller", _ME + b"," + _ROOT),),
        on=ALL,
        expect=(DENIED, BAD),
    ),
    Attempt(
        number=23,
        name="two Authorization fields",
        headers=((b"Authorization", b"Bearer a"), (b"Authorization", b"Bearer b")),
        on=ALL,
    ),
    Attempt(
        number=24, name="a header that is no UTF-8", headers=((b"A", b"\xff\xfe"),), expect=(DENIED, BAD)
    ),
    Attempt(number=24, name="a NUL in a header", headers=((b"A", b"a\x00b"),), expect=(DENIED, BAD)),
    Attempt(
        number=24,
        name="a NUL in a header, beside an allowed call",
        target=b"/public/x",
        headers=((b"A", b"a\x00b"),),
        expect=(BAD,),
    ),
    Attempt(
        number=25,
        name="Connection: x-everyhop-caller",
        headers=((b"Connection", b"x-everyhop-caller"),),
        on=ONLY1,
    ),
    Attempt(
        number=25,
        name="Connection: x-everyhop-caller, beside an allowed call",
        target=b"/public/x",
        headers=((b"Connection", b"x-everyhop-caller, x-everyhop-operation"),),
        on=ONLY1,
        expect=(PLAIN,),
    ),
    Attempt(
        number=25,
        name="a length beside chunks",
        method=b"POST",
        target=b"/submit",
        headers=(*_CHUNKED, (b"Content-Length", b"5")),
        body=b"0\r\n\r\n",
        on=ONLY1,
        expect=(BAD,),
    ),
    Attempt(
        number=25,
        name="two lengths",
        method=b"POST",
        target=b"/submit",
        headers=((b"Content-Length", b"2"), (b"Content-Length", b"3")),
        body=b"{} ",
        on=ONLY1,
        expect=(BAD, NOT_JSON),
    ),
    Attempt(
        number=25,
        name="a list of lengths",
        method=b"POST",
        target=b"/submit",
        headers=((b"Content-Length", b"2, 3"),),
        body=b"{} ",
        on=ONLY1,
        expect=(BAD,),
    ),
    Attempt(
        number=25,
        name="a length with a sign",
        method=b"POST",
        target=b"/submit",
        headers=((b"Content-Length", b"+2"),),
        body=b"{}",
        on=ONLY1,
        expect=(BAD,),
    ),
    Attempt(
        number=25,
        name="an unknown transfer coding",
        method=b"POST",
        target=b"/submit",
        headers=((b"Transfer-Encoding", b"xchunked"),),
        body=b"0\r\n\r\n",
        on=ONLY1,
        expect=(BAD, NOT_JSON, (501, "REQUEST_REFUSED")),
    ),
    Attempt(
        number=26,
        name="a WebSocket where none is declared",
        target=b"/public/x",
        headers=_WEBSOCKET,
        on=ONLY1,
    ),
    Attempt(number=26, name="a WebSocket to /admin", headers=_WEBSOCKET, on=ONLY1),
    Attempt(
        number=26,
        name="h2c",
        headers=(
            (b"Connection", b"Upgrade, HTTP2-Settings"),
            (b"Upgrade", b"h2c"),
            (b"HTTP2-Settings", b"AAMAAABkAAQCAAAAAAIAAAAA"),
        ),
        on=ONLY1,
    ),
    Attempt(number=27, name="a prefix that nobody declared", target=b"/mounted/admin"),
    Attempt(
        number=27, name="an encoded slash behind a prefix", target=b"/public%2fadmin", expect=(AMBIGUOUS,)
    ),
    Attempt(
        number=27,
        name="a prefix that is taken away twice",
        target=b"/public/public/../admin",
        expect=(AMBIGUOUS,),
    ),
    Attempt(number=27, name="X-Script-Name", headers=((b"X-Script-Name", b"/public"),)),
    Attempt(
        number=28,
        name="a header that another route would be chosen by",
        headers=(
            (b"X-Original-URL", b"/public/x"),
            (b"X-Envoy-Original-Path", b"/public/x"),
            (b"X-Rewrite-URL", b"/public/x"),
        ),
    ),
    *(
        Attempt(
            number=29, name=f"{caller}, a look-alike", caller=caller, target=b"/public/x", expect=(DENIED,)
        )
        for caller in (
            "storefront-evil",
            "storefron",
            "Storefront",
            "storefront.",
            "stranger",
            "storefront/x",
        )
    ),
    Attempt(
        number=29,
        name="another trust domain",
        caller="spiffe://evil.example/service/storefront",
        target=b"/public/x",
        expect=((0, ""),),
    ),
    Attempt(
        number=31,
        name="no policy can be had",
        target=b"/public/x",
        state="down",
        expect=(UNAVAILABLE,),
        on=ALL,
    ),
    Attempt(
        number=32,
        name="a member twice",
        method=b"POST",
        target=b"/submit",
        headers=_JSON,
        body=b'{"role":"user","role":"admin"}',
        checks_body=True,
        expect=(MALFORMED_BODY,),
    ),
    Attempt(
        number=32,
        name="a member in another case",
        method=b"POST",
        target=b"/submit",
        headers=_JSON,
        body=b'{"role":"user","Role":"admin"}',
        checks_body=True,
        expect=((422, "BODY_INVALID"),),
    ),
    Attempt(
        number=32,
        name="two content types",
        method=b"POST",
        target=b"/submit",
        headers=(*_JSON, (b"Content-Type", b"text/plain")),
        body=b'{"role":"user"}',
        checks_body=True,
        expect=(NOT_JSON, BAD),
    ),
    Attempt(
        number=32,
        name="a second document",
        method=b"POST",
        target=b"/submit",
        headers=_JSON,
        body=b'{"role":"user"}{"role":"admin"}',
        checks_body=True,
        expect=(MALFORMED_BODY,),
    ),
    Attempt(
        number=32,
        name="another type than it is",
        method=b"POST",
        target=b"/submit",
        headers=((b"Content-Type", b"application/x-www-form-urlencoded"),),
        body=b'{"role":"user"}',
        checks_body=True,
        expect=(NOT_JSON,),
    ),
    Attempt(
        number=33,
        name="a decision of the path before",
        before=Attempt(number=33, name="", target=b"/public/x", expect=(PLAIN,)),
    ),
    Attempt(
        number=33,
        name="a decision of the method before",
        method=b"DELETE",
        target=b"/public/x",
        before=Attempt(number=33, name="", target=b"/public/x", expect=(PLAIN,)),
    ),
    Attempt(
        number=34,
        name="one of many that is not public",
        target=b"/notes/secret",
        before=Attempt(number=34, name="", target=b"/notes/1", expect=(PLAIN,)),
    ),
    Attempt(number=34, name="spelled as one of the many", target=b"/notes/%73ecret", expect=(AMBIGUOUS,)),
    Attempt(
        number=36, name="a grant that is gone since the last call", target=b"/public/x", state="withdrawn"
    ),
    Attempt(
        number=37,
        name="the decision id of another call",
        headers=((b"x-everyhop-decision", _FORGED),),
        on=ALL,
        expect=(DENIED, BAD),
    ),
    Attempt(
        number=37,
        name="the decision id of another call, beside an allowed one",
        target=b"/public/x",
        headers=((b"x-everyhop-decision", _FORGED),),
        expect=(PLAIN,),
        hidden=(b"x-everyhop-decision",),
    ),
    # What only HTTP/2 can say.
    Attempt(
        number=14,
        name="a second :path",
        target=b"/public/x",
        headers=((b":path", b"/admin"),),
        on=ONLY2,
        expect=(BAD,),
    ),
    Attempt(
        number=17,
        name="a second :authority",
        target=b"/public/x",
        headers=((b":authority", b"evil"),),
        on=ONLY2,
        expect=(BAD,),
    ),
    Attempt(
        number=19,
        name="a second :method",
        target=b"/public/x",
        headers=((b":method", b"DELETE"),),
        on=ONLY2,
        expect=(BAD,),
    ),
    Attempt(
        number=25,
        name="a transfer coding in HTTP/2",
        target=b"/public/x",
        headers=_CHUNKED,
        on=ONLY2,
        expect=(BAD,),
    ),
    Attempt(
        number=25,
        name="Connection in HTTP/2",
        target=b"/public/x",
        headers=((b"connection", b"x-everyhop-caller"),),
        on=ONLY2,
        expect=(BAD, PLAIN),
    ),
    Attempt(
        number=26,
        name="a WebSocket over HTTP/2",
        method=b"CONNECT",
        target=b"/public/x",
        headers=((b":protocol", b"websocket"), (b"sec-websocket-version", b"13")),
        on=ONLY2,
        expect=(DENIED, BAD),
    ),
    Attempt(
        number=26,
        name="a WebSocket over HTTP/2 to /admin",
        method=b"CONNECT",
        headers=((b":protocol", b"websocket"), (b"sec-websocket-version", b"13")),
        on=ONLY2,
        expect=(DENIED, BAD),
    ),
)
