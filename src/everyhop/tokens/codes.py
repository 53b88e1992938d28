# SPDX-License-Identifier: Apache-2.0
"""Why a token is refused, in words that never change, and what HTTP says about each (RFC 6750 section 3)."""

# ruff: noqa: S105  # names of refusals, not passwords
from __future__ import annotations

from enum import StrEnum
from typing import Final

REALM: Final = "everyhop"
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403


class TokenCode(StrEnum):
    """Stable codes; callers see them, so they tell nothing that the token itself does not."""

    MISSING_TOKEN = "MISSING_TOKEN"
    TOKEN_MALFORMED = "TOKEN_MALFORMED"
    TOKEN_INVALID = "TOKEN_INVALID"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"
    UNKNOWN_KEY_ID = "UNKNOWN_KEY_ID"
    UNAUTHORIZED_ISSUER = "UNAUTHORIZED_ISSUER"
    AUDIENCE_MISMATCH = "AUDIENCE_MISMATCH"
    INSUFFICIENT_SCOPE = "INSUFFICIENT_SCOPE"
    BINDING_MISMATCH = "BINDING_MISMATCH"
    TOKEN_REPLAYED = "TOKEN_REPLAYED"
    TOKEN_REVOKED = "TOKEN_REVOKED"
    USER_REQUIRED = "USER_REQUIRED"


_BARE: Final = frozenset({TokenCode.MISSING_TOKEN, TokenCode.USER_REQUIRED})


def status_of(code: str) -> int:
    """Return the HTTP status: 403 when a good token says too little, 401 for everything else."""
    return _FORBIDDEN if code == TokenCode.INSUFFICIENT_SCOPE else _UNAUTHORIZED


def challenge(code: str) -> str:
    """Return the value of ``WWW-Authenticate``; no error is named when nothing was presented (section 3.1)."""
    if code in _BARE:
        return f'Bearer realm="{REALM}"'
    error = "insufficient_scope" if code == TokenCode.INSUFFICIENT_SCOPE else "invalid_token"
    return f'Bearer realm="{REALM}", error="{error}"'
