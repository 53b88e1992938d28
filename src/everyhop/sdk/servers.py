# SPDX-License-Identifier: Apache-2.0
"""From the servers people run to the peer of the connection that a request came on.

What a request *says* never counts here: the connection object is put beside it by the server's own code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.sdk.checked import CONNECTION, CheckedObject, CheckedSocket, peer_of
from everyhop.sdk.tls import server_context

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    import hypercorn.config
    import uvicorn

    from everyhop.sdk.model import Peer
    from everyhop.sdk.sources import X509Source
    from everyhop.sdk.tls import Callers

STATE_KEY: Final = "everyhop.connection"
"""Where :func:`uvicorn_config` puts the connection: in the ASGI scope's ``state``."""

_WSGI_KEYS: Final = ("gunicorn.socket", "werkzeug.socket")


def asgi_peer(scope: Mapping[str, Any]) -> Peer | None:
    """Return the verified peer of an ASGI request's connection, None for one without TLS of ours.

    Works under uvicorn configured by :func:`uvicorn_config` and hypercorn by :func:`hypercorn_config`.  Raises
    TrustError when the peer's certificate has expired on a connection that is still open.
    """
    state = scope.get("state")
    connection = state.get(STATE_KEY) if isinstance(state, dict) else None
    if connection is None:
        connection = CONNECTION.get()
    return peer_of(connection) if isinstance(connection, CheckedObject) else None


def wsgi_peer(environ: Mapping[str, Any]) -> Peer | None:
    """Return the verified peer of a WSGI request's connection, None for one without TLS of ours.

    Works under gunicorn and under werkzeug, which put the socket into ``environ``.
    """
    for key in _WSGI_KEYS:
        connection = environ.get(key)
        if isinstance(connection, CheckedSocket):
            return peer_of(connection)
    return None


def uvicorn_config(app: Any, source: X509Source, callers: Callers, **options: Any) -> uvicorn.Config:
    """Return a uvicorn configuration that serves ``app`` with mutual TLS and hands each connection's peer on.

    ``callers`` as for :func:`everyhop.sdk.server_context`; ``options`` are uvicorn's own.
    """
    import uvicorn

    class Configuration(uvicorn.Config):
        def load(self) -> None:
            super().load()
            self.ssl = server_context(source, callers)
            self.http_protocol_class = _with_connection(self.http_protocol_class)

    return Configuration(app, **options)


def hypercorn_config(source: X509Source, callers: Callers) -> hypercorn.config.Config:
    """Return a hypercorn configuration that serves with mutual TLS; set ``bind`` and the rest on it."""
    import hypercorn.config

    class Configuration(hypercorn.config.Config):
        @property
        def ssl_enabled(self) -> bool:
            return True

        def create_ssl_context(self) -> Any:
            context = server_context(source, callers)
            context.set_alpn_protocols(self.alpn_protocols)
            context.tells_its_task = True
            return context

    return Configuration()


def _with_connection(protocol: Callable[..., asyncio.Protocol]) -> Any:
    """Return the protocol class with the TLS connection in the state that it gives each request."""

    class WithConnection(protocol):  # type: ignore[misc, valid-type]  # whichever protocol uvicorn has chosen
        app_state: dict[str, Any]

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            connection = transport.get_extra_info("ssl_object")
            self.app_state = {**self.app_state, STATE_KEY: connection}

    return WithConnection
