# SPDX-License-Identifier: Apache-2.0
"""aiohttp: a server middleware that verifies every request, and a client that carries the call on.

    app = web.Application(middlewares=[server_middleware()])

    async with session() as http:
        await http.post("http://payments/v1/charges", json={...})

:func:`session` speaks to services that this workload may call and to nobody else.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.errors import AccessDenied, TrustError
from everyhop.integrations._arrival import OTHER_PATH, Checks, OwnSocket, forgotten, visible
from everyhop.integrations._missing import needs
from everyhop.integrations._outgoing import Outgoing, endpoints
from everyhop.integrations._workload import Shield
from everyhop.sdk import peer_of, serving
from everyhop.sdk.model import Peer, Refusal, Request, Verified

with needs("aiohttp"):
    import aiohttp
    from aiohttp import web
    from aiohttp.abc import AbstractResolver, ResolveResult
    from multidict import CIMultiDict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from everyhop.sdk.tls import RotatingContext
    from everyhop.sdk.workload import Workload

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
    ServerMiddleware = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]

__all__ = ["ClientMiddleware", "server_middleware", "session"]


def server_middleware(guard: Checks | None = None, *, sidecar_socket: str | None = None) -> ServerMiddleware:
    """Return a middleware that serves verified calls only; it stands first in ``middlewares``.

    ``guard`` defaults to the one of this process's workload, ``sidecar_socket`` to ``$EVERYHOP_SOCKET``.
    """
    shield, own = Shield(guard), OwnSocket(sidecar_socket)

    @web.middleware
    async def everyhop(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            found = shield.guard() if shield.is_ready else await asyncio.to_thread(shield.guard)
            arrived = _request_of(request, own)
            verified = found.check(arrived)
            if not arrived.via_sidecar:
                request = _hidden(request, verified)
            if verified.checks_body:
                await _check_body(found, verified, request)
            with serving(verified):
                response = await handler(request)
            refusal = forgotten(verified, response.status)
            if refusal is None:
                return response
            if response.prepared and request.transport is not None:
                request.transport.abort()  # a stream on its way cannot be taken back, but it can be cut
            raise refusal
        except Refusal as refusal:
            return web.Response(body=refusal.body, status=refusal.status, headers=dict(refusal.headers))

    return everyhop


def _request_of(request: web.Request, own: OwnSocket) -> Request:
    target = request.raw_path
    is_same = target.partition("?")[0] == request.rel_url.raw_path
    transport = request.transport
    via_sidecar = own.is_named(None if transport is None else transport.get_extra_info("sockname"))
    return Request(
        method=request.method,
        raw_path=target.encode("utf-8", "surrogateescape"),
        headers=request.raw_headers,
        peer=None if via_sidecar or transport is None else _peer_of(transport.get_extra_info("ssl_object")),
        via_sidecar=via_sidecar,
        flaw=None if is_same else OTHER_PATH,
        source_ip=None if via_sidecar else request.remote,
    )


def _hidden(request: web.Request, verified: Verified) -> web.Request:
    """Return the request less what no handler may see of a call that came past no sidecar."""
    kept = visible(request.raw_headers, verified)
    if len(kept) == len(request.raw_headers):
        return request
    return request.clone(headers=CIMultiDict((_text(name), _text(value)) for name, value in kept))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")  # `clone` encodes it again, and strictly


def _peer_of(connection: Any) -> Peer | None:
    try:
        return None if connection is None else peer_of(connection)
    except TrustError:
        return None


async def _check_body(guard: Checks, verified: Verified, request: web.Request) -> None:
    """Read the body, which aiohttp keeps for ``read``, ``text`` and ``json``, and check it."""
    limit = guard.max_body + 1
    body = bytearray()
    while len(body) < limit:
        chunk = await request.content.read(limit - len(body))
        if not chunk:
            break
        body += chunk
    types = [
        value.decode("latin-1") for name, value in request.raw_headers if name.lower() == b"content-type"
    ]
    guard.check_body(verified, types, bytes(body))
    request._read_bytes = bytes(body)  # noqa: SLF001  # where `read` keeps it; there is no public way to put it back


class ClientMiddleware:
    """Adds token, user and trace to each call of a declared service, redirects included.

    Give it to a session of :func:`session`.  AccessDenied for a host that is no service this workload may call.
    """

    def __init__(self, workload: Workload | None = None, *, sidecar: bool | None = None) -> None:
        self.outgoing: Final = Outgoing(workload, sidecar=sidecar)
        self._contexts: dict[str, tuple[str, RotatingContext]] = {}

    async def __call__(
        self,
        request: aiohttp.ClientRequest,
        handler: Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]],
    ) -> aiohttp.ClientResponse:
        """Send one request, and once more with a fresh token when its token is called invalid."""
        await self.outgoing.ready()
        target = self.outgoing.demand(request.url.host or "")
        path = request.url.raw_path
        carried = await self.outgoing.acarried(target.name, request.method, path)
        _put_on(request, carried.headers)
        if not self.outgoing.is_sidecar:
            self._use_tls(request, target.name, str(target.spiffe_id))
        response = await handler(request)
        challenges = response.headers.get("www-authenticate", "")
        if not self.outgoing.is_stale(carried, response.status, challenges) or not _can_repeat(request):
            return response
        response.release()
        _put_on(request, (await self.outgoing.acarried(target.name, request.method, path)).headers)
        return await handler(request)

    def _use_tls(self, request: aiohttp.ClientRequest, name: str, spiffe_id: str) -> None:
        """Make the call one by mutual TLS that accepts the service and nobody else.

        A context for each certificate keeps its connections apart from those of the one before.
        """
        x5t = self.outgoing.workload.x509.svid.x5t
        held = self._contexts.get(name)
        if held is None or held[0] != f"{x5t} {spiffe_id}":
            context = self.outgoing.tls_context(self.outgoing.demand(name))
            held = self._contexts[name] = (f"{x5t} {spiffe_id}", context)
        request.url = request.url.with_scheme("https")
        request._ssl = held[1]  # noqa: SLF001  # a session takes one per call, a middleware has no other way


class _Instances(AbstractResolver):
    """Finds the instances of services where the policy's context says, and nothing anywhere else."""

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self._turn = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return every instance, beginning with another one each time."""
        del port, family
        self._turn += 1
        try:
            target = self._outgoing.demand(host)
        except AccessDenied as error:
            raise OSError(error.message) from error
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=number,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address, number in endpoints(target, self._turn)
        ]

    async def close(self) -> None:
        """Hold nothing."""


def session(
    workload: Workload | None = None, *, sidecar: bool | None = None, **options: Any
) -> aiohttp.ClientSession:
    """Return a session for the trust domain's services; ``options`` are those of ``aiohttp.ClientSession``."""
    middleware = ClientMiddleware(workload, sidecar=sidecar)
    connector: aiohttp.BaseConnector
    if middleware.outgoing.is_sidecar:
        connector = aiohttp.UnixConnector(path=middleware.outgoing.egress_socket)
    else:
        connector = aiohttp.TCPConnector(resolver=_Instances(middleware.outgoing), use_dns_cache=False)
    return aiohttp.ClientSession(
        connector=connector,
        middlewares=[middleware, *options.pop("middlewares", ())],
        trust_env=False,
        **options,
    )


def _put_on(request: aiohttp.ClientRequest, headers: Any) -> None:
    for name in headers:
        request.headers.popall(name, None)
    request.headers.update(headers)


def _can_repeat(request: aiohttp.ClientRequest) -> bool:
    body = request.body
    return isinstance(body, bytes) or not getattr(body, "consumed", True)
