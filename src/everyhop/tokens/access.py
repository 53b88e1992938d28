# SPDX-License-Identifier: Apache-2.0
"""Access tokens (RFC 9068, one profile): what one says once it is believed."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from everyhop.tokens.claims import (
    Actor,
    Confirmation,
    Id,
    Name,
    NumericDate,
    actors,
    check_expiry,
    check_issuer,
    check_printable,
    check_start,
    confirmed,
    is_workload,
    malformed,
    scopes,
    typed,
)
from everyhop.tokens.compact import guarded, open_compact
from everyhop.tokens.keyset import KeySource, PinnedKey

ACCESS_TYPE: Final = "at+jwt"
_NULLABLE: Final = ("scope", "nbf", "cnf", "txn", "act")


class AccessToken(msgspec.Struct, frozen=True, kw_only=True):
    """A verified access token.  Times are seconds since 1970; ``actors`` has the present actor first.

    A msgspec record and not a dataclass: it is built for each first-seen token, and a frozen dataclass of this
    many fields costs more than all the checks of its claims.
    """

    issuer: str
    subject: str
    client_id: str
    audience: str
    scope: frozenset[str]
    jti: str
    issued_at: int
    expires_at: int
    kid: str
    not_before: int | None = None
    x5t: str | None = None
    jkt: str | None = None
    txn: str | None = None
    actors: tuple[str, ...] = ()


class _Claims(msgspec.Struct):
    iss: Name
    sub: Name
    client_id: Name
    aud: Name
    jti: Id
    iat: NumericDate
    exp: NumericDate
    scope: str = ""
    nbf: NumericDate | None = None
    cnf: Confirmation | None = None
    txn: Id | None = None
    act: Actor | None = None


def verify_access_token(token: str, keys: KeySource, *, issuer: str, now: datetime) -> AccessToken:
    """Return what the token says, checked by everything that depends on the token, the keys and the time alone.

    Not checked here: audience, binding, subject, scope, revocation, single use (see ``expectation`` and
    ``verifier``).  ``token`` is untrusted text.  Raises TokenError, and nothing else.
    """
    return guarded(lambda: verify_access_token_at(token, keys, issuer, now.timestamp())[0])


def verify_access_token_at(
    token: str, keys: KeySource, issuer: str, now: float
) -> tuple[AccessToken, PinnedKey]:
    """Do the same at ``now`` in seconds, and return the key too; its caller turns foreign errors into refusals."""
    fields, key = open_compact(token, keys, typ=ACCESS_TYPE, read=read_access_claims)
    check_issuer(fields["issuer"], issuer)
    check_expiry(fields["expires_at"], now)
    check_start(fields["issued_at"], fields["not_before"], fields["expires_at"], now)
    return AccessToken(kid=key.kid, **fields), key


def read_access_claims(members: dict[str, Any]) -> dict[str, Any]:
    """Type the claims, unverified, as the fields of an AccessToken less ``kid``; raises TOKEN_MALFORMED."""
    claims = typed(members, _Claims, _NULLABLE)
    x5t, jkt = confirmed(claims.cnf)
    chain = actors(claims.act)
    check_printable(claims.iss, claims.sub, claims.aud, claims.jti, claims.txn or "")
    if not is_workload(claims.client_id):
        raise malformed("'client_id' is not the SPIFFE ID of a workload")
    # Without an actor the caller speaks for itself; with one, the caller is the present actor.
    if (chain[0] if chain else claims.sub) != claims.client_id:
        raise malformed("'client_id' is neither the subject nor the present actor")
    return {
        "issuer": claims.iss,
        "subject": claims.sub,
        "client_id": claims.client_id,
        "audience": claims.aud,
        "scope": scopes(claims.scope),
        "jti": claims.jti,
        "issued_at": claims.iat,
        "expires_at": claims.exp,
        "not_before": claims.nbf,
        "x5t": x5t,
        "jkt": jkt,
        "txn": claims.txn,
        "actors": chain,
    }
