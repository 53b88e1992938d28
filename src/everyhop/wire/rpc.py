# SPDX-License-Identifier: Apache-2.0
"""gRPC methods as plain routes: a path, two message classes and a handler that knows its peer.

The handler gets a :class:`Call` and raises errors of the one tree; :data:`STATUS_OF` is the one table from
error class to gRPC status.  Messages of refusals are ours and hold no secret; anything unexpected becomes
INTERNAL without detail.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from google.protobuf.message import DecodeError, Message
from grpclib.const import Cardinality, Handler as Route, Status as GrpcStatus
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from everyhop.core.errors import (
    AccessDenied,
    AttestationError,
    Conflict,
    EveryhopError,
    InputError,
    NotFound,
    TrustError,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from grpclib._typing import IServable
    from grpclib.server import Stream

    from everyhop.wire.peers import PeerInfo

__all__ = [
    "STATUS_OF",
    "Call",
    "Cardinality",
    "GrpcStatus",
    "Guarded",
    "Method",
    "Service",
    "current_peer",
    "refusal",
]

log = logging.getLogger(__name__)

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)

FIRST_MESSAGE_SECONDS: Final = 10.0
MAX_MESSAGE_SHOWN: Final = 1000

STATUS_OF: Final[tuple[tuple[type[EveryhopError], GrpcStatus], ...]] = (
    (InputError, GrpcStatus.INVALID_ARGUMENT),
    (AttestationError, GrpcStatus.PERMISSION_DENIED),
    (TrustError, GrpcStatus.INVALID_ARGUMENT),  # a token that is not believed, as an argument
    (AccessDenied, GrpcStatus.PERMISSION_DENIED),
    (Conflict, GrpcStatus.FAILED_PRECONDITION),
    (NotFound, GrpcStatus.NOT_FOUND),
    (Unavailable, GrpcStatus.UNAVAILABLE),
)
"""Error class to status, first match wins (SPIFFE_Workload_Endpoint.md section 6)."""

PEER: Final[ContextVar[PeerInfo]] = ContextVar("everyhop_grpc_peer")
"""Set by the transport for each call."""


def current_peer() -> PeerInfo:
    """Return the peer of the call that is being handled; LookupError outside of one."""
    return PEER.get()


def refusal(error: EveryhopError) -> GRPCError:
    """Return what the caller sees of an error."""
    status = next((status for kind, status in STATUS_OF if isinstance(error, kind)), GrpcStatus.INTERNAL)
    return GRPCError(status, error.message[:MAX_MESSAGE_SHOWN])


@dataclass(frozen=True, slots=True)
class Call(Generic[Request, Reply]):
    """One call: who asks, with which metadata, and the way to read and answer."""

    stream: Stream[Request, Reply]
    peer: PeerInfo
    method: str

    def metadata(self, name: str) -> tuple[str, ...]:
        """Return every value of a text metadata key, in order."""
        values = self.stream.metadata.getall(name, []) if self.stream.metadata is not None else []
        return tuple(value for value in values if isinstance(value, str))

    async def receive(self) -> Request | None:
        """Return the next message, or None once the caller has finished.

        Raises InputError when the bytes are no such message or are compressed (we announce no compression).
        """
        try:
            return await self.stream.recv_message()
        except (DecodeError, AssertionError) as error:
            raise InputError("the message cannot be decoded") from error
        except NotImplementedError as error:
            raise InputError("compressed messages are not supported") from error

    async def receive_first(self) -> Request | None:
        """Return the first message of a stream, or None when the caller finished without one.

        Raises TimeoutError when it does not arrive within ten seconds.
        """
        async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
            return await self.receive()

    async def converse(
        self, first: Request, take: Callable[[Request], None], answering: Coroutine[Any, Any, None]
    ) -> None:
        """Give each message, ``first`` to begin with, to ``take`` until either side ends the call.

        ``answering`` runs beside it for as long; its failure ends the call, and so does what ``take`` raises.
        """
        task = asyncio.ensure_future(answering)
        request: Request | None = first
        try:
            while request is not None:
                take(request)
                request = await self.receive_unless(task)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task

    async def receive_unless(self, ended: asyncio.Future[None]) -> Request | None:
        """Return the next message, or None once the caller has finished or ``ended`` is done; raise what ended it.

        For streams on which another task answers: its failure must not wait for the caller's next message.
        """
        receiving = asyncio.ensure_future(self.receive())
        try:
            await asyncio.wait((receiving, ended), return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                return receiving.result()
            await ended
            return None
        finally:
            receiving.cancel()

    async def receive_only(self) -> Request:
        """Return the one message of a call whose request is not a stream.

        Raises InputError when there is none or it does not arrive within ten seconds.
        """
        try:
            async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
                message = await self.receive()
        except TimeoutError as error:
            raise InputError("the request did not arrive in time") from error
        if message is None:
            raise InputError("the request has no message")
        return message

    async def send(self, message: Reply) -> None:
        """Send one message; waits while the caller does not read."""
        await self.stream.send_message(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method: its full path, kind, message classes and handler."""

    path: str
    cardinality: Cardinality
    request: type[Message]
    reply: type[Message]
    handler: Callable[[Call[Any, Any]], Awaitable[None]]


class Service:
    """A set of methods in the shape that grpclib serves.

    ``guard`` sees every call before its handler and refuses by raising.
    """

    def __init__(
        self, methods: Sequence[Method], *, guard: Callable[[Call[Any, Any]], None] | None = None
    ) -> None:
        self._methods = tuple(methods)
        self._guard = guard

    def __mapping__(self) -> Mapping[str, Route]:
        """Return the routes for grpclib."""
        return {
            method.path: Route(self._serve(method), method.cardinality, method.request, method.reply)
            for method in self._methods
        }

    def _serve(self, method: Method) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
        async def serve(stream: Stream[Any, Any]) -> None:
            call: Call[Any, Any] = Call(stream, current_peer(), method.path)
            try:
                if self._guard is not None:
                    self._guard(call)
                await method.handler(call)
            except (GRPCError, StreamTerminatedError, ProtocolError):
                raise
            except EveryhopError as error:
                log.info(
                    "%s of pid %d (uid %d) refused: %s: %s",
                    method.path,
                    call.peer.pid,
                    call.peer.uid,
                    error.code,
                    error.message,
                )
                raise refusal(error) from error
            except TimeoutError as error:
                raise GRPCError(GrpcStatus.DEADLINE_EXCEEDED) from error
            except Exception as error:
                log.exception("%s failed", method.path)
                raise GRPCError(GrpcStatus.INTERNAL, "internal error") from error

        return serve


class Guarded:
    """A service written for plain grpclib, behind the guard of ours."""

    def __init__(self, service: IServable, guard: Callable[[Call[Any, Any]], None]) -> None:
        self._service = service
        self._guard = guard

    def __mapping__(self) -> Mapping[str, Route]:
        """Return its routes; each call passes the guard first."""
        return {
            path: route._replace(func=self._serve(path, route.func))
            for path, route in self._service.__mapping__().items()
        }

    def _serve(
        self, path: str, handler: Callable[[Stream[Any, Any]], Awaitable[None]]
    ) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
        async def serve(stream: Stream[Any, Any]) -> None:
            try:
                self._guard(Call(stream, current_peer(), path))
            except EveryhopError as error:
                raise refusal(error) from error
            await handler(stream)

        return serve
