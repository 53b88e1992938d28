# SPDX-License-Identifier: Apache-2.0
"""The Workload API client, for asyncio and for threads: SVIDs, bundles, service tokens, the service context.

Each method is one call or one stream; sources that keep things fresh are built on them
(:mod:`everyhop.sdk.workload`).  Errors: Unavailable when the agent does not answer, AccessDenied when it has
nothing for this process, InputError when a request or an answer is malformed, SettingsError for a bad address.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from google.protobuf import json_format

from everyhop.core.errors import InputError, Unavailable
from everyhop.core.secret import Secret
from everyhop.sdk.context import ServiceContext
from everyhop.sdk.endpoint import socket_path
from everyhop.sdk.identities import (
    JwtIdentity,
    ValidatedJwt,
    X509Update,
    read_jwt_bundles,
    read_jwt_svids,
    read_x509_bundles,
    read_x509_update,
)
from everyhop.sdk.loops import BackgroundRunner, wait_for
from everyhop.sdk.rpc import Rpc
from everyhop.spiffe.ids import SpiffeId
from everyhop.wire import tokens as t, workload_pb2 as w

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Collection, Coroutine, Mapping, Sequence
    from typing import Any, TypeVar

    from everyhop.sdk.events import AuditEvent, Scalar
    from everyhop.sdk.model import Decided
    from everyhop.spiffe.bundle import Bundle
    from everyhop.spiffe.ids import TrustDomain
    from everyhop.wire.audit_pb2 import Metadatum

    T = TypeVar("T")

ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  # RFC 8693 section 3
TXN_TOKEN: Final = "urn:ietf:params:oauth:token-type:txn_token"  # noqa: S105
ID_TOKEN: Final = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105
CALL_SECONDS: Final = 10.0

_API: Final = "/SpiffeWorkloadAPI/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A token as it was issued; ``expires_at`` is aware UTC."""

    token: Secret
    expires_at: datetime


class AsyncWorkloadApiClient:
    """The Workload API for asyncio.  Use within one event loop; ``async with`` or :meth:`close` ends it.

    ``socket`` is ``unix:///path``, by default what SPIFFE_ENDPOINT_SOCKET says.
    """

    def __init__(self, socket: str | None = None, *, call_seconds: float = CALL_SECONDS) -> None:
        self._rpc = Rpc(socket_path(socket))
        self._seconds = call_seconds

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection and every stream on it."""
        self._rpc.close()

    # -- X.509

    async def fetch_x509(self) -> X509Update:
        """Return the identities of this process, checked, the default first."""
        return await _first(self.stream_x509(), self._seconds)

    async def stream_x509(self) -> AsyncIterator[X509Update]:
        """Yield the identities at once and after each change; a malformed message raises."""
        async with aclosing(self.raw_x509()) as messages:
            async for message in messages:
                yield read_x509_update(message, datetime.now(UTC))

    async def raw_x509(self) -> AsyncGenerator[w.X509SVIDResponse, None]:
        """Yield the messages as they come, unchecked."""
        async for message in self._rpc.stream(
            _API + "FetchX509SVID", w.X509SVIDRequest(), w.X509SVIDResponse
        ):
            yield message

    async def fetch_x509_bundles(self) -> Mapping[TrustDomain, Bundle]:
        """Return the X.509 authorities by trust domain."""
        return read_x509_bundles(await _first(self.raw_x509_bundles(), self._seconds))

    async def raw_x509_bundles(self) -> AsyncGenerator[w.X509BundlesResponse, None]:
        """Yield the messages as they come, unchecked."""
        async for message in self._rpc.stream(
            _API + "FetchX509Bundles", w.X509BundlesRequest(), w.X509BundlesResponse
        ):
            yield message

    # -- JWT

    async def fetch_jwt_svids(
        self, audience: Sequence[str], spiffe_id: SpiffeId | None = None
    ) -> tuple[JwtIdentity, ...]:
        """Return JWT-SVIDs for these audiences: of one identity, or of every identity of this process."""
        if isinstance(audience, str) or not audience:
            raise InputError("a JWT-SVID needs a list of at least one audience")
        request = w.JWTSVIDRequest(
            audience=list(audience), spiffe_id="" if spiffe_id is None else str(spiffe_id)
        )
        return read_jwt_svids(
            await self._rpc.unary(_API + "FetchJWTSVID", request, w.JWTSVIDResponse, seconds=self._seconds)
        )

    async def fetch_jwt_bundles(self) -> Mapping[TrustDomain, Bundle]:
        """Return the JWT authorities by trust domain."""
        return read_jwt_bundles(await _first(self.raw_jwt_bundles(), self._seconds))

    async def raw_jwt_bundles(self) -> AsyncGenerator[w.JWTBundlesResponse, None]:
        """Yield the messages as they come, unchecked."""
        async for message in self._rpc.stream(
            _API + "FetchJWTBundles", w.JWTBundlesRequest(), w.JWTBundlesResponse
        ):
            yield message

    async def validate_jwt_svid(self, token: str, audience: str) -> ValidatedJwt:
        """Return whom a JWT-SVID names, if it holds for ``audience``; InputError if it does not."""
        request = w.ValidateJWTSVIDRequest(audience=audience, svid=token)
        answer = await self._rpc.unary(
            _API + "ValidateJWTSVID", request, w.ValidateJWTSVIDResponse, seconds=self._seconds
        )
        return ValidatedJwt(
            spiffe_id=SpiffeId.parse(answer.spiffe_id), claims=json_format.MessageToDict(answer.claims)
        )

    # -- everyhop's own

    async def mint(
        self,
        target: str,
        *,
        operation: str | None = None,
        scope: Collection[str] | None = None,
        x5t: str | None = None,
        spiffe_id: SpiffeId | None = None,
    ) -> Issued:
        """Return an access token for calls of ``target``, bound to the certificate that ``x5t`` names."""
        request = t.MintRequest(
            target=target,
            operation=operation or "",
            scope=sorted(scope or ()),
            x5t=x5t or "",
            spiffe_id="" if spiffe_id is None else str(spiffe_id),
        )
        answer = await self._rpc.unary(t.MINT, request, t.MintResponse, seconds=self._seconds)
        return _issued(answer.token, answer.expires_at)

    async def exchange(
        self,
        subject_token: Secret,
        subject_token_type: str,
        *,
        requested: str = TXN_TOKEN,
        target: str | None = None,
        operation: str | None = None,
        scope: Collection[str] | None = None,
        x5t: str | None = None,
        spiffe_id: SpiffeId | None = None,
    ) -> Issued:
        """Return a narrower token for one that was received (RFC 8693); token types are its URIs."""
        request = t.ExchangeRequest(
            subject_token=subject_token.reveal().decode("ascii"),
            subject_token_type=subject_token_type,
            requested_token_type=requested,
            target=target or "",
            operation=operation or "",
            scope=sorted(scope or ()),
            x5t=x5t or "",
            spiffe_id="" if spiffe_id is None else str(spiffe_id),
        )
        answer = await self._rpc.unary(t.EXCHANGE, request, t.ExchangeResponse, seconds=self._seconds)
        return _issued(answer.token, answer.expires_at)

    async def fetch_context(self, spiffe_id: SpiffeId | None = None) -> ServiceContext:
        """Return the service context of this process."""
        return ServiceContext.parse((await _first(self.raw_context(spiffe_id), self._seconds)).document)

    async def raw_context(self, spiffe_id: SpiffeId | None = None) -> AsyncGenerator[t.ContextUpdate, None]:
        """Yield the messages as they come, unchecked."""
        request = t.WatchContextRequest(spiffe_id="" if spiffe_id is None else str(spiffe_id))
        async for message in self._rpc.stream(t.WATCH_CONTEXT, request, t.ContextUpdate):
            yield message

    # -- decisions

    async def report(
        self, decisions: Sequence[tuple[int, Decided]], *, dropped: int = 0, spiffe_id: str = ""
    ) -> int:
        """Hand over decisions with their times (microseconds since the epoch); at most 200, the oldest first.

        Return how many the agent did not keep, because they were beyond the rate or room of this service.
        """
        from everyhop.wire import decisions as d

        request = d.ReportRequest(
            decisions=[
                d.Decision(
                    id=one.decision_id,
                    time=moment,
                    allowed=one.allowed,
                    caller=_sendable(one.caller),
                    operation=_sendable(one.operation),
                    method=_sendable(one.method),
                    path=_sendable(one.path),
                    rule=_sendable(one.rule),
                    reason=one.reason,
                    code=one.code,
                    status=one.status,
                    user=_sendable(one.user),
                    snapshot=one.snapshot,
                    detail=_sendable(one.detail),
                    trace=one.trace,
                )
                for moment, one in decisions
            ],
            dropped=dropped,
            spiffe_id=spiffe_id,
        )
        answer = await self._rpc.unary(d.REPORT, request, d.ReportResponse, seconds=self._seconds)
        return int(answer.refused)

    async def report_events(
        self,
        events: Sequence[tuple[int, AuditEvent]],
        *,
        dropped: int = 0,
        spiffe_id: str = "",
        durable: bool = False,
    ) -> int:
        """Hand over audit events with their times (microseconds since the epoch); at most 200, the oldest first.

        With ``durable`` they are on the node's disk when this returns.  Return how many the agent did not keep.
        """
        from everyhop.wire import audit as a

        request = a.RecordRequest(
            events=[
                a.Event(
                    id=one.id,
                    time=moment,
                    action=_sendable(one.action),
                    outcome=one.outcome,
                    resource_type=_sendable(one.resource_type),
                    resource_id=_sendable(one.resource_id),
                    caller=_sendable(one.caller),
                    user=_sendable(one.user),
                    method=_sendable(one.method),
                    route=_sendable(one.route),
                    status=one.status or 0,
                    duration=-1.0 if one.duration_ms is None else one.duration_ms,
                    trace=one.trace or "",
                    snapshot=one.snapshot or "",
                    decision=one.decision or "",
                    metadata=[_metadatum(a.Metadatum, name, value) for name, value in one.metadata],
                )
                for moment, one in events
            ],
            dropped=dropped,
            spiffe_id=spiffe_id,
            durable=durable,
        )
        answer = await self._rpc.unary(a.RECORD, request, a.RecordResponse, seconds=self._seconds)
        return int(answer.refused)


class WorkloadApiClient:
    """The Workload API for threads: the same calls, each waiting for its answer.

    Safe to share between threads.  The work is done by one background thread of the process, which ends with the
    last user.  After a fork the client goes on in the child with a connection of its own.
    """

    def __init__(self, socket: str | None = None, *, call_seconds: float = CALL_SECONDS) -> None:
        self._path = f"unix://{socket_path(socket)}"
        self._seconds = call_seconds
        self._runner = BackgroundRunner()
        self._inner: AsyncWorkloadApiClient | None = None
        self._loop: object = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the background thread ends with its last user."""
        inner, self._inner = self._inner, None
        if inner is not None and self._loop is self._runner.loop:
            self._runner.submit(_closed(inner)).result(self._seconds)
        self._runner.release()

    def fetch_x509(self) -> X509Update:
        """Return the identities of this process, checked, the default first."""
        return self._wait(self._client().fetch_x509())

    def fetch_x509_bundles(self) -> Mapping[TrustDomain, Bundle]:
        """Return the X.509 authorities by trust domain."""
        return self._wait(self._client().fetch_x509_bundles())

    def fetch_jwt_svids(
        self, audience: Sequence[str], spiffe_id: SpiffeId | None = None
    ) -> tuple[JwtIdentity, ...]:
        """Return JWT-SVIDs for these audiences: of one identity, or of every identity of this process."""
        return self._wait(self._client().fetch_jwt_svids(audience, spiffe_id))

    def fetch_jwt_bundles(self) -> Mapping[TrustDomain, Bundle]:
        """Return the JWT authorities by trust domain."""
        return self._wait(self._client().fetch_jwt_bundles())

    def validate_jwt_svid(self, token: str, audience: str) -> ValidatedJwt:
        """Return whom a JWT-SVID names, if it holds for ``audience``; InputError if it does not."""
        return self._wait(self._client().validate_jwt_svid(token, audience))

    def fetch_context(self, spiffe_id: SpiffeId | None = None) -> ServiceContext:
        """Return the service context of this process."""
        return self._wait(self._client().fetch_context(spiffe_id))

    def mint(
        self,
        target: str,
        *,
        operation: str | None = None,
        scope: Collection[str] | None = None,
        x5t: str | None = None,
        spiffe_id: SpiffeId | None = None,
    ) -> Issued:
        """Return an access token for calls of ``target``, bound to the certificate that ``x5t`` names."""
        return self._wait(
            self._client().mint(target, operation=operation, scope=scope, x5t=x5t, spiffe_id=spiffe_id)
        )

    def _client(self) -> AsyncWorkloadApiClient:
        """Return the client of the loop that runs now; another one after a fork."""
        loop = self._runner.loop
        if self._inner is None or self._loop is not loop:
            self._loop = loop
            self._inner = AsyncWorkloadApiClient(self._path, call_seconds=self._seconds)
        return self._inner

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return wait_for(self._runner, work, timeout=self._seconds + 1)
        except TimeoutError:
            raise Unavailable("the agent did not answer in time") from None


def _metadatum(kind: type[Metadatum], name: str, value: Scalar) -> Metadatum:
    if isinstance(value, bool):
        return kind(name=name, flag=value)
    if isinstance(value, int):
        return kind(name=name, whole=value)
    if isinstance(value, float):
        return kind(name=name, number=value)
    return kind(name=name, text=_sendable(None if value is None else str(value)))


def _sendable(text: str | None) -> str:
    """Return text of at most 512 characters that can be put into a message: no halves of surrogate pairs."""
    return (text or "")[:512].encode("utf-8", "replace").decode()


async def _closed(client: AsyncWorkloadApiClient) -> None:
    client.close()


async def _first(stream: AsyncIterator[T], seconds: float) -> T:
    try:
        async with asyncio.timeout(seconds), aclosing(stream) as messages:  # type: ignore[type-var]  # ours can be closed
            async for message in messages:
                return message
    except TimeoutError:
        raise Unavailable("the agent did not answer in time") from None
    raise Unavailable("the stream ended without a message")


def _issued(token: str, expires_at: int) -> Issued:
    if not token or not token.isascii() or expires_at <= 0:
        raise InputError("an answer without a token")
    return Issued(token=Secret(token.encode("ascii")), expires_at=datetime.fromtimestamp(expires_at, UTC))
