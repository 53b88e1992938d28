# SPDX-License-Identifier: Apache-2.0
"""Transaction tokens (draft-ietf-oauth-transaction-tokens): for whom a chain of calls is made, and why."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import msgspec

from everyhop.core.errors import TokenError
from everyhop.tokens.claims import (
    ClaimsReader,
    Id,
    Name,
    NumericDate,
    check_expiry,
    check_issuer,
    check_printable,
    check_start,
    is_workload,
    malformed,
    scopes,
    typed,
)
from everyhop.tokens.codes import TokenCode
from everyhop.tokens.compact import guarded, open_compact
from everyhop.tokens.keyset import KeySource, PinnedKey
from everyhop.tokens.limits import MAX_ATTRIBUTE, MAX_ATTRIBUTES, MAX_ID, MAX_ROLES

TRANSACTION_TYPE: Final = "txntoken+jwt"
_CONTEXT_NULLABLE: Final = ("acr", "amr", "auth_time", "email", "attributes")

Role = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]
AttributeText = Annotated[str, msgspec.Meta(max_length=MAX_ATTRIBUTE)]
AttributeClaim = (
    bool | int | float | AttributeText | Annotated[list[AttributeText], msgspec.Meta(max_length=MAX_ROLES)]
)
"""What a token says of one attribute of a user; a moment is a number of seconds."""


class TxnToken(msgspec.Struct, frozen=True, kw_only=True):
    """A verified transaction token.  ``context`` and ``request_context`` are the claims ``tctx`` and ``rctx``."""

    issuer: str
    trust_domain: str
    subject: str
    txn: str
    scope: frozenset[str]
    requester: str
    roles: tuple[str, ...]
    kind: Literal["user", "client"]
    idp: str
    jti: str
    issued_at: int
    expires_at: int
    kid: str
    context: Mapping[str, Any]
    request_context: Mapping[str, Any]

    @property
    def is_person(self) -> bool:
        """Tell whether somebody signed in; otherwise it is a client with an API key, which is nobody."""
        return self.kind == "user"


class _Context(msgspec.Struct):
    idp: Name
    kind: Literal["user", "client"]
    roles: Annotated[tuple[Role, ...], msgspec.Meta(max_length=MAX_ROLES)] = ()
    acr: Id | None = None
    amr: Annotated[tuple[Id, ...], msgspec.Meta(max_length=MAX_ROLES)] | None = None
    auth_time: NumericDate | None = None
    email: Name | None = None
    attributes: Annotated[dict[Id, AttributeClaim], msgspec.Meta(max_length=MAX_ATTRIBUTES)] | None = None


class TxnClaims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The claims of a transaction token, by their names and in their order on the wire.

    ``tctx`` holds idp, kind and roles, and acr, amr, auth_time, email, attributes where they are known.
    """

    iss: Name
    aud: Name
    sub: Name
    txn: Id
    req_wl: Name
    scope: str = ""
    jti: Id
    iat: NumericDate
    exp: NumericDate
    tctx: dict[str, Any]
    rctx: dict[str, Any] = {}


_READER: Final = ClaimsReader(TxnClaims, ("scope", "rctx"))


def verify_txn_token(
    token: str, keys: KeySource, *, issuer: str, trust_domain: str, now: datetime
) -> TxnToken:
    """Return what the token says; ``aud`` is the trust domain, so nothing else is left to compare but revocation.

    ``token`` is untrusted text.  Raises TokenError, and nothing else.
    """
    return guarded(lambda: verify_txn_token_at(token, keys, issuer, trust_domain, now.timestamp())[0])


def verify_txn_token_at(
    token: str, keys: KeySource, issuer: str, trust_domain: str, now: float
) -> tuple[TxnToken, PinnedKey]:
    """Do the same at ``now`` in seconds, and return the key too; its caller turns foreign errors into refusals."""
    found, key = open_compact(token, keys, typ=TRANSACTION_TYPE, read=read_txn_claims)
    check_issuer(found.issuer, issuer)
    check_expiry(found.expires_at, now)
    check_start(found.issued_at, None, found.expires_at, now)
    if found.trust_domain != trust_domain:
        raise TokenError(TokenCode.AUDIENCE_MISMATCH, "the transaction token is for another trust domain")
    return found, key


def read_txn_claims(payload: bytes, kid: str) -> TxnToken:
    """Type the claims, unverified, of a token that names the key ``kid``; raises TOKEN_MALFORMED."""
    claims = _READER.read(payload)
    context = typed(claims.tctx, _Context, _CONTEXT_NULLABLE)
    check_printable(claims.iss, claims.aud, claims.sub, claims.txn, claims.jti, context.idp, *context.roles)
    if not is_workload(claims.req_wl):
        raise malformed("'req_wl' is not the SPIFFE ID of a workload")
    return TxnToken(
        issuer=claims.iss,
        trust_domain=claims.aud,
        subject=claims.sub,
        txn=claims.txn,
        scope=scopes(claims.scope),
        requester=claims.req_wl,
        roles=context.roles,
        kind=context.kind,
        idp=context.idp,
        jti=claims.jti,
        issued_at=claims.iat,
        expires_at=claims.exp,
        kid=kid,
        context=MappingProxyType(claims.tctx),
        request_context=MappingProxyType(claims.rctx),
    )
