# SPDX-License-Identifier: Apache-2.0
"""gRPC to the agent: one connection on a Unix socket, made anew when it breaks; errors become ours."""

from __future__ import annotations

import os
import socket
import weakref
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from google.protobuf.message import DecodeError, Message
from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from everyhop.core.errors import (
    AccessDenied,
    Conflict,
    EveryhopError,
    InputError,
    NotFound,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from grpclib.protocol import H2Protocol

Reply = TypeVar("Reply", bound=Message)

SECURITY_HEADER: Final = ("workload.spiffe.io", "true")
_MAX_MESSAGE_SHOWN: Final = 300

_ERRORS: Final[dict[Status, type[EveryhopError]]] = {
    Status.INVALID_ARGUMENT: InputError,
    Status.PERMISSION_DENIED: AccessDenied,
    Status.UNAUTHENTICATED: AccessDenied,
    Status.NOT_FOUND: NotFound,
    Status.FAILED_PRECONDITION: Conflict,
}

# What a child must not keep open after a fork: the agent would take it for its parent.
_SOCKETS: Final[weakref.WeakSet[socket.socket]] = weakref.WeakSet()


def _close_in_child() -> None:
    for one in tuple(_SOCKETS):
        descriptor = one.detach()
        if descriptor >= 0:
            os.close(descriptor)


os.register_at_fork(after_in_child=_close_in_child)


class _UnixChannel(Channel):
    """A channel that makes its own socket, so that a forked child can let go of it."""

    def __init__(self, path: str) -> None:
        super().__init__(path=path)
        self._socket_path = path

    async def _create_connection(self) -> H2Protocol:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            await self._loop.sock_connect(made, self._socket_path)
            _, protocol = await self._loop.create_unix_connection(self._protocol_factory, sock=made)
        except BaseException:
            made.close()
            raise
        _SOCKETS.add(made)
        return protocol


class Rpc:
    """Calls of one event loop.  Every call carries the header that shows it was meant for this API."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._channel: _UnixChannel | None = None

    def close(self) -> None:
        """End the connection and every call on it."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    async def unary(self, method: str, request: Message, reply: type[Reply], *, seconds: float) -> Reply:
        """Return the one answer of a call, within ``seconds``; raise an error of the one tree."""
        async with self._stream(method, Cardinality.UNARY_UNARY, request, reply, seconds) as stream:
            message: Reply | None = await stream.recv_message()
            await stream.recv_trailing_metadata()
        if message is None:
            raise Unavailable(f"{method}: an answer without a message")
        return message

    async def stream(self, method: str, request: Message, reply: type[Reply]) -> AsyncIterator[Reply]:
        """Yield the messages of a stream until the agent ends it; raise an error of the one tree."""
        async with self._stream(method, Cardinality.UNARY_STREAM, request, reply, None) as stream:
            while (message := await stream.recv_message()) is not None:
                yield message

    @asynccontextmanager
    async def _stream(
        self, method: str, kind: Cardinality, request: Message, reply: type[Message], seconds: float | None
    ) -> AsyncIterator[Any]:
        if self._channel is None:
            self._channel = _UnixChannel(self.path)
        try:
            async with self._channel.request(
                method, kind, type(request), reply, timeout=seconds, metadata=(SECURITY_HEADER,)
            ) as stream:
                await stream.send_message(request, end=True)
                yield stream
        except (GRPCError, ProtocolError, StreamTerminatedError, DecodeError, OSError, TimeoutError) as error:
            raise translated(error, method, self.path) from error


def translated(error: Exception, method: str, path: str) -> EveryhopError:
    """Return what a failed call means, as an error of the one tree."""
    if isinstance(error, GRPCError):
        kind = _ERRORS.get(error.status)
        text = f"{method}: {error.status.name}: {(error.message or '')[:_MAX_MESSAGE_SHOWN]}"
        if kind is not None:
            return kind(text)
        return Unavailable(text, retry=error.status is not Status.UNIMPLEMENTED)
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return Unavailable(f"nobody listens at {path}", hint="is the agent running? try `everyhop status`")
    if isinstance(error, PermissionError):
        return Unavailable(f"this user may not connect to {path}")
    if isinstance(error, TimeoutError):
        return Unavailable(f"{method}: no answer in time")
    return Unavailable(f"{method}: the connection to the agent broke ({type(error).__name__})")
