# SPDX-License-Identifier: Apache-2.0
"""Refusals in the words of OAuth (RFC 6749 section 5.2, RFC 8693 section 2.2.2, RFC 8707 section 2)."""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus

from everyhop.core.errors import AccessDenied


class OAuthError(StrEnum):
    """The ``error`` member of a refusal."""

    INVALID_REQUEST = "invalid_request"  # also a subject or actor token that is not believed (RFC 8693)
    INVALID_CLIENT = "invalid_client"
    INVALID_GRANT = "invalid_grant"
    UNAUTHORIZED_CLIENT = "unauthorized_client"  # this caller may not use this kind of grant
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    INVALID_SCOPE = "invalid_scope"  # more than the policy grants
    INVALID_TARGET = "invalid_target"  # no such service or operation, or not one that takes such a token
    ACCESS_DENIED = "access_denied"  # the policy opens nothing there to this caller
    TEMPORARILY_UNAVAILABLE = "temporarily_unavailable"


class GrantRefused(AccessDenied):
    """A token that is not issued.

    ``error`` is for the caller, ``message`` may be shown to it as ``error_description``.  ``token_code`` is the
    stable code (``tokens.codes``) where a presented token was the reason.  ``api_key`` is the public part of a
    presented API key, for the record only.
    """

    code = "GRANT_REFUSED"

    def __init__(
        self,
        error: OAuthError,
        message: str,
        *,
        hint: str | None = None,
        token_code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.error = error
        self.token_code = token_code
        self.retry_after = retry_after
        self.api_key: str | None = None

    @property
    def status(self) -> int:
        """Return the HTTP status (RFC 6749 section 5.2)."""
        if self.error is OAuthError.INVALID_CLIENT:
            return HTTPStatus.UNAUTHORIZED
        if self.error is OAuthError.TEMPORARILY_UNAVAILABLE:
            return HTTPStatus.TOO_MANY_REQUESTS
        return HTTPStatus.BAD_REQUEST


class ActorBlocked(GrantRefused):
    """Who asks, or on whose behalf, is blocked for now; ``subject`` is who, as records name it."""

    code = "BLOCKED"

    def __init__(self, subject: str, retry_after: int) -> None:
        """``retry_after`` is in seconds."""
        super().__init__(OAuthError.TEMPORARILY_UNAVAILABLE, "blocked", retry_after=retry_after)
        self.subject = subject
