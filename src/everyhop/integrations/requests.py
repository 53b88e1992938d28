# SPDX-License-Identifier: Apache-2.0
"""requests: calls to the services of the policy, with or without a sidecar.

    with session() as http:
        http.post("http://payments/v1/charges", json={...})

:func:`session` speaks to services that this workload may call and to nobody else.  To add identity to a session of
your own there is :class:`EveryhopAuth`.  Headers of ours are gone from a request once it was answered, so no redirect
takes them to another host.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from everyhop.integrations._missing import needs
from everyhop.integrations._outgoing import Carried, Outgoing, Pools, endpoints

with needs("requests"):
    import requests
    from requests.adapters import HTTPAdapter
    from requests.auth import AuthBase
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

if TYPE_CHECKING:
    from everyhop.sdk.context import Target
    from everyhop.sdk.workload import Workload

__all__ = ["EveryhopAdapter", "EveryhopAuth", "session"]

_PROXY_VARIABLES: Final = ("http_proxy", "HTTP_PROXY")


class EveryhopAuth(AuthBase):
    """Adds token, user and trace to calls of declared services; every other call passes untouched.

    With a session of your own the connection is yours to care for: behind a sidecar use ``http`` URLs and the proxy of
    the environment, without one ``https`` and :func:`everyhop.sdk.client_context`.
    """

    def __init__(self, workload: Workload | None = None, *, sidecar: bool | None = None) -> None:
        self._outgoing: Final = Outgoing(workload, sidecar=sidecar)
        self._scheme: Final = "http" if self._outgoing.is_sidecar else "https"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the headers, and see to it that they are taken off again."""
        parts = urlsplit(request.url or "")
        target = self._outgoing.target(parts.hostname or "") if parts.scheme == self._scheme else None
        if target is None:
            return request
        carried = _put_on(request, self._outgoing, target)

        def answered(response: requests.Response, **options: Any) -> requests.Response:
            _take_off(request, carried)
            return _again(response, request, carried, self._outgoing, target, options)

        request.register_hook("response", answered)  # type: ignore[no-untyped-call]  # the stub lacks types
        return request


class EveryhopAdapter(HTTPAdapter):
    """Takes ``http://SERVICE/…`` to the service: by the sidecar's proxy, or by mutual TLS to its instances.

    It adds token, user and trace by itself and repeats a call once when its token is called invalid.  AccessDenied
    for a host that is no service this workload may call.
    """

    def __init__(
        self, workload: Workload | None = None, *, sidecar: bool | None = None, **options: Any
    ) -> None:
        self._outgoing: Final = Outgoing(workload, sidecar=sidecar)
        self._options: Final = options
        self._pools: Pools[HTTPAdapter] = Pools(self._pool, HTTPAdapter.close)
        super().__init__(**options)

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        """Send one request; another instance is tried when one cannot be connected."""
        target = self._outgoing.demand(urlsplit(request.url or "").hostname or "")
        carried = _put_on(wired := request.copy(), self._outgoing, target)
        response = self._send(wired, target, carried, arguments, options)
        stale = self._outgoing.is_stale(
            carried, response.status_code, response.headers.get("www-authenticate", "")
        )
        if stale and _can_repeat(request):
            response.close()
            carried = _put_on(wired := request.copy(), self._outgoing, target)
            response = self._send(wired, target, carried, arguments, options)
        response.request = request
        response.url = request.url or ""
        return response

    def close(self) -> None:
        """Close every connection."""
        for pool in self._pools.take_all():
            pool.close()
        super().close()

    def _send(
        self,
        request: requests.PreparedRequest,
        target: Target,
        carried: Carried,
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> requests.Response:
        pool = self._pools.get(target, carried.x5t)
        if self._outgoing.is_sidecar:
            return pool.send(request, *arguments, **{**options, "proxies": _sidecar_proxy()})
        parts = urlsplit(request.url or "")
        request.headers.setdefault("Host", parts.netloc.rpartition("@")[2])
        failure: Exception | None = None
        for host, port in endpoints(target, self._pools.turn()):
            shown = f"[{host}]" if ":" in host else host
            request.url = urlunsplit(parts._replace(scheme="https", netloc=f"{shown}:{port}"))
            try:
                return pool.send(request, *arguments, **{**options, "proxies": None, "verify": True})
            except requests.exceptions.ConnectionError as error:
                if not _never_connected(error):
                    raise  # the service may have acted on it
                failure = error
        raise failure or requests.exceptions.ConnectionError("no instance")

    def _pool(self, target: Target) -> HTTPAdapter:
        if self._outgoing.is_sidecar:
            return HTTPAdapter(**self._options)
        return _MutualTls(self._outgoing.tls_context(target), **self._options)


class _MutualTls(HTTPAdapter):
    """Connections by one TLS context; the SPIFFE ID is checked by the context, host names are not looked at."""

    def __init__(self, context: Any, **options: Any) -> None:
        self._context = context
        super().__init__(**options)

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        """Make the pool manager with the context."""
        super().init_poolmanager(*arguments, **named, ssl_context=self._context, assert_hostname=False)


def session(workload: Workload | None = None, *, sidecar: bool | None = None) -> requests.Session:
    """Return a session that speaks to the trust domain's services and to nobody else."""
    made = requests.Session()
    made.trust_env = False
    adapter = EveryhopAdapter(workload, sidecar=sidecar)
    made.mount("http://", adapter)
    made.mount("https://", adapter)
    return made


def _put_on(request: requests.PreparedRequest, outgoing: Outgoing, target: Target) -> Carried:
    carried = outgoing.carried(target.name, request.method or "", request.path_url)
    _take_off(request, carried)
    request.headers.update(carried.headers)
    return carried


def _take_off(request: requests.PreparedRequest, carried: Carried) -> None:
    for name in carried.headers:
        request.headers.pop(name, None)


def _again(
    response: requests.Response,
    request: requests.PreparedRequest,
    carried: Carried,
    outgoing: Outgoing,
    target: Target,
    options: dict[str, Any],
) -> requests.Response:
    """Return the response, or the one of a second try with a fresh token."""
    challenges = response.headers.get("www-authenticate", "")
    if not outgoing.is_stale(carried, response.status_code, challenges) or not _can_repeat(request):
        return response
    _ = response.content
    response.close()
    repeated = request.copy()
    repeated.hooks = {"response": []}
    fresh = _put_on(repeated, outgoing, target)
    found: requests.Response = response.connection.send(repeated, **options)
    _take_off(repeated, fresh)
    found.history.append(response)
    return found


def _can_repeat(request: requests.PreparedRequest) -> bool:
    body: object = request.body  # a stream, too, whatever the stubs say; that one was read already
    return body is None or isinstance(body, str | bytes)


def _never_connected(error: requests.exceptions.ConnectionError) -> bool:
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(reason, NewConnectionError | ConnectTimeoutError)


def _sidecar_proxy() -> dict[str, str]:
    """Return the sidecar's proxy from the environment, whatever else is set there."""
    found = next((os.environ[name] for name in _PROXY_VARIABLES if os.environ.get(name)), None)
    if found is None:
        raise requests.exceptions.ProxyError(
            "the sidecar's proxy is not in $http_proxy: start with `everyhop run`"
        )
    return {"http": found}
