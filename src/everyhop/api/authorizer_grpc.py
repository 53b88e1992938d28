# SPDX-License-Identifier: Apache-2.0
"""ext_authz v3 over gRPC for proxies that are not ours, on the agent's ``authorizer.sock``.

This module only translates: Envoy's messages into a question and back.  The service asked about comes from the
proxy's own configuration (``context_extensions``), never from a header or the host of a request.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

from everyhop.api.credentials_shown import presented
from everyhop.control.asking import CallerFrom, Form, Question
from everyhop.control.external_decisions import OVERLOADED, TIMED_OUT
from everyhop.control.identity_headers import DECISION_HEADER
from everyhop.control.proxied_callers import uri_of_xfcc
from everyhop.core.errors import AttestationError, InputError
from everyhop.wire.ext_authz import CHECK, OVERWRITE, CheckRequest, CheckResponse
from everyhop.wire.rpc import Call, Cardinality, Method, Service
from everyhop.wire.transport import Limits, PeerServer

if TYPE_CHECKING:
    from collections.abc import Mapping

    Fields = tuple[tuple[bytes, bytes], ...]

    from everyhop.control.asking import Answer, AskingProxy
    from everyhop.control.external_decisions import ExternalDecisions
    from everyhop.wire.ext_authz import HeaderValueOption
    from everyhop.wire.peers import PeerInfo

SERVICE_EXTENSION: Final = "everyhop_service"
"""The entry of ``context_extensions`` that names the service a route leads to."""

XFCC: Final = b"x-forwarded-client-cert"
MAX_WAITING: Final = 256
DEADLINE_SECONDS: Final = 2.0

_OK: Final = 0
_PERMISSION_DENIED: Final = 7  # google.rpc.Code
_UNAUTHENTICATED: Final = 16
_UNAUTHORIZED: Final = 401
_LIMITS: Final = Limits(
    connections=256,
    connections_per_uid=128,
    streams_per_connection=1024,
    resets_per_connection=1_000_000,  # a proxy that gave up waiting resets; it is one of the named users
    max_header_bytes=64 * 1024,
)


class GrpcAuthorizer:
    """Answers ``Check``.  All use is from one event loop."""

    def __init__(
        self,
        decisions: ExternalDecisions,
        proxies: Mapping[int, AskingProxy],
        *,
        max_waiting: int = MAX_WAITING,
        deadline: float = DEADLINE_SECONDS,
    ) -> None:
        """``proxies`` are those that may ask, by uid; ``deadline`` is in seconds."""
        self._decisions = decisions
        self._proxies = proxies
        self._max_waiting = max_waiting
        self._deadline = deadline
        self._waiting = 0

    def admit(self, peer: PeerInfo) -> None:
        """Refuse a process whose user the settings do not name; raises AttestationError."""
        if peer.uid not in self._proxies:
            raise AttestationError(f"uid {peer.uid} is no authorizer of the settings")

    async def check(self, call: Call[CheckRequest, CheckResponse]) -> None:
        """Answer one question."""
        proxy = self._proxies[call.peer.uid]
        if self._waiting >= self._max_waiting:
            await call.send(message_of(self._decisions.refuse(proxy, Form.ENVOY, OVERLOADED)))
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(self._deadline):
                answer = await self._answer(proxy, call)
        except TimeoutError:
            answer = self._decisions.refuse(proxy, Form.ENVOY, TIMED_OUT)
        finally:
            self._waiting -= 1
        await call.send(message_of(answer))

    async def _answer(self, proxy: AskingProxy, call: Call[CheckRequest, CheckResponse]) -> Answer:
        try:
            request = await call.receive_only()
        except InputError as error:
            unreadable = error

            def read() -> Question:
                raise unreadable

            return await self._decisions.answer(proxy, Form.ENVOY, read)
        return await self._decisions.answer(proxy, Form.ENVOY, lambda: question_of(request, proxy))


def grpc_authorizer(authorizer: GrpcAuthorizer) -> PeerServer:
    """Return the gRPC server for ``authorizer.sock``.  Start it in the event loop that made it."""
    method = Method(
        path=CHECK,
        cardinality=Cardinality.UNARY_UNARY,
        request=CheckRequest,
        reply=CheckResponse,
        handler=authorizer.check,
    )
    return PeerServer([Service([method])], limits=_LIMITS, admit=authorizer.admit)


def question_of(request: CheckRequest, proxy: AskingProxy) -> Question:
    """Read a check request; raises InputError when the caller or the service cannot be read in one way.

    Bodies are not looked at: what ``with_request_body`` sends may be half of one.
    """
    attributes = request.attributes
    http = attributes.request.http
    is_raw = bool(http.header_map.headers)
    headers = (
        tuple((line.key, line.raw_value or line.value) for line in http.header_map.headers)
        if is_raw
        else tuple((name.encode(), value) for name, value in http.headers.items())
    )
    path = path_of(http.path, headers if is_raw else ())
    # Where another proxy stands between, the certificate is that proxy's and proves nothing about the caller.
    certificate = attributes.source.certificate if proxy.caller is CallerFrom.PRINCIPAL else ""
    return Question(
        form=Form.ENVOY,
        target=proxy.target(attributes.context_extensions.get(SERVICE_EXTENSION)),
        method=http.method.decode("latin-1"),
        path=path,
        headers=headers,
        is_raw=is_raw,
        principal=_principal(proxy, attributes.source.principal, headers),
        certificate=certificate.encode() if certificate else None,
        presented=lambda: presented(headers, path),
        source=attributes.source.address.socket_address.address or None,
    )


def path_of(sent: bytes, lines: Fields) -> str:
    """Return the path as the client sent it, one character a byte; raises InputError for two of them.

    Envoy puts ``!`` in place of each byte that is no UTF-8, and forwards the byte: what was decided on would be another
    path.  The raw field lines hold it as it is (``encode_raw_headers``).  Without them nobody can tell the two apart, and
    a path that holds the character is read as one that holds the byte, which is ambiguous.
    """
    paths = [value for name, value in lines if name == b":path"]
    if len(paths) > 1:
        raise InputError("more than one path")
    if paths:
        return paths[0].decode("latin-1")
    path, mark, query = sent.decode("latin-1").partition("?")
    return path.replace("!", "\xff") + mark + query


def _principal(proxy: AskingProxy, principal: str, headers: Fields) -> str | None:
    if proxy.caller is CallerFrom.PRINCIPAL:
        return principal or None
    return principal_of_xfcc(headers)


def principal_of_xfcc(headers: Fields) -> str | None:
    """Return the URI that the proxy forwards, None without the field; raises InputError unless it is one field."""
    values = [value for name, value in headers if name.lower() == XFCC]
    if not values:
        return None
    if len(values) > 1 or not values[0].isascii():
        raise InputError("x-forwarded-client-cert is not one field of ASCII")
    return uri_of_xfcc(values[0].decode("ascii"))


def message_of(answer: Answer) -> CheckResponse:
    """Return Envoy's message: OK with header changes, or a refusal with a problem document; never a mixture."""
    response = CheckResponse()
    if answer.is_allowed:
        response.status.code = _OK
        for name, value in answer.headers.items():
            _set(response.ok_response.headers.add(append_action=OVERWRITE), name, value)
        response.ok_response.headers_to_remove.extend(answer.remove)
        response.ok_response.SetInParent()
        return response
    response.status.code = _UNAUTHENTICATED if answer.status == _UNAUTHORIZED else _PERMISSION_DENIED
    refusal = response.denied_response
    refusal.status.code = answer.status
    refusal.body = json.dumps(answer.problem())
    headers = {"content-type": "application/problem+json", DECISION_HEADER: answer.decision}
    if answer.authenticate is not None:
        headers["www-authenticate"] = answer.authenticate
    if answer.retry_after is not None:
        headers["retry-after"] = str(answer.retry_after)
    for name, value in headers.items():
        if value:
            _set(refusal.headers.add(append_action=OVERWRITE), name, value)
    return response


def _set(option: HeaderValueOption, name: str, value: str) -> None:
    option.header.key, option.header.value = name.encode("ascii"), value.encode("ascii")
