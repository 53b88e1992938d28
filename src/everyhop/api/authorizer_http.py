# SPDX-License-Identifier: Apache-2.0
"""The same questions over HTTP/1.1, on the agent's ``authorizer-http.sock``: Envoy, nginx, Traefik.

Each proxy has a path of its own, and only the fields of that form are read there:

- ``/envoy/SERVICE`` before the original path: Envoy's ``http_service`` with ``path_prefix``; Emissary.
- ``/nginx`` or ``/nginx/SERVICE``: ``auth_request``; the configuration sets ``x-original-method``,
  ``x-original-uri`` and ``x-client-certificate``, each over whatever a client sent.
- ``/traefik`` or ``/traefik/SERVICE``: ForwardAuth with ``trustForwardHeader: false``, behind PassTLSClientCert.

The service stands in the path that the proxy's configuration writes, never in a header or the host.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

from everyhop.api.authorizer_grpc import DEADLINE_SECONDS, MAX_WAITING, path_of, principal_of_xfcc
from everyhop.api.credentials_shown import presented
from everyhop.control.asking import DENIED, UNAUTHENTICATED, CallerFrom, Form, Question
from everyhop.control.external_decisions import OVERLOADED, TIMED_OUT
from everyhop.control.identity_headers import DECISION_HEADER, folded
from everyhop.core.errors import AttestationError, InputError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from everyhop.control.asking import Answer, AskingProxy
    from everyhop.control.external_decisions import ExternalDecisions
    from everyhop.wire.peers import PeerInfo

    Fields = tuple[tuple[bytes, bytes], ...]
    Send = Callable[[dict[str, Any]], Awaitable[None]]

STATUS_HEADER: Final = "x-everyhop-status"
"""What a refusal means, for nginx: ``auth_request`` passes 401 and 403 on and makes 500 of everything else."""

CODE_HEADER: Final = "x-everyhop-code"
"""The code of a refusal, for proxies that cannot pass its body on."""

REMOVE_HEADER: Final = "x-envoy-auth-headers-to-remove"
"""Names of headers that Envoy removes from a request that was allowed over HTTP, separated by commas."""

KEEP_ALIVE_SECONDS: Final = 2 * 60 * 60
"""Longer than a proxy keeps an idle connection, or it would ask on one that is just being closed."""

_NGINX_METHOD: Final = "x-original-method"
_NGINX_URI: Final = "x-original-uri"
_NGINX_CERTIFICATE: Final = "x-client-certificate"
_NGINX_SOURCE: Final = "x-client-address"
_TRAEFIK_METHOD: Final = "x-forwarded-method"
_TRAEFIK_URI: Final = "x-forwarded-uri"
_TRAEFIK_CERTIFICATE: Final = "x-forwarded-tls-client-cert"
_HOP: Final = frozenset({"host", "connection", "content-length"})
_CONTROL: Final = {
    Form.NGINX: frozenset({_NGINX_METHOD, _NGINX_URI, _NGINX_CERTIFICATE, _NGINX_SOURCE}) | _HOP,
    Form.TRAEFIK: frozenset({_TRAEFIK_METHOD, _TRAEFIK_URI, _TRAEFIK_CERTIFICATE}) | _HOP,
    Form.ENVOY_HTTP: _HOP,
}


class HttpAuthorizer:
    """Answers over HTTP.  All use is from one event loop."""

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

    def application(self, peer: PeerInfo) -> Callable[..., Awaitable[None]]:
        """Return the ASGI application for one connection; raises AttestationError for a user that is not named."""
        proxy = self._proxies.get(peer.uid)
        if proxy is None:
            raise AttestationError(f"uid {peer.uid} is no authorizer of the settings")

        async def application(scope: dict[str, Any], receive: object, send: Send) -> None:
            del receive  # the body of a request is never looked at
            if scope["type"] == "http":
                await self._serve(proxy, scope, send)

        return application

    async def _serve(self, proxy: AskingProxy, scope: dict[str, Any], send: Send) -> None:
        form, service, rest = form_of(scope["raw_path"])
        if form is None:
            await _send(send, 404, {}, b"")
            return
        await _answer(send, form, await self._decide(proxy, form, service, rest, scope))

    async def _decide(
        self, proxy: AskingProxy, form: Form, service: str, rest: str, scope: dict[str, Any]
    ) -> Answer:
        if self._waiting >= self._max_waiting:
            return self._decisions.refuse(proxy, form, OVERLOADED)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._deadline):
                return await self._decisions.answer(
                    proxy, form, lambda: _READERS[form](proxy, service, rest, scope)
                )
        except TimeoutError:
            return self._decisions.refuse(proxy, form, TIMED_OUT)
        finally:
            self._waiting -= 1


def form_of(raw_path: bytes) -> tuple[Form | None, str, str]:
    """Return form, service and what is left of a path, as raw as it came; the form is None for any other path."""
    path = raw_path.decode("latin-1")
    if path.startswith("/envoy/"):
        service, slash, rest = path.removeprefix("/envoy/").partition("/")
        return Form.ENVOY_HTTP, service, slash + rest
    for form in (Form.NGINX, Form.TRAEFIK):
        head, _, service = path.removeprefix("/").partition("/")
        if head == form.value and "/" not in service:
            return form, service, ""
    return None, "", ""


def _envoy(proxy: AskingProxy, service: str, rest: str, scope: dict[str, Any]) -> Question:
    headers: Fields = tuple(scope["headers"])
    query = scope["query_string"].decode("latin-1")
    path = path_of((f"{rest}?{query}" if query else rest).encode("latin-1"), ())
    principal = principal_of_xfcc(headers) if proxy.caller is CallerFrom.XFCC else None
    return _question(
        Form.ENVOY_HTTP, proxy.target(service), scope["method"], path, headers, principal=principal
    )


def _nginx(proxy: AskingProxy, service: str, rest: str, scope: dict[str, Any]) -> Question:
    del rest
    headers: Fields = tuple(scope["headers"])
    return _question(
        Form.NGINX,
        proxy.target(service),
        _needed(headers, _NGINX_METHOD),
        _needed(headers, _NGINX_URI),
        headers,
        certificate=_only(headers, _NGINX_CERTIFICATE),
        source=_only(headers, _NGINX_SOURCE),
    )


def _traefik(proxy: AskingProxy, service: str, rest: str, scope: dict[str, Any]) -> Question:
    del rest
    headers: Fields = tuple(scope["headers"])
    return _question(
        Form.TRAEFIK,
        proxy.target(service),
        _needed(headers, _TRAEFIK_METHOD),
        _needed(headers, _TRAEFIK_URI),
        headers,
        certificate=_only(headers, _TRAEFIK_CERTIFICATE),
    )


_READERS: Final = {Form.ENVOY_HTTP: _envoy, Form.NGINX: _nginx, Form.TRAEFIK: _traefik}


def _question(
    form: Form,
    target: str,
    method: str,
    path: str,
    headers: Fields,
    *,
    principal: str | None = None,
    certificate: str | None = None,
    source: str | None = None,
) -> Question:
    clients = tuple((name, value) for name, value in headers if folded(name) not in _CONTROL[form])
    return Question(
        form=form,
        target=target,
        method=method,
        path=path,
        headers=clients,
        is_raw=form is not Form.ENVOY_HTTP,  # which has joined them before it asks
        principal=principal,
        certificate=None if not certificate else certificate.encode("latin-1"),
        presented=lambda: presented(clients, path),
        source=source,
    )


def _only(headers: Fields, wanted: str) -> str | None:
    """Return the one value of a field that the proxy's configuration sets, None without it.

    Raises InputError when it stands there twice or under another spelling: then a client's came through as well.
    """
    found = [(name, value) for name, value in headers if folded(name) == wanted]
    if not found:
        return None
    if len(found) > 1 or found[0][0].lower() != wanted.encode():
        raise InputError(f"{wanted} is not exactly one field")
    return found[0][1].decode("latin-1")


def _needed(headers: Fields, wanted: str) -> str:
    value = _only(headers, wanted)
    if not value:
        raise InputError(f"{wanted} is missing", hint="set it in the configuration of the proxy")
    return value


async def _answer(send: Send, form: Form, answer: Answer) -> None:
    if answer.is_allowed:
        removing = {REMOVE_HEADER: ",".join(answer.remove)} if form is Form.ENVOY_HTTP else {}
        await _send(send, answer.status, answer.headers | removing, b"")
        return
    status = answer.status
    if form is Form.NGINX and status != UNAUTHENTICATED:
        status = DENIED
    headers = {
        "content-type": "application/problem+json",
        STATUS_HEADER: str(answer.status),
        CODE_HEADER: answer.code,
        DECISION_HEADER: answer.decision,
        "www-authenticate": answer.authenticate or "",
        "retry-after": "" if answer.retry_after is None else str(answer.retry_after),
    }
    await _send(send, status, headers, msgspec.json.encode(answer.problem()))


async def _send(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    fields = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items() if value]
    fields.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
