# SPDX-License-Identifier: Apache-2.0
"""HTTP on Unix sockets: strict reading of bodies, and serving an app on a socket that is already bound."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from everyhop.api.problems import on_everyhop_error, on_http_exception, on_unexpected
from everyhop.core.clock import parse_rfc3339
from everyhop.core.errors import AttestationError, EveryhopError, InputError
from everyhop.wire.peers import peer_of, uid_of

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable, Generator, Sequence
    from datetime import datetime

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from everyhop.wire.peers import PeerInfo

_log = logging.getLogger(__name__)
T = TypeVar("T")
_UID: Final = "uid:"
MAX_BODY_BYTES: Final = 16 * 1024 * 1024
KEEP_ALIVE_SECONDS: Final = 30
"""How long a server keeps an idle connection: many times what our clients use one again after."""


async def read_message(request: Request, kind: type[T], *, max_bytes: int = MAX_BODY_BYTES) -> T:
    """Read and parse a JSON body; raises InputError when it is too large, malformed or has unknown members."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise InputError(f"the body exceeds {max_bytes} bytes")
    try:
        return msgspec.json.decode(bytes(body), type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputError(f"the body is not a valid message: {error}") from error


def reply(message: object, status: int = 200) -> Response:
    """Build a JSON answer."""
    return Response(msgspec.json.encode(message), status_code=status, media_type="application/json")


def moment_of(text: str | None) -> datetime | None:
    """Return the RFC 3339 time of a query parameter, aware, or None where there is none; raises InputError."""
    if text is None:
        return None
    try:
        return parse_rfc3339(text)
    except ValueError as error:
        raise InputError(f"not a time: {text[:40]!r}", hint="e.g. 2026-01-31T09:00:00Z") from error


def make_app(routes: Sequence[BaseRoute]) -> Starlette:
    """Build an app whose every error is a problem document."""
    return Starlette(
        routes=list(routes),
        exception_handlers={
            EveryhopError: on_everyhop_error,
            HTTPException: on_http_exception,
            Exception: on_unexpected,
        },
    )


class SocketServer(uvicorn.Server):
    """A uvicorn server that leaves signals to the process that owns it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Install no signal handlers: ``runtime`` decides about signals."""
        yield

    def stop(self) -> None:
        """Ask the server to end: open requests may finish, streams are cut."""
        self.should_exit = True


def http_server(
    app: Any,
    *,
    admit: Callable[[PeerInfo], Any] | None = None,
    admit_uid: Callable[[int], None] | None = None,
    keep_alive: int = KEEP_ALIVE_SECONDS,
) -> SocketServer:
    """Prepare a server for ``app``; call ``serve(sockets=[…])`` to run it.

    ``admit`` looks at the process behind each new connection and refuses it by raising AttestationError; what it
    returns, unless it is None, is the application of that connection in place of ``app``.  ``admit_uid`` looks at its
    user only, and lets :func:`uid_of_request` tell who it is.  ``keep_alive`` is how many seconds an idle connection
    stays open.
    """
    protocol: Any = "h11"
    if admit is not None:
        protocol = _guarded(admit)
    elif admit_uid is not None:
        protocol = _known(admit_uid)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        http=protocol,
        ws="none",
        loop="asyncio",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=keep_alive,
        h11_max_incomplete_event_size=64 * 1024,
    )
    return SocketServer(config)


def _guarded(admit: Callable[[PeerInfo], Any]) -> type[H11Protocol]:
    class Guarded(H11Protocol):
        """HTTP for those only whom the kernel says to be the right process."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base has it
            super().connection_made(transport)
            try:
                peer = peer_of(transport.get_extra_info("socket"))
                try:
                    self.app = admit(peer) or self.app
                finally:
                    peer.process.close()
            except AttestationError as error:
                _log.warning("connection refused: %s", error.message)
                transport.abort()

    return Guarded


def _known(admit: Callable[[int], None]) -> type[H11Protocol]:
    class Known(H11Protocol):
        """HTTP from users whom the kernel names."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base has it
            super().connection_made(transport)
            try:
                uid = uid_of(transport.get_extra_info("socket"))
                admit(uid)
                self.client = (f"{_UID}{uid}", 0)
            except AttestationError as error:
                _log.warning("connection refused: %s", error.message)
                transport.abort()

    return Known


def uid_of_request(request: Request) -> int | None:
    """Return the uid of the process that connected (SO_PEERCRED), where the server looks at it, else None."""
    host = "" if request.client is None else request.client.host
    number = host.removeprefix(_UID)
    return int(number) if host.startswith(_UID) and number.isdecimal() else None


async def serve_until_stopped(server: SocketServer, listening: socket.socket) -> None:
    """Serve on a bound socket until :meth:`SocketServer.stop`."""
    await server.serve(sockets=[listening])
