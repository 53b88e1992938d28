# SPDX-License-Identifier: Apache-2.0
"""Attacks on message framing: where one reader sees one request and another sees two.

Each smuggled request carries a mark of its own, and the applications' logs show that it never arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http.client import OK
from typing import TYPE_CHECKING, Final

from everyhop.demo import http2
from everyhop.demo.model import Attempt, Seen
from everyhop.demo.range import MARK
from everyhop.demo.raw import describe_error

if TYPE_CHECKING:
    from everyhop.demo.range import Range
    from everyhop.demo.raw import Reply

_THEME: Final = "framing"
_INNER: Final = "GET /admin/export HTTP/1.1\r\nhost: orders\r\nx-demo-mark: @inner@\r\n\r\n"

_ONE: Final = "200, nothing smuggled"

# What stands between the request's own headers and its end; @inner@ becomes the mark of what is smuggled.
_SHAPES: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "Content-Length and Transfer-Encoding",
        f"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{_INNER}",
        "400",
    ),
    ("two Content-Lengths", f"content-length: 5\r\ncontent-length: 0\r\n\r\nabcde{_INNER}", "400"),
    ("Content-Length: +5", f"content-length: +5\r\n\r\nabcde{_INNER}", "400"),
    ("Content-Length: -1", f"content-length: -1\r\n\r\n{_INNER}", "400"),
    ("Transfer-Encoding: xchunked", f"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{_INNER}", "501"),
    (
        "Transfer-Encoding: chunked, identity",
        f"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{_INNER}",
        "501",
    ),
    ("space before the colon", f"transfer-encoding : chunked\r\n\r\n0\r\n\r\n{_INNER}", "400"),
    (
        "obs-fold (unfolded)",
        f"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n{_INNER}",
        _ONE,
    ),
    ("chunk size 0x1", f"transfer-encoding: chunked\r\n\r\n0x1\r\nA\r\n0\r\n\r\n{_INNER}", "400"),
    (
        "chunk size beyond 64 bits",
        f"transfer-encoding: chunked\r\n\r\n10000000000000000\r\n{_INNER}",
        "400",
    ),
    ("NUL in a header", f"x-a: a\0b\r\n\r\n{_INNER}", "400"),
    ("bare CR in a header (taken out)", f"x-a: a\rx-smuggled: b\r\n\r\n{_INNER}", _ONE),
    ("header without a name", f": value\r\n\r\n{_INNER}", "400"),
    ("space in a header's name", f"x a: b\r\n\r\n{_INNER}", "400"),
)


def _smuggle(shape: str) -> Callable[[Range], Seen]:
    def run(field: Range) -> Seen:
        head = f"POST /orders HTTP/1.1\r\nhost: orders\r\n{MARK}: {field.mark}\r\n"
        data = (head + shape.replace("@inner@", f"{field.mark}-inner")).encode("latin-1")
        return _told(field.raw("storefront", "orders", data))

    return run


def _told(reply: Reply) -> Seen:
    """Say what came back; where the application answered, also whether it saw more than it should."""
    if reply.status != OK:
        return Seen(text=reply.text)
    smuggled = any("smuggled" in str(name) for name, _ in reply.json.get("saw", []))
    return Seen(text=f"200, {'a smuggled header' if smuggled else 'nothing smuggled'}")


def _exactly(data: str) -> Callable[[Range], Seen]:
    """Return an attack that sends these bytes, with ``@mark@`` replaced."""

    def run(field: Range) -> Seen:
        raw = data.replace("@mark@", field.mark).encode("latin-1")
        return _told(field.raw("storefront", "orders", raw))

    return run


def _headers(count: int, size: int) -> Callable[[Range], Seen]:
    def run(field: Range) -> Seen:
        headers = [(f"x-filler-{number}", "a" * size) for number in range(count)]
        return Seen(text=field.call("storefront", "orders", "GET", "/orders", headers=headers).text)

    return run


def _http2(
    extra: Sequence[tuple[str, str]], *, path: str = "/orders", body: bytes | None = None
) -> Callable[[Range], Seen]:
    def run(field: Range) -> Seen:
        headers = [
            (":method", "GET" if body is None else "POST"),
            (":scheme", "https"),
            (":authority", "orders"),
            (":path", path),
            (MARK, field.mark),
            *((name, value.replace("@inner@", f"{field.mark}-inner")) for name, value in extra),
        ]
        try:
            with field.connect("orders", field.identity("storefront"), alpn=("h2",)) as connection:
                reply = http2.call(connection, headers, body=body)
        except OSError as error:
            return Seen(text=describe_error(error))
        return Seen(text=reply.text, decision=reply.decision)

    return run


def attacks() -> list[Attempt]:
    """Return the attacks of this theme."""
    named: list[tuple[str, str, Callable[[Range], Seen]]] = [
        (
            "bare LF as line end (RFC 9112, 2.2)",
            _ONE,
            _exactly("GET /orders HTTP/1.1\nhost: orders\nx-demo-mark: @mark@\n\n"),
        ),
        ("no Host", "400", _exactly("GET /orders HTTP/1.1\r\nx-demo-mark: @mark@\r\n\r\n")),
        ("HTTP/0.9", "426", _exactly("GET /orders\r\n\r\n")),
        (
            "HTTP/3.7 as version",
            "426",
            _exactly("GET /orders HTTP/3.7\r\nhost: orders\r\nx-demo-mark: @mark@\r\n\r\n"),
        ),
        ("headers of 40 KiB", "431", _headers(10, 4096)),
        ("200 headers", "431", _headers(200, 1)),
        ("HTTP/2: CRLF in a header's value", "stream reset", _http2([("x-a", f"b\r\n\r\n{_INNER}")])),
        ("HTTP/2: path without leading slash", "stream reset", _http2([], path="admin/export")),
        ("HTTP/2: dot segments", "400 ambiguous-path", _http2([], path="/files/../admin/export")),
        ("HTTP/2: header's name in capitals", "stream reset", _http2([("X-Upper", "1")])),
        ("HTTP/2: two :path headers", "stream reset", _http2([(":path", "/admin/export")])),
        ("HTTP/2: Transfer-Encoding", "stream reset", _http2([("transfer-encoding", "chunked")])),
        (
            "HTTP/2: body longer than its Content-Length",
            "stream reset",
            _http2([("content-length", "1")], body=b"a" + _INNER.encode()),
        ),
    ]
    return [
        *(
            Attempt(theme=_THEME, name=name, expected=expected, run=_smuggle(shape), reaches=True)
            for name, shape, expected in _SHAPES
        ),
        *(
            Attempt(
                theme=_THEME,
                name=name,
                expected=expected,
                run=run,
                # Headers go on before the body has come; only what the body hides must not arrive.
                reaches=expected == _ONE or "body" in name,
            )
            for name, expected, run in named
        ),
    ]
