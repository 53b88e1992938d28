# SPDX-License-Identifier: Apache-2.0
"""gRPC on Unix sockets with the peer's credentials: grpclib, with its protocol factory replaced.

Each connection's peer is established when it is accepted and held until its end: when the process exits, the
connection ends, even if another process inherited the socket (docs/adr/0009).  Limits bound what one user
can make us hold; whoever exceeds one loses the connection, nobody else notices.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from grpclib.config import Configuration
from grpclib.const import Status as GrpcStatus
from grpclib.exceptions import GRPCError
from grpclib.protocol import Connection, EventsProcessor, H2Protocol, Stream
from grpclib.server import Handler, Server
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event as H2Event, StreamReset
from h2.settings import SettingCodes, Settings

from everyhop.core.errors import AttestationError
from everyhop.wire.peers import PeerInfo, peer_of
from everyhop.wire.rpc import PEER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from grpclib._typing import IServable

    from everyhop.wire.sockets import UnixListener

log = logging.getLogger(__name__)

_LIVENESS_SECONDS: Final = 1.0  # only where the kernel has no pidfd
_REQUIRED_HEADERS: Final = frozenset({":method", ":path"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one socket admits."""

    connections: int = 1024
    connections_per_uid: int = 256
    streams_per_connection: int = 64
    resets_per_connection: int = 1000  # streams opened and reset again: HTTP/2 "rapid reset"
    max_message_bytes: int = 256 * 1024
    max_header_bytes: int = 16 * 1024
    max_unsent_bytes: int = 4 * 1024 * 1024  # of answers that the peer does not read


class _LimitedStream(Stream):
    """A stream that refuses a message longer than the limit before reading it."""

    max_bytes: int = 0

    async def recv_data(self, size: int) -> bytes:
        if size > self.max_bytes:
            raise GRPCError(GrpcStatus.RESOURCE_EXHAUSTED, f"a message has at most {self.max_bytes} bytes")
        return await super().recv_data(size)


class _LimitedConnection(Connection):
    """A connection whose streams are limited."""

    def __init__(
        self, connection: H2Connection, transport: asyncio.Transport, *, config: Configuration, limits: Limits
    ) -> None:
        super().__init__(connection, transport, config=config)
        self._limits = limits

    def create_stream(self, *, stream_id: int | None = None, wrapper: Any = None) -> Stream:
        stream = _LimitedStream(self, self._connection, self._transport, stream_id=stream_id, wrapper=wrapper)
        stream.max_bytes = self._limits.max_message_bytes
        return stream


class _PeerHandler(Handler):
    """Starts each call with its connection's peer in the context."""

    peer: PeerInfo | None = None

    def accept(
        self, stream: Stream, headers: list[tuple[str, str]], release_stream: Callable[[], Any]
    ) -> None:
        if self.peer is None or not _REQUIRED_HEADERS.issubset(name for name, _ in headers):
            stream.reset_nowait()
            release_stream()
            return
        token = PEER.set(self.peer)
        try:
            super().accept(stream, headers, release_stream)  # its task copies the context
        finally:
            PEER.reset(token)

    def cancel(self, stream: Stream) -> None:
        if stream in self._tasks:
            super().cancel(stream)


class _Events(EventsProcessor):
    """Ignores frames of unknown type (RFC 9113 section 5.5) and counts resets."""

    resets = 0

    def process(self, event: H2Event) -> None:
        known = getattr(self, "processors", {})  # gone once the connection is closed
        if isinstance(event, StreamReset):
            self.resets += 1
        if type(event) in known:
            super().process(event)


@final
class _PeerProtocol(H2Protocol):
    """One connection: establish the peer, serve it, end with it."""

    def __init__(self, server: PeerServer, handler: _PeerHandler, h2_config: H2Configuration) -> None:
        super().__init__(handler, server.configuration, h2_config)
        self._server = server
        self._peer_handler = handler
        self._transport: asyncio.Transport | None = None
        self._peer: PeerInfo | None = None
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # asyncio's contract for stream sockets
        self._transport = transport
        try:
            peer = self._server.admit(transport)
        except AttestationError as error:
            log.warning("connection refused: %s", error.message)
            transport.abort()
            return
        self._peer = self._peer_handler.peer = peer
        self._begin(transport)
        self._watch_peer(peer)
        self._server.joined(self, peer)

    def _begin(self, transport: asyncio.Transport) -> None:
        """Open the HTTP/2 connection with our limits announced in its first frame."""
        limits = self._server.limits
        h2_connection = H2Connection(config=self.h2_config)
        h2_connection.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: limits.streams_per_connection,
                SettingCodes.MAX_HEADER_LIST_SIZE: limits.max_header_bytes,
            },
        )
        h2_connection.decoder.max_header_list_size = limits.max_header_bytes
        h2_connection.initiate_connection()
        self.connection = _LimitedConnection(h2_connection, transport, config=self.config, limits=limits)
        self.connection.flush()
        self.connection.initialize()
        self.processor = _Events(self.handler, self.connection)

    def _watch_peer(self, peer: PeerInfo) -> None:
        loop = asyncio.get_running_loop()
        if peer.process.fd is not None:
            loop.add_reader(peer.process.fd, self._peer_exited)
        else:
            self._watch = loop.call_later(_LIVENESS_SECONDS, self._look_after_peer, peer)

    def _look_after_peer(self, peer: PeerInfo) -> None:
        if peer.is_alive():
            self._watch_peer(peer)
        else:
            self._peer_exited()

    def _peer_exited(self) -> None:
        self.end("the process that connected has exited")

    def data_received(self, data: bytes) -> None:
        if self._peer is None or self._transport is None:
            return
        try:
            super().data_received(data)
        except Exception as error:  # noqa: BLE001  # bytes of a stranger: whatever they break, it is theirs alone
            log.debug("connection of pid %d ended: %r", self._peer.pid, error)
            self.end("protocol error")
            return
        limits = self._server.limits
        resets = getattr(self.processor, "resets", 0)
        if resets > limits.resets_per_connection:
            self.end("too many streams reset")
        elif self._transport.get_write_buffer_size() > limits.max_unsent_bytes:
            self.end("the peer does not read")

    def end(self, reason: str) -> None:
        """Close at once and end every call of this connection."""
        if self._transport is not None:
            self._transport.abort()
        self._forget_peer(reason)

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002  # asyncio's signature
        self._forget_peer("Connection lost")

    def _forget_peer(self, reason: str) -> None:
        peer, self._peer = self._peer, None
        if peer is None:
            return
        if peer.process.fd is not None:
            asyncio.get_running_loop().remove_reader(peer.process.fd)
        if self._watch is not None:
            self._watch.cancel()
        self.processor.close(reason)
        peer.process.close()
        self._server.left(self, peer)


class _Factory(Server):
    """grpclib's server with our protocol in place of its own."""

    owner: PeerServer

    def _protocol_factory(self) -> H2Protocol:
        self.__gc_step__()
        handler = _PeerHandler(self._mapping, self._codec, self._status_details_codec, self.__dispatch__)
        self._handlers.add(handler)
        return _PeerProtocol(self.owner, handler, self._h2_config)


@final
class PeerServer:
    """A gRPC server on one Unix socket; handlers find their caller with ``rpc.current_peer``."""

    def __init__(
        self,
        services: Collection[IServable],
        *,
        limits: Limits | None = None,
        admit: Callable[[PeerInfo], None] | None = None,
        kernel_pidfd: bool = True,
    ) -> None:
        """Prepare to serve; must be called inside the event loop that will serve.

        ``admit`` looks at each new peer and refuses its connection by raising AttestationError.
        ``kernel_pidfd`` false behaves as on kernels without SO_PEERPIDFD.
        """
        self._admit = admit
        self.limits = limits or Limits()
        self.configuration = Configuration().__for_server__()
        self._kernel_pidfd = kernel_pidfd
        self._server = _Factory(services, config=self.configuration)
        self._server.owner = self
        self._connections: dict[_PeerProtocol, PeerInfo] = {}
        self._per_uid: Counter[int] = Counter()

    async def start(self, listener: UnixListener) -> None:
        """Serve on a listening socket; the caller closes it after :meth:`close`."""
        await self._server.start(sock=listener.sock)

    async def close(self) -> None:
        """End every connection and wait until its calls have finished."""
        self._server.close()
        for protocol in tuple(self._connections):
            protocol.end("the server stops")
        await self._server.wait_closed()

    @property
    def peers(self) -> tuple[PeerInfo, ...]:
        """Return the peer of every open connection."""
        return tuple(self._connections.values())

    def admit(self, transport: asyncio.Transport) -> PeerInfo:
        """Establish a new connection's peer; AttestationError when it cannot be, or a limit is reached."""
        connection = transport.get_extra_info("socket")
        if connection is None or connection.family != socket.AF_UNIX:
            raise AttestationError("not a Unix socket")
        if len(self._connections) >= self.limits.connections:
            raise AttestationError(f"more than {self.limits.connections} connections")
        peer = peer_of(connection, kernel_pidfd=self._kernel_pidfd)
        if self._per_uid[peer.uid] >= self.limits.connections_per_uid:
            peer.process.close()
            raise AttestationError(
                f"more than {self.limits.connections_per_uid} connections of uid {peer.uid}"
            )
        if self._admit is not None:
            try:
                self._admit(peer)
            except AttestationError:
                peer.process.close()
                raise
        return peer

    def joined(self, protocol: _PeerProtocol, peer: PeerInfo) -> None:
        """Count a connection."""
        self._connections[protocol] = peer
        self._per_uid[peer.uid] += 1

    def left(self, protocol: _PeerProtocol, peer: PeerInfo) -> None:
        """Count it no more."""
        if self._connections.pop(protocol, None) is not None:
            self._per_uid[peer.uid] -= 1
