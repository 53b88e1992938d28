# SPDX-License-Identifier: Apache-2.0
"""Refusals of the OAuth endpoints, in the words of the standards: one table from code to status."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from everyhop.core.errors import EveryhopError

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_STORE: Final = {"cache-control": "no-store", "pragma": "no-cache", "x-content-type-options": "nosniff"}


class OAuthCode(StrEnum):
    """Codes of RFC 6749 section 5.2, 8693 section 2.2.2, 8707 section 2, 9449 section 5."""

    INVALID_REQUEST = "invalid_request"
    INVALID_CLIENT = "invalid_client"
    INVALID_GRANT = "invalid_grant"
    UNAUTHORIZED_CLIENT = "unauthorized_client"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    INVALID_SCOPE = "invalid_scope"
    INVALID_TARGET = "invalid_target"
    INVALID_DPOP_PROOF = "invalid_dpop_proof"
    TEMPORARILY_UNAVAILABLE = "temporarily_unavailable"
    SERVER_ERROR = "server_error"


_STATUS: Final[dict[OAuthCode, int]] = {
    OAuthCode.INVALID_CLIENT: 401,
    OAuthCode.TEMPORARILY_UNAVAILABLE: 503,
    OAuthCode.SERVER_ERROR: 500,
}
_BAD_REQUEST: Final = 400


class OAuthRefusal(EveryhopError):  # noqa: N818  # the name of the outcome, as its peers in core.errors
    """A refusal as its caller sees it.

    ``description`` is for the developer of the client: our own words, never anything that was sent.  ``reason`` says
    more to the operator, where there is more to say.  ``status`` is that of the table unless another one fits better.
    """

    code = "OAUTH_REFUSED"

    def __init__(
        self,
        error: OAuthCode,
        description: str,
        *,
        reason: str | None = None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason or description)
        self.error = error
        self.description = description
        self.status = status or _STATUS.get(error, _BAD_REQUEST)
        self.headers = dict(headers or {})


def error_response(refusal: OAuthRefusal) -> Response:
    """Return the answer: JSON of two members (RFC 6749 section 5.2), never cached."""
    body = {"error": refusal.error.value, "error_description": refusal.description}
    return json_response(body, status=refusal.status, headers=refusal.headers)


def json_response(
    body: Mapping[str, object], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON answer that nobody keeps."""
    return Response(
        json.dumps(body, separators=(",", ":")).encode(),
        status_code=status,
        headers={**NO_STORE, **(headers or {})},
        media_type="application/json",
    )
