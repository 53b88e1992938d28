# SPDX-License-Identifier: Apache-2.0
"""gRPC with asyncio: the twins of :mod:`everyhop.integrations.grpc`.

server = grpc.aio.server(interceptors=[ServerInterceptor()])
channel = grpc.aio.insecure_channel(address, interceptors=client_interceptors("orders"))
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Final

from everyhop.integrations import grpc as threaded
from everyhop.integrations._arrival import Checks, OwnSocket
from everyhop.integrations._grpc import (
    call_details,
    request_of,
    source_of,
    status_of,
    trailers_of,
    unreadable,
    verified_by,
)
from everyhop.integrations._missing import needs
from everyhop.integrations._outgoing import Outgoing
from everyhop.integrations._workload import Shield
from everyhop.sdk import serving
from everyhop.sdk.model import Refusal, Verified

with needs("grpcio", module="grpc"):
    import grpc  # type: ignore[import-untyped]  # published without types
    from grpc import aio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from everyhop.sdk.sources import X509Source
    from everyhop.sdk.workload import Workload

__all__ = ["ServerInterceptor", "client_interceptors"]


class ServerInterceptor(aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Serves methods to verified calls only; the arguments are those of the threaded one."""

    def __init__(
        self,
        guard: Checks | None = None,
        *,
        source: X509Source | None = None,
        sidecar_socket: str | None = None,
    ) -> None:
        self._shield: Final = Shield(guard)
        self._source: Final = source
        self._own: Final = OwnSocket(sidecar_socket)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Return the method's handler with the check in front."""
        handler = await continuation(details)
        ready: Checks | Refusal
        try:
            ready = (
                await asyncio.to_thread(self._shield.guard)
                if not self._shield.is_ready
                else self._shield.guard()
            )
        except Refusal as refusal:
            ready = refusal  # said to the caller below

        def check(context: Any) -> Verified:
            if isinstance(ready, Refusal):
                raise ready
            source = source_of(self._source, self._shield)
            request = request_of(details.method, details.invocation_metadata, context, self._own, source)
            return verified_by(ready, request)

        return _guarded(handler, check)


def _guarded(handler: Any, check: Callable[[Any], Verified]) -> Any:
    if handler is None:
        return grpc.stream_stream_rpc_method_handler(_unknown(check))
    behaviour = threaded.behaviour_of(handler)
    if not (inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)):
        return threaded.guarded(handler, check)  # such a one runs in a thread, with the context of threads
    read = handler.request_deserializer

    def take(given: Any) -> Any:
        return _read_each(given, read) if handler.request_streaming else _read(given, read)

    async def answer(given: Any, context: Any) -> Any:
        try:
            with serving(check(context)):
                return await behaviour(take(given), context)
        except Refusal as refusal:
            await _refuse(context, refusal)

    async def answers(given: Any, context: Any) -> AsyncIterator[Any]:
        try:
            with serving(check(context)):
                async for message in behaviour(take(given), context):
                    yield message
        except Refusal as refusal:
            await _refuse(context, refusal)

    streams = inspect.isasyncgenfunction(behaviour)
    make = threaded.MAKERS[handler.request_streaming, handler.response_streaming]
    return make(answers if streams else answer, None, handler.response_serializer)


def _read(message: bytes, deserialize: Callable[[bytes], Any] | None) -> Any:
    if deserialize is None:
        return message
    try:
        return deserialize(message)
    except Exception as error:
        raise unreadable() from error


async def _read_each(messages: Any, deserialize: Callable[[bytes], Any] | None) -> AsyncIterator[Any]:
    async for message in messages:
        yield _read(message, deserialize)


def _unknown(check: Callable[[Any], Verified]) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def unknown(_messages: Any, context: Any) -> AsyncIterator[Any]:
        try:
            check(context)
        except Refusal as refusal:
            await _refuse(context, refusal)
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        yield b""

    return unknown


async def _refuse(context: Any, refusal: Refusal) -> None:
    context.set_trailing_metadata(trailers_of(refusal))
    await context.abort(status_of(refusal), refusal.title)


class _Carrier:
    def __init__(self, target: str, outgoing: Outgoing) -> None:
        self._target = target
        self._outgoing = outgoing

    async def details(self, details: Any) -> Any:
        """Return the call's details with what it carries."""
        await self._outgoing.ready()
        path = details.method.decode() if isinstance(details.method, bytes) else details.method
        carried = await self._outgoing.acarried(self._target, "POST", path)
        return call_details(details, carried.headers)


class _UnaryUnary(_Carrier, aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(await self.details(details), request)


class _UnaryStream(_Carrier, aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(await self.details(details), request)


class _StreamUnary(_Carrier, aio.StreamUnaryClientInterceptor):  # type: ignore[misc]
    async def intercept_stream_unary(self, continuation: Any, details: Any, request_iterator: Any) -> Any:
        return await continuation(await self.details(details), request_iterator)


class _StreamStream(_Carrier, aio.StreamStreamClientInterceptor):  # type: ignore[misc]
    async def intercept_stream_stream(self, continuation: Any, details: Any, request_iterator: Any) -> Any:
        return await continuation(await self.details(details), request_iterator)


def client_interceptors(
    target: str, workload: Workload | None = None, *, sidecar: bool | None = None
) -> list[Any]:
    """Return interceptors (asyncio wants one for each kind of call) that carry user, trace and token to ``target``.

    Use them on channels to that service only: they cannot see where a channel leads.
    """
    outgoing = Outgoing(workload, sidecar=sidecar)
    return [kind(target, outgoing) for kind in (_UnaryUnary, _UnaryStream, _StreamUnary, _StreamStream)]
