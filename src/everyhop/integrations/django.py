# SPDX-License-Identifier: Apache-2.0
"""Django: a middleware for WSGI and ASGI, and a decorator for single views.

    MIDDLEWARE = ["everyhop.integrations.django.EveryhopMiddleware", ...]   # first
    EVERYHOP = {}                                                            # optional

``EVERYHOP`` may hold ``GUARD`` (a guard, or the dotted name of one or of a function that returns one), ``PREFIX`` and
``SIDECAR_SOCKET``, as :class:`everyhop.integrations.asgi.EveryhopMiddleware` has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from everyhop.core.errors import SettingsError
from everyhop.integrations import asgi, wsgi
from everyhop.integrations._arrival import Checks, OwnSocket, forgotten, visible
from everyhop.integrations._missing import needs
from everyhop.integrations._views import require
from everyhop.integrations._workload import Shield
from everyhop.sdk import caller, serving, user
from everyhop.sdk.model import Refusal, Request, Verified

with needs("Django", module="django"):
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
    from django.conf import settings  # type: ignore[import-untyped]  # no types
    from django.core.exceptions import RequestDataTooBig  # type: ignore[import-untyped]  # no types
    from django.http import HttpRequest, HttpResponse  # type: ignore[import-untyped]  # no types
    from django.utils.module_loading import import_string  # type: ignore[import-untyped]  # no types

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

__all__ = ["EveryhopMiddleware", "caller", "require", "user"]

_KNOWN: Final = frozenset({"GUARD", "PREFIX", "SIDECAR_SOCKET"})


class EveryhopMiddleware:
    """Serves views to verified calls only.  It stands first in ``MIDDLEWARE``."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        options = dict(getattr(settings, "EVERYHOP", {}))
        if unknown := sorted(set(options) - _KNOWN):
            raise SettingsError(f"EVERYHOP has no {', '.join(unknown)}", hint=f"only {', '.join(_KNOWN)}")
        self._next = get_response
        self._shield: Final = Shield(_guard_of(options.get("GUARD")))
        self._own: Final = OwnSocket(options.get("SIDECAR_SOCKET"))
        self._prefix: Final = str(options.get("PREFIX", "")).rstrip("/").encode()
        self._is_async: Final = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponse | Awaitable[HttpResponse]:
        """Serve one request, in the way that the rest of the chain runs."""
        if self._is_async:
            return self._serve_async(request)
        try:
            verified = self._check(request)
        except Refusal as refusal:
            return _answer(refusal)
        with serving(verified):
            return _carried(_owed(self._next(request), verified), verified)

    async def _serve_async(self, request: HttpRequest) -> HttpResponse:
        try:
            if not self._shield.is_ready:
                await sync_to_async(self._shield.guard, thread_sensitive=False)()
            verified = self._check(request)
        except Refusal as refusal:
            return _answer(refusal)
        with serving(verified):
            return _carried(_owed(await self._next(request), verified), verified)

    def process_exception(self, _request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer what :func:`require` raised in a view; Django would make 500 of it."""
        return _answer(error) if isinstance(error, Refusal) else None

    def _check(self, request: HttpRequest) -> Verified:
        guard = self._shield.guard()
        arrived = self._request_of(request)
        verified = guard.check(arrived)
        if not arrived.via_sidecar:
            _hide(request, verified)
        if verified.checks_body:
            _check_body(guard, verified, request)
        return verified

    def _request_of(self, request: HttpRequest) -> Request:
        scope = getattr(request, "scope", None)
        if scope is not None:
            return asgi.request_of(scope, self._own, self._prefix)
        return wsgi.request_of(cast("Any", request).environ, self._own)


def _guard_of(given: Any) -> Checks | None:
    found = import_string(given) if isinstance(given, str) else given
    if found is not None and not hasattr(found, "check"):
        found = found()
    return cast("Checks | None", found)


def _hide(request: HttpRequest, verified: Verified) -> None:
    """Take away what no view may see of a call that came past no sidecar, in each place where Django has it."""
    wsgi.hide(request.META, verified)
    request.__dict__.pop("headers", None)  # made of META, and kept, when it is first asked for
    scope = getattr(request, "scope", None)
    if scope is not None:
        scope["headers"] = visible(scope["headers"], verified)


def _check_body(guard: Checks, verified: Verified, request: HttpRequest) -> None:
    try:
        body = request.body  # Django keeps it, so the view can read it again
    except RequestDataTooBig:
        body = b"\0" * (guard.max_body + 1)  # Django's limit is a limit: the guard says 413 in its own words
    wsgi.refuse_cut_off(verified, request.META, len(body), guard.max_body)
    stated = request.META.get("CONTENT_TYPE", "")
    guard.check_body(verified, [stated] if stated else [], body)


def _owed(response: Any, verified: Verified) -> Any:
    refusal = forgotten(verified, response.status_code)
    if refusal is None:
        return response
    response.close()
    return _answer(refusal)


def _carried(response: Any, verified: Verified) -> Any:
    """Let a streaming response make each of its parts while its call is the current one."""
    if getattr(response, "streaming", False):
        parts = response.streaming_content
        if response.is_async:
            response.streaming_content = _each_async(parts, verified)
        elif getattr(response, "file_to_stream", None) is None:
            response.streaming_content = _each(parts, verified)
    return response


def _each(parts: Iterator[bytes], verified: Verified) -> Iterator[bytes]:
    while True:
        with serving(verified):
            try:
                part = next(parts)
            except StopIteration:
                return
        yield part


async def _each_async(parts: AsyncIterator[bytes], verified: Verified) -> AsyncIterator[bytes]:
    parts = aiter(parts)
    while True:
        with serving(verified):
            try:
                part = await anext(parts)
            except StopAsyncIteration:
                return
        yield part


def _answer(refusal: Refusal) -> HttpResponse:
    return HttpResponse(refusal.body, status=refusal.status, headers=dict(refusal.headers))
