# SPDX-License-Identifier: Apache-2.0
"""gRPC with threads: a server interceptor that verifies every call, and a client interceptor that carries it on.

    server = grpc.server(executor, interceptors=[ServerInterceptor()])
    channel = grpc.intercept_channel(channel, ClientInterceptor("orders"))

A message is deserialised only after its caller was verified.  A refusal is UNAUTHENTICATED, PERMISSION_DENIED or
INVALID_ARGUMENT, with its code in the trailing metadata ``everyhop-code``.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn

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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from everyhop.sdk.sources import X509Source
    from everyhop.sdk.workload import Workload


class ServerInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Serves methods to verified calls only; an unknown method, too, is told to nobody unknown.

    ``guard`` defaults to the one of this process's workload, ``sidecar_socket`` to ``$EVERYHOP_SOCKET``; ``source``
    is what callers' certificates are verified with when ``guard`` is given and there is no sidecar.
    """

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

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Return the method's handler with the check in front."""
        handler = continuation(details)

        def check(context: Any) -> Verified:
            guard = self._shield.guard()
            source = source_of(self._source, self._shield)
            request = request_of(details.method, details.invocation_metadata, context, self._own, source)
            return verified_by(guard, request)

        return guarded(handler, check)


def refuse(context: Any, refusal: Refusal) -> NoReturn:
    """End the call with the refusal."""
    context.set_trailing_metadata(trailers_of(refusal))
    context.abort(status_of(refusal), refusal.title)
    raise refusal  # abort has raised already


def behaviour_of(handler: Any) -> Any:
    """Return the function behind a handler, whichever of the four kinds it is."""
    return handler.stream_stream or handler.stream_unary or handler.unary_stream or handler.unary_unary


MAKERS: Final[dict[tuple[bool, bool], Any]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
"""Makes a handler, by whether requests and answers are streams."""


def guarded(handler: Any, check: Callable[[Any], Verified]) -> Any:
    """Return ``handler`` (None for an unknown method) so that ``check`` runs before it, deserialising included."""
    if handler is None:
        return grpc.stream_stream_rpc_method_handler(_unknown(check))
    read = _reader(handler.request_deserializer)
    behaviour = behaviour_of(handler)

    def take(given: Any) -> Any:
        return map(read, given) if handler.request_streaming else read(given)

    def answer(given: Any, context: Any) -> Any:
        with _refusing(context), serving(check(context)):
            return behaviour(take(given), context)

    def answers(given: Any, context: Any) -> Iterator[Any]:
        with _refusing(context):
            verified = check(context)
            with serving(verified):
                found = iter(behaviour(take(given), context))
            while True:
                with serving(verified):
                    try:
                        message = next(found)
                    except StopIteration:
                        return
                yield message

    make = MAKERS[handler.request_streaming, handler.response_streaming]
    return make(answers if handler.response_streaming else answer, None, handler.response_serializer)


@contextmanager
def _refusing(context: Any) -> Iterator[None]:
    """End the call with its status where a Refusal is raised, be it of the check or of the application."""
    try:
        yield
    except Refusal as refusal:
        refuse(context, refusal)


def _reader(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    def read(message: bytes) -> Any:
        if deserialize is None:
            return message
        try:
            return deserialize(message)
        except Exception as error:
            raise unreadable() from error

    return read


def _unknown(check: Callable[[Any], Verified]) -> Callable[[Any, Any], Iterator[Any]]:
    def unknown(_messages: Any, context: Any) -> Iterator[Any]:
        with _refusing(context):
            check(context)
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        yield b""

    return unknown


class ClientInterceptor(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]  # grpc has no types
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc]
):
    """Carries user and trace to ``target``, a service of the policy, and without a sidecar a token as well.

    Use it on channels to that service only: it cannot see where a channel leads.
    """

    def __init__(self, target: str, workload: Workload | None = None, *, sidecar: bool | None = None) -> None:
        self._target: Final = target
        self._outgoing: Final = Outgoing(workload, sidecar=sidecar)

    def _with_headers(self, details: Any) -> Any:
        path = details.method.decode() if isinstance(details.method, bytes) else details.method
        return call_details(details, self._outgoing.carried(self._target, "POST", path).headers)

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], details: Any, request: Any
    ) -> Any:
        """Add the headers to one call."""
        return continuation(self._with_headers(details), request)

    def intercept_unary_stream(
        self, continuation: Callable[[Any, Any], Any], details: Any, request: Any
    ) -> Any:
        """Add the headers to one call."""
        return continuation(self._with_headers(details), request)

    def intercept_stream_unary(
        self, continuation: Callable[[Any, Any], Any], details: Any, request_iterator: Any
    ) -> Any:
        """Add the headers to one call."""
        return continuation(self._with_headers(details), request_iterator)

    def intercept_stream_stream(
        self, continuation: Callable[[Any, Any], Any], details: Any, request_iterator: Any
    ) -> Any:
        """Add the headers to one call."""
        return continuation(self._with_headers(details), request_iterator)
