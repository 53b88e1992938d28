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


_MEANINGS: Final[dict[TokenCode, tuple[str, str]]] = {
    TokenCode.MISSING_TOKEN: (
        "the call carried no credential where one is asked for",
        "a sidecar attaches it by itself; without one use the SDK, or `everyhop token mint`",
    ),
    TokenCode.TOKEN_MALFORMED: (
        "the credential is no token of this profile, or there was more than one",
        "`everyhop token inspect` shows what it holds",
    ),
    TokenCode.TOKEN_INVALID: (
        "its signature, its header or its times are not as they must be, or the key or user's token is not believed",
        "ask for a new one; compare the clocks",
    ),
    TokenCode.TOKEN_EXPIRED: ("it is past its end", "ask for a new one; compare the clocks"),
    TokenCode.UNKNOWN_KEY_ID: (
        "no published key signed it: another issuer, a key of long ago, or one that was revoked",
        "`everyhop keys list` shows the keys",
    ),
    TokenCode.UNAUTHORIZED_ISSUER: (
        "another issuer wrote it",
        "`everyhop status -o json` names the issuer; users' issuers stand under `users` in the policy",
    ),
    TokenCode.AUDIENCE_MISMATCH: (
        "it is meant for another service, or for another operation",
        "ask for this one: `--for SERVICE`, or `--for SERVICE#OPERATION` where the policy says `token: operation`",
    ),
    TokenCode.INSUFFICIENT_SCOPE: (
        "its scope does not hold this operation",
        "ask for a token without a narrower scope, or with this one",
    ),
    TokenCode.BINDING_MISMATCH: (
        "it is bound to another certificate, or to another service, than the one that the caller showed",
        "it was stolen, or kept beyond a rotation: ask for a token for the present certificate",
    ),
    TokenCode.TOKEN_REPLAYED: (
        "it was used before, and this operation takes a token once",
        "ask for a new one for each call, as sidecars do",
    ),
    TokenCode.TOKEN_REVOKED: ("it was taken back", "see the log: `everyhop log show --all`"),
    TokenCode.USER_REQUIRED: (
        "the rule asks for a user, and the call was made for nobody, or for a client with an API key",
        "pass the Txn-Token of the incoming call on",
    ),
}


def meaning_of(code: str) -> tuple[str, str] | None:
    """Return what a code says about a call, and what helps; None for what is no code.  For operators, not callers."""
    return _MEANINGS[TokenCode(code)] if code in TokenCode.__members__ else None
