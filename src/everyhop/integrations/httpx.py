# SPDX-License-Identifier: Apache-2.0
"""httpx: calls to the services of the policy, with or without a sidecar.

    with client() as http:
        http.post("http://payments/v1/charges", json={...})

:func:`client` and :func:`async_client` speak to services that this workload may call and to nobody else.  To add
identity to a client of your own there is :class:`EveryhopAuth`.  Whatever it adds is put on the wire and nowhere else:
not into the request's headers, not into a redirect, not into a log.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from everyhop.integrations._missing import needs
from everyhop.integrations._outgoing import Carried, Outgoing, Pools, endpoints

with needs("httpx"):
    import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from everyhop.sdk.context import Target
    from everyhop.sdk.workload import Workload

__all__ = ["AsyncEveryhopTransport", "EveryhopAuth", "EveryhopTransport", "async_client", "client"]

_X5T: Final = "everyhop.x5t"
_COULD_NOT_CONNECT: Final = (httpx.ConnectError, httpx.ConnectTimeout)


class _WireHeaders(httpx.Headers):
    """Headers with more of them on the wire than in sight: copies, redirects and logs do not get those."""

    def __init__(self, headers: httpx.Headers, carried: Carried) -> None:
        shown = httpx.Headers(headers)
        for name in carried.headers:
            shown.pop(name, None)  # what we say of ourselves, nobody says before us
        super().__init__(shown)
        self._carried = [
            (name.encode("ascii"), value.encode("ascii")) for name, value in carried.headers.items()
        ]

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """Return what is sent."""
        return [*super().raw, *self._carried]


class EveryhopAuth(httpx.Auth):
    """Adds token, user and trace to calls of declared services; every other call passes untouched.

    With a client of your own the connection is yours to care for: behind a sidecar use ``http`` URLs and its egress,
    without one ``https`` and :func:`everyhop.sdk.client_context`; other schemes are left untouched, too.
    """

    def __init__(
        self,
        workload: Workload | None = None,
        *,
        sidecar: bool | None = None,
        schemes: tuple[str, ...] | None = None,
    ) -> None:
        self._outgoing: Final = Outgoing(workload, sidecar=sidecar)
        self._schemes: Final = schemes or (("http",) if self._outgoing.is_sidecar else ("https",))

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the call, and once more with a fresh token when its token is called invalid."""
        target = self._target(request)
        if target is None:
            yield request
            return
        shown = request.headers
        carried = self._outgoing.carried(target.name, request.method, request.url.raw_path)
        response = yield _wire(request, shown, carried)
        if self._is_worth_another(request, response, carried):
            response.read()
            carried = self._outgoing.carried(target.name, request.method, request.url.raw_path)
            yield _wire(request, shown, carried)

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Do the same for asyncio."""
        await self._outgoing.ready()
        target = self._target(request)
        if target is None:
            yield request
            return
        shown = request.headers
        carried = await self._outgoing.acarried(target.name, request.method, request.url.raw_path)
        response = yield _wire(request, shown, carried)
        if self._is_worth_another(request, response, carried):
            await response.aread()
            carried = await self._outgoing.acarried(target.name, request.method, request.url.raw_path)
            yield _wire(request, shown, carried)

    def _target(self, request: httpx.Request) -> Target | None:
        return self._outgoing.target(request.url.host) if request.url.scheme in self._schemes else None

    def _is_worth_another(self, request: httpx.Request, response: httpx.Response, carried: Carried) -> bool:
        challenges = response.headers.get("www-authenticate", "")
        stale = self._outgoing.is_stale(carried, response.status_code, challenges)
        return stale and isinstance(request.stream, httpx.ByteStream)  # a stream was read already


def _wire(request: httpx.Request, shown: httpx.Headers, carried: Carried) -> httpx.Request:
    request.headers = _WireHeaders(shown, carried)
    request.extensions = {**request.extensions, _X5T: carried.x5t}
    return request


class EveryhopTransport(httpx.BaseTransport):
    """Takes ``http://SERVICE/…`` to the service: by the sidecar's egress, or by mutual TLS to its instances.

    AccessDenied for a host that is no service this workload may call.
    """

    def __init__(
        self, workload: Workload | None = None, *, sidecar: bool | None = None, **options: Any
    ) -> None:
        self._outgoing: Final = Outgoing(workload, sidecar=sidecar)
        self._options: Final = {"http2": False, **options}
        self._pools: Pools[httpx.HTTPTransport] = Pools(self._pool, httpx.HTTPTransport.close)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; another instance is tried when one cannot be connected."""
        target = self._outgoing.demand(request.url.host)
        pool = self._pools.get(target, request.extensions.get(_X5T))
        if self._outgoing.is_sidecar:
            return pool.handle_request(request)
        failure: Exception | None = None
        for host, port in endpoints(target, self._pools.turn()):
            try:
                return pool.handle_request(_to(request, target, host, port))
            except _COULD_NOT_CONNECT as error:
                failure = error
        raise failure or httpx.ConnectError("no instance")

    def close(self) -> None:
        """Close every connection."""
        for pool in self._pools.take_all():
            pool.close()

    def _pool(self, target: Target) -> httpx.HTTPTransport:
        if self._outgoing.is_sidecar:
            return httpx.HTTPTransport(uds=self._outgoing.egress_socket, **self._options)
        return httpx.HTTPTransport(
            verify=self._outgoing.tls_context(target), trust_env=False, **self._options
        )


class AsyncEveryhopTransport(httpx.AsyncBaseTransport):
    """The same for asyncio."""

    def __init__(
        self, workload: Workload | None = None, *, sidecar: bool | None = None, **options: Any
    ) -> None:
        self._outgoing: Final = Outgoing(workload, sidecar=sidecar)
        self._options: Final = {"http2": False, **options}
        self._closing: set[asyncio.Task[None]] = set()
        self._pools: Pools[httpx.AsyncHTTPTransport] = Pools(self._pool, self._retire)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; another instance is tried when one cannot be connected."""
        await self._outgoing.ready()
        target = self._outgoing.demand(request.url.host)
        pool = self._pools.get(target, request.extensions.get(_X5T))
        if self._outgoing.is_sidecar:
            return await pool.handle_async_request(request)
        failure: Exception | None = None
        for host, port in endpoints(target, self._pools.turn()):
            try:
                return await pool.handle_async_request(_to(request, target, host, port))
            except _COULD_NOT_CONNECT as error:
                failure = error
        raise failure or httpx.ConnectError("no instance")

    async def aclose(self) -> None:
        """Close every connection."""
        for pool in self._pools.take_all():
            await pool.aclose()

    def _pool(self, target: Target) -> httpx.AsyncHTTPTransport:
        if self._outgoing.is_sidecar:
            return httpx.AsyncHTTPTransport(uds=self._outgoing.egress_socket, **self._options)
        context = self._outgoing.tls_context(target)
        return httpx.AsyncHTTPTransport(verify=context, trust_env=False, **self._options)

    def _retire(self, pool: httpx.AsyncHTTPTransport) -> None:
        task = asyncio.ensure_future(pool.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _to(request: httpx.Request, target: Target, host: str, port: int) -> httpx.Request:
    """Return the request for one instance; ``Host`` and everything else stay what the caller said."""
    sent = httpx.Request(
        request.method,
        request.url.copy_with(scheme="https", host=host, port=port),
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": target.name},
    )
    sent.headers = request.headers
    return sent


def client(workload: Workload | None = None, *, sidecar: bool | None = None, **options: Any) -> httpx.Client:
    """Return a client of the trust domain's services; ``options`` are those of ``httpx.Client``."""
    return httpx.Client(
        transport=EveryhopTransport(workload, sidecar=sidecar),
        auth=EveryhopAuth(workload, sidecar=sidecar, schemes=("http", "https")),
        trust_env=False,
        **options,
    )


def async_client(
    workload: Workload | None = None, *, sidecar: bool | None = None, **options: Any
) -> httpx.AsyncClient:
    """Return the same for asyncio; ``options`` are those of ``httpx.AsyncClient``."""
    return httpx.AsyncClient(
        transport=AsyncEveryhopTransport(workload, sidecar=sidecar),
        auth=EveryhopAuth(workload, sidecar=sidecar, schemes=("http", "https")),
        trust_env=False,
        **options,
    )
