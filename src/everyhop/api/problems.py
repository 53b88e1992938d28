# SPDX-License-Identifier: Apache-2.0
"""Errors as ``application/problem+json`` (RFC 9457): the one table of the HTTP doors."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from everyhop.core.errors import (
    AccessDenied,
    Conflict,
    EveryhopError,
    InputError,
    NotFound,
    PolicyError,
    SettingsError,
    TrustError,
    Unavailable,
)
from everyhop.issuing.errors import ActorBlocked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

_log = logging.getLogger(__name__)

STATUS: Final[tuple[tuple[type[EveryhopError], int], ...]] = (
    (PolicyError, 422),
    (SettingsError, 422),
    (InputError, 400),
    (ActorBlocked, 429),
    (AccessDenied, 403),
    (TrustError, 401),
    (Conflict, 409),
    (NotFound, 404),
    (Unavailable, 503),
)


def status_of(error: EveryhopError) -> int:
    """Return the HTTP status of an error; 500 for a class that the table does not know."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


RETRY_AFTER: Final = {"retry-after": "1"}
"""What goes with 503: a second is about what a lock or a restart takes; agents add their own spread."""


def problem(
    status: int, *, code: str, detail: str, headers: Mapping[str, str] | None = None, **members: object
) -> Response:
    """Build a problem document."""
    body = {
        "status": status,
        "code": code,
        "detail": detail,
        **{k: v for k, v in members.items() if v is not None},
    }
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        headers=None if headers is None else dict(headers),
        media_type="application/problem+json",
    )


async def on_everyhop_error(request: Request, error: Exception) -> Response:
    """Answer one of our errors; these doors belong to the owner, so the message may be shown."""
    del request
    assert isinstance(error, EveryhopError)  # noqa: S101  # registered for this class only
    problems = None
    if isinstance(error, PolicyError):
        problems = [p.to_dict() for p in error.problems]
    retry = error.retry if isinstance(error, Unavailable) else None
    return problem(
        status_of(error),
        code=error.code,
        detail=error.message,
        headers=RETRY_AFTER if retry else None,
        hint=error.hint,
        problems=problems,
        retry=retry,
        token_code=getattr(error, "token_code", None),
        blocked=error.subject if isinstance(error, ActorBlocked) else None,
        retry_after=error.retry_after if isinstance(error, ActorBlocked) else None,
    )


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer Starlette's own refusals (404, 405) in the same form."""
    del request
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for this class only
    return problem(error.status_code, code="HTTP_" + str(error.status_code), detail=error.detail)


async def on_unexpected(request: Request, error: Exception) -> Response:
    """Answer a fault of ours without its text, which may hold anything; the log has it."""
    _log.error("unexpected failure", exc_info=error, extra={"path": request.url.path})
    return problem(500, code="INTERNAL", detail="an internal error; the log of this process has the reason")
