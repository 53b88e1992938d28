# SPDX-License-Identifier: Apache-2.0
"""A client for proofs: each request goes out byte for byte as it stands, over TLS with the SVID of its caller.

Connections are kept by caller, so a thousand requests cost a handshake for each of a few callers.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError, Unavailable
from everyhop.dataplane.model import LOOPBACK
from everyhop.evaluators.model import Outcome, Wire
from everyhop.runtime.mtls import client_context
from everyhop.runtime.target_places import ASKED, REACHED
from everyhop.spiffe.ids import SpiffeId
from everyhop.testing.authority import Authority

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.evaluators.model import Request

ANSWER_SECONDS: Final = 60.0
AUTHORIZER: Final = "authorizer"
_MAX_HEAD: Final = 64 * 1024
_NO_BODY: Final = frozenset({101, 204, 304})
_WITHOUT_LENGTH: Final = frozenset({"GET", "HEAD", "CONNECT"})
_WEBSOCKET: Final = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "ZXZlcnlob3AgcHJvdmVzIQ==",
}
_SAID: Final = b"everyhop proves\r\n"  # too long for Envoy to wait for the rest of what might be TLS
_CLOSED: Final = (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class TargetCaller:
    """Calls one listener on loopback as many callers; ``mark`` is what the application's stand-in answers with."""

    def __init__(self, port: int, authority: Authority, mark: str, *, is_tcp: bool) -> None:
        self._port = port
        self._mark = mark
        self._is_tcp = is_tcp
        self._authority = authority
        self._authorities = {authority.trust_domain.name: authority}
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._connections: dict[str | None, Connection] = {}

    async def ask(self, request: Request) -> Outcome:
        """Return what became of a request; raises Unavailable when there is no answer in time."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await (self._connect(request) if self._is_tcp else self._call(request))
        except TimeoutError as error:
            raise Unavailable(f"no answer to {request.method} {request.path} in time") from error

    async def close(self) -> None:
        """End every connection."""
        for peer in list(self._connections):
            await self._forget(peer)

    # -- bytes

    async def _connect(self, request: Request) -> Outcome:
        """Open a connection and say something: a network filter decides no earlier than that."""
        try:
            reader, writer = await self._opened(request.peer)
        except _CLOSED as error:
            return Outcome(allowed=False, why=f"the connection failed: {type(error).__name__}")
        try:
            writer.write(_SAID)
            await writer.drain()
            got = await reader.read(len(self._mark))
        except _CLOSED as error:
            return Outcome(allowed=False, why=f"the connection ended: {type(error).__name__}")
        finally:
            writer.transport.abort()
        return Outcome(allowed=got == self._mark.encode(), why="connected" if got else "the connection ended")

    # -- HTTP

    async def _call(self, request: Request) -> Outcome:
        kept = request.peer in self._connections
        try:
            return await self._sent(request)
        except _CLOSED as error:
            await self._forget(request.peer)
            if not kept:
                return Outcome(allowed=False, why=f"the connection ended: {type(error).__name__}")
        # The listener may have ended a kept connection before it saw the request; on a new one it is an answer.
        return await self._call(request)

    async def _sent(self, request: Request) -> Outcome:
        connection = self._connections.get(request.peer)
        if connection is None:
            connection = self._connections[request.peer] = await self._opened(request.peer)
        reader, writer = connection
        writer.write(_message(request))
        await writer.drain()
        status, headers = await _head(reader)
        if status not in _NO_BODY and request.method != "HEAD":
            await _skip_body(reader, headers)
        if (
            headers.get("connection") == "close"
            or request.wire is Wire.WEBSOCKET
            or request.method == "CONNECT"
        ):
            await self._forget(request.peer)
        return Outcome(
            allowed=headers.get(REACHED) == self._mark,
            why=str(status),
            asks=AUTHORIZER if headers.get(ASKED) == self._mark else None,
        )

    async def _opened(self, peer: str | None) -> Connection:
        if peer is None:
            return await asyncio.open_connection(LOOPBACK, self._port, limit=_MAX_HEAD)
        return await asyncio.open_connection(
            LOOPBACK, self._port, limit=_MAX_HEAD, ssl=self._context(peer), server_hostname="everyhop"
        )

    def _context(self, peer: str) -> ssl.SSLContext:
        found = self._contexts.get(peer)
        if found is None:
            trust_domain = SpiffeId.parse(peer).trust_domain.name
            authority = self._authorities.setdefault(trust_domain, Authority(trust_domain))
            svid = authority.issue(peer)
            found = client_context(svid.chain, svid.key.reveal(), self._authority.bundle.x509_authorities)
            self._contexts[peer] = found
        return found

    async def _forget(self, peer: str | None) -> None:
        connection = self._connections.pop(peer, None)
        if connection is not None:
            connection[1].transport.abort()


def _message(request: Request) -> bytes:
    """Return a request as bytes; raises InputError where a line break would make two of it."""
    headers: dict[str, tuple[str, ...]] = {"host": (request.host or "app",)}
    if request.wire is Wire.WEBSOCKET:
        headers |= {name: (value,) for name, value in _WEBSOCKET.items()}
    elif request.method not in _WITHOUT_LENGTH:
        headers["content-length"] = ("0",)
    if request.wire is Wire.GRPC:
        headers |= {"content-type": ("application/grpc",), "te": ("trailers",)}
    headers |= request.headers
    lines = [f"{request.method} {request.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, values in headers.items() for value in values]
    if any("\r" in line or "\n" in line for line in lines):
        raise InputError("a request with a line break in a line cannot be sent")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _head(reader: asyncio.StreamReader) -> tuple[int, Mapping[str, str]]:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
    status = int(first.split(" ")[1])
    fields = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in fields}
    if status == 100:  # noqa: PLR2004  # Continue: the answer follows
        return await _head(reader)
    return status, headers


async def _skip_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> None:
    if headers.get("transfer-encoding") == "chunked":
        while True:
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            await reader.readexactly(size + 2)
            if size == 0:
                return
    await reader.readexactly(int(headers.get("content-length", "0")))
