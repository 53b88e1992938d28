# SPDX-License-Identifier: Apache-2.0
"""An application as one caller sees it, for in-process test clients: what TLS would prove is given by the test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from everyhop.sdk.model import Peer

PEER_KEY: Final = "everyhop.peer"
"""Where the middlewares of ``everyhop.integrations`` look first for the peer of a connection."""


def asgi_caller(app: Callable[..., Awaitable[None]], peer: Peer) -> Callable[..., Awaitable[None]]:
    """Return the ASGI application as though every connection came from ``peer``."""

    async def called(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            scope = {**scope, "extensions": {**(scope.get("extensions") or {}), PEER_KEY: peer}}
        await app(scope, receive, send)

    return called


def wsgi_caller(app: Callable[..., Iterable[bytes]], peer: Peer) -> Callable[..., Iterable[bytes]]:
    """Return the WSGI application as though every connection came from ``peer``."""

    def called(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ[PEER_KEY] = peer
        return app(environ, start_response)

    return called
