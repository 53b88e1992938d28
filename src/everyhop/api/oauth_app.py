# SPDX-License-Identifier: Apache-2.0
"""The server's door for its face: what the public and OAuth clients ask (``oauth.sock``)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from everyhop.api.oauth_discovery import (
    INTROSPECT_PATH,
    JWKS_PATH,
    OAUTH_WELL_KNOWN,
    OIDC_WELL_KNOWN,
    REVOKE_PATH,
    TOKEN_PATH,
)
from everyhop.api.problems import status_of
from everyhop.core.errors import EveryhopError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.requests import Request

    from everyhop.api.oauth_discovery import Discovery, Endpoints
    from everyhop.api.oauth_endpoints import OAuthEndpoints

_log = logging.getLogger(__name__)

_UNAVAILABLE: Final = 503
_TITLES: Final = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Access denied",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    500: "Internal error",
    503: "Unavailable",
}


def oauth_app(
    *,
    endpoints: Endpoints,
    discovery: Discovery,
    clients: OAuthEndpoints | None = None,
    further: Sequence[Route] = (),
) -> Starlette:
    """Return the ASGI app for ``oauth.sock``; without ``clients`` it only tells what is public.

    ``further`` are the routes of other doors behind the face; each answers its own errors.
    """
    routes = [Route(path, discovery.jwks) for path in endpoints.paths(JWKS_PATH)]
    routes += [Route(path, discovery.oauth) for path in endpoints.well_known(OAUTH_WELL_KNOWN)]
    routes += [Route(path, discovery.openid) for path in endpoints.well_known(OIDC_WELL_KNOWN)]
    for path, answer in () if clients is None else _for_clients(clients):
        routes += [Route(full, answer, methods=["POST"]) for full in endpoints.paths(path)]
    return Starlette(
        routes=[*routes, *further],
        exception_handlers={
            EveryhopError: _on_everyhop_error,
            HTTPException: _on_http_exception,
            Exception: _on_unexpected,
        },
    )


def _for_clients(clients: OAuthEndpoints) -> tuple[tuple[str, Callable[..., Any]], ...]:
    return (
        (TOKEN_PATH, clients.token),
        (INTROSPECT_PATH, clients.introspect),
        (REVOKE_PATH, clients.revoke),
    )


def _problem(status: int, code: str, headers: Mapping[str, str] | None = None) -> Response:
    """Build a problem document that tells strangers the code and nothing of ours."""
    body = {"type": "about:blank", "title": _TITLES.get(status, "Refused"), "status": status, "code": code}
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        headers={"cache-control": "no-store", **(headers or {})},
        media_type="application/problem+json",
    )


async def _on_everyhop_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, EveryhopError)  # noqa: S101  # registered for this class only
    _log.info("refused", extra={"path": request.url.path, "code": error.code, "reason": error.message})
    status = status_of(error)
    return _problem(status, error.code, {"retry-after": "1"} if status == _UNAVAILABLE else None)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for this class only
    code = _TITLES.get(error.status_code, "Refused").upper().replace(" ", "_")
    return _problem(error.status_code, code, error.headers)


async def _on_unexpected(request: Request, error: Exception) -> Response:
    _log.error("unexpected failure", exc_info=error, extra={"path": request.url.path})
    return _problem(500, "INTERNAL")
