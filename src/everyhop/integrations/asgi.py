# SPDX-License-Identifier: Apache-2.0
"""ASGI: every HTTP request and WebSocket is verified before the application sees it.

    app = EveryhopMiddleware(app)

Put it outermost: what stands in front of it serves everybody.  The caller is what the sidecar says when the request
came by the workload's own socket, else the certificate of the TLS connection (:func:`everyhop.sdk.uvicorn_config`,
:func:`everyhop.sdk.hypercorn_config`); else nobody, which is refused.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.errors import TrustError
from everyhop.integrations._arrival import (
    OTHER_PATH,
    PEER_KEY,
    Checks,
    OwnSocket,
    forgotten,
    same_path,
    visible,
)
from everyhop.integrations._workload import Shield
from everyhop.sdk import asgi_peer, serving
from everyhop.sdk.model import Peer, Refusal, Request, Verified

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY_VIOLATION: Final = 1008  # RFC 6455 section 7.4.1
_DENIAL: Final = "websocket.http.response"


class EveryhopMiddleware:
    """Serves ``app`` to verified calls only.

    ``guard`` defaults to the one of this process's workload.  ``prefix`` is what the *server* puts before every path
    (uvicorn's ``--root-path`` does; an application's own ``root_path`` does not): it is no part of what the client
    sent.  ``sidecar_socket`` defaults to ``$EVERYHOP_SOCKET``.
    """

    def __init__(
        self,
        app: Application,
        guard: Checks | None = None,
        *,
        prefix: str = "",
        sidecar_socket: str | None = None,
    ) -> None:
        self.app = app
        self._shield: Final = Shield(guard)
        self._own: Final = OwnSocket(sidecar_socket)
        self._prefix: Final = prefix.rstrip("/").encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the server: a request, a WebSocket, or the lifespan, which passes as it is."""
        kind = scope["type"]
        if kind == "lifespan":
            await self.app(scope, receive, send)
            return
        if kind not in {"http", "websocket"}:
            raise ValueError(f"everyhop cannot check connections of type {kind!r}, so they are not served")
        started = is_withheld = False
        verified: Verified | None = None

        async def watched(message: Message) -> None:
            nonlocal started, is_withheld
            if is_withheld:
                return
            started = True
            if verified is not None and message["type"] == "http.response.start":
                refusal = forgotten(verified, message["status"])
                if refusal is not None:
                    is_withheld = True
                    await _refuse_http(refusal, send)
                    return
            await send(message)

        try:
            guard = await self._guard()
            request = request_of(scope, self._own, self._prefix)
            verified = guard.check(request)
            if not request.via_sidecar:
                scope = {**scope, "headers": visible(scope["headers"], verified)}
            if verified.checks_body and kind == "http":
                receive = await _checked_body(guard, verified, scope, receive)
            with serving(verified):
                await self.app(scope, receive, watched)
        except Refusal as refusal:
            if started:  # too late to say it
                raise
            await answer_refusal(refusal, scope, receive, send)
        except _ClientGoneError:
            return

    async def _guard(self) -> Checks:
        if self._shield.is_ready:
            return self._shield.guard()
        return await asyncio.to_thread(self._shield.guard)  # the first one connects


def request_of(scope: Scope, own: OwnSocket, prefix: bytes = b"") -> Request:
    """Return what the client sent, from an ``http`` or ``websocket`` scope, or why that is unclear as its ``flaw``."""
    raw, flaw = _target(scope, prefix)
    server = scope.get("server")
    if server is None:
        via_sidecar = scope.get("client") is None and own.is_only_unnamed()
    else:
        via_sidecar = own.is_named(server[0])
    return Request(
        method=scope.get("method", "GET"),
        raw_path=raw,
        headers=scope["headers"],
        peer=None if via_sidecar else _peer_of(scope),
        via_sidecar=via_sidecar,
        query=scope.get("query_string", b""),
        is_websocket=scope["type"] == "websocket",
        flaw=flaw,
        source_ip=None if via_sidecar else (scope.get("client") or (None,))[0],
    )


def _target(scope: Scope, prefix: bytes) -> tuple[bytes, str | None]:
    """Return the path as on the wire, less the server's prefix, and why it is unclear."""
    path = scope["path"].encode("utf-8", "surrogateescape")
    raw = scope.get("raw_path")
    if raw is None:
        return path, "this server does not keep the raw path"
    if not same_path(raw, path):
        return raw, OTHER_PATH
    if prefix and not raw.startswith(prefix + b"/"):
        return raw, "the server's prefix is not on the path"
    return raw[len(prefix) :], None


def _peer_of(scope: Scope) -> Peer | None:
    peer = (scope.get("extensions") or {}).get(PEER_KEY)
    if isinstance(peer, Peer):
        return peer
    try:
        return asgi_peer(scope)
    except TrustError:
        return None


class _ClientGoneError(Exception):
    """The client left before its body was complete; nobody waits for an answer."""


async def _checked_body(guard: Checks, verified: Verified, scope: Scope, receive: Receive) -> Receive:
    """Read the body, at most one byte more than may be, check it, and return a receiver that gives it again."""
    chunks: list[bytes] = []
    size = 0
    more = True
    while more and size <= guard.max_body:
        message = await receive()
        if message["type"] == "http.disconnect":
            verified.refusal(
                400, "BODY_MALFORMED", "client-gone", "the client left before its body was complete"
            )
            raise _ClientGoneError
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        more = message.get("more_body", False)
    body = b"".join(chunks)
    types = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"content-type"]
    guard.check_body(verified, types, body)
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def answer_refusal(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request or the handshake of a WebSocket with a refusal, before anything else was sent."""
    if scope["type"] == "http":
        await _refuse_http(refusal, send)
    else:
        await _refuse_websocket(refusal, scope, receive, send)


def _headers_of(refusal: Refusal, body: bytes) -> list[tuple[bytes, bytes]]:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in refusal.headers]
    return [*headers, (b"content-length", str(len(body)).encode())]


async def _refuse_http(refusal: Refusal, send: Send) -> None:
    body = refusal.body
    headers = _headers_of(refusal, body)
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse_websocket(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer the handshake with the refusal where the server can, else close it, which is 403 on the wire."""
    await receive()
    if _DENIAL not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": refusal.code})
        return
    body = refusal.body
    headers = _headers_of(refusal, body)
    await send({"type": f"{_DENIAL}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{_DENIAL}.body", "body": body})
