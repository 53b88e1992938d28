# SPDX-License-Identifier: Apache-2.0
"""Access tokens (RFC 9068, one profile): what one says once it is believed."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from everyhop.tokens.claims import (
    Actor,
    ClaimsReader,
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
)
from everyhop.tokens.compact import guarded, open_compact
from everyhop.tokens.keyset import KeySource, PinnedKey

ACCESS_TYPE: Final = "at+jwt"


class AccessToken(msgspec.Struct, frozen=True, gc=False):
    """A verified access token.  Times are seconds since 1970; ``actors`` has the present actor first.

    A msgspec record and not a dataclass: it is built for each first-seen token, and a frozen dataclass of this
    many fields costs more than all the checks of its claims.  It holds texts and numbers only, so it can be in no
    cycle and the collector need not look at it.
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


class AccessClaims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The claims of an access token, by their names and in their order on the wire."""

    iss: Name
    sub: Name
    client_id: Name
    aud: Name
    scope: str = ""
    jti: Id
    iat: NumericDate
    exp: NumericDate
    nbf: NumericDate | None = None
    cnf: Confirmation | None = None
    txn: Id | None = None
    act: Actor | None = None


_READER: Final = ClaimsReader(AccessClaims, ("scope", "nbf", "cnf", "txn", "act"))


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
    found, key = open_compact(token, keys, typ=ACCESS_TYPE, read=read_access_claims)
    check_issuer(found.issuer, issuer)
    check_expiry(found.expires_at, now)
    check_start(found.issued_at, found.not_before, found.expires_at, now)
    return found, key


def read_access_claims(payload: bytes, kid: str) -> AccessToken:
    """Type the claims, unverified, of a token that names the key ``kid``; raises TOKEN_MALFORMED."""
    claims = _READER.read(payload)
    x5t, jkt = confirmed(claims.cnf)
    chain = actors(claims.act)
    check_printable(claims.iss, claims.sub, claims.aud, claims.jti, claims.txn or "")
    if not is_workload(claims.client_id):
        raise malformed("'client_id' is not the SPIFFE ID of a workload")
    # Without an actor the caller speaks for itself; with one, the caller is the present actor.
    if (chain[0] if chain else claims.sub) != claims.client_id:
        raise malformed("'client_id' is neither the subject nor the present actor")
    return AccessToken(
        issuer=claims.iss,
        subject=claims.sub,
        client_id=claims.client_id,
        audience=claims.aud,
        scope=scopes(claims.scope),
        jti=claims.jti,
        issued_at=claims.iat,
        expires_at=claims.exp,
        kid=kid,
        not_before=claims.nbf,
        x5t=x5t,
        jkt=jkt,
        txn=claims.txn,
        actors=chain,
    )
