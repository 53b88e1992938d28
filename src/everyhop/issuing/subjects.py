# SPDX-License-Identifier: Apache-2.0
"""On whose behalf: a presented token turned into who it speaks for, or refused.

What a token says about its own kind (``typ``, ``iss``) only chooses who judges it; nothing is believed before that.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from everyhop.core.errors import AccessDenied, InputError, TokenError, TrustError
from everyhop.issuing.errors import GrantRefused, OAuthError
from everyhop.issuing.model import IssuingSettings, UserIdentity
from everyhop.issuing.ports import ApiKeyAuthenticator, ApiKeyIdentity, UserTokens, WorkloadTokens
from everyhop.issuing.requests import ExchangeRequest, TokenType
from everyhop.issuing.view import View
from everyhop.jose.jws import parse_compact
from everyhop.jose.strict_json import parse_json_object
from everyhop.tokens.access import AccessToken, verify_access_token
from everyhop.tokens.codes import TokenCode
from everyhop.tokens.transaction import TxnToken, verify_txn_token

Subject = AccessToken | TxnToken | UserIdentity | ApiKeyIdentity

_OURS: Final = ("apikey:", "spiffe://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judges:
    """Who decides about tokens that are not ours."""

    users: UserTokens | None = None
    api_keys: ApiKeyAuthenticator | None = None
    workloads: WorkloadTokens | None = None


def read_subject(
    request: ExchangeRequest,
    service: str,
    view: View,
    settings: IssuingSettings,
    judges: Judges,
    now: datetime,
) -> Subject:
    """Return who the subject token speaks for; ``service`` is that of the peer.

    Raises GrantRefused for a token that is expired, revoked, foreign, or was not given to the peer.
    """
    kind, token = request.subject_token_type, request.subject_token
    try:
        if kind == TokenType.API_KEY and judges.api_keys is not None:
            return judges.api_keys.authenticate(token, request.source)
        if kind == TokenType.TRANSACTION:
            return verified_txn(token, view, settings, now)
        if kind in {TokenType.ACCESS, TokenType.JWT} and peeked_issuer(token) == settings.issuer:
            return _received(verified_access(token, view, settings, now), service)
        if kind in {TokenType.ACCESS, TokenType.JWT, TokenType.ID} and judges.users is not None:
            return _user(judges.users.verify(token, now=now))
    except (TrustError, InputError) as error:
        raise not_believed(error) from error
    except GrantRefused:
        raise
    except AccessDenied as error:
        raise GrantRefused(
            OAuthError.TEMPORARILY_UNAVAILABLE,
            error.message,
            hint=error.hint,
            retry_after=getattr(error, "retry_after", None),
        ) from error
    raise GrantRefused(OAuthError.INVALID_REQUEST, f"no subject token of the type {kind[:120]!r} is taken")


def name_of(subject: Subject) -> str:
    """Return who a subject is, as the subject of a token says it."""
    if isinstance(subject, AccessToken | TxnToken | UserIdentity):
        return subject.subject
    return f"apikey:{subject.lookup}"


def check_actor(
    request: ExchangeRequest, view: View, settings: IssuingSettings, judges: Judges, now: datetime
) -> None:
    """Demand that an actor token, where there is one, is of the peer: the actor is always who asks.

    Raises GrantRefused.
    """
    if request.actor_token is None:
        if request.actor_token_type is not None:
            raise GrantRefused(OAuthError.INVALID_REQUEST, "there is a type of an actor token, and no token")
        return
    try:
        if request.actor_token_type == TokenType.ACCESS:
            actor = verified_access(request.actor_token, view, settings, now).client_id
        elif request.actor_token_type == TokenType.JWT and judges.workloads is not None:
            actor = judges.workloads.subject(request.actor_token, now=now)
        else:
            raise GrantRefused(OAuthError.INVALID_REQUEST, "no actor token of this type is taken")
    except (TrustError, InputError) as error:
        raise not_believed(error, "actor") from error
    if actor != request.caller:
        raise GrantRefused(
            OAuthError.INVALID_REQUEST,
            "the actor token is of another caller than the peer",
            token_code=TokenCode.BINDING_MISMATCH,
        )


def verified_access(token: str, view: View, settings: IssuingSettings, now: datetime) -> AccessToken:
    """Return an access token of ours that is alive and not revoked.  Raises TokenError."""
    found = verify_access_token(token, view.keys, issuer=settings.issuer, now=now)
    if view.revocations.is_revoked(found):
        raise TokenError(TokenCode.TOKEN_REVOKED, "the token was revoked")
    return found


def verified_txn(token: str, view: View, settings: IssuingSettings, now: datetime) -> TxnToken:
    """Return a transaction token of ours that is alive and not revoked.  Raises TokenError."""
    found = verify_txn_token(
        token, view.keys, issuer=settings.issuer, trust_domain=settings.trust_domain, now=now
    )
    if view.revocations.is_revoked(found):
        raise TokenError(TokenCode.TOKEN_REVOKED, "the transaction was revoked")
    return found


def peeked_issuer(token: str) -> object:
    """Return the *unverified* issuer, to choose who judges and for nothing else.  Raises InputError."""
    return parse_json_object(parse_compact(token).payload).get("iss")


def peeked_type(token: str) -> object:
    """Return the *unverified* ``typ``, for the same.  Raises InputError."""
    return parse_compact(token).header.get("typ")


def not_believed(error: TrustError | InputError, which: str = "subject") -> GrantRefused:
    """Return the refusal for a presented token (RFC 8693 section 2.2.2); the reason is for the record."""
    code = error.token_code if isinstance(error, TokenError) else None
    if code is None and isinstance(error, TrustError):
        code = TokenCode.TOKEN_INVALID  # an API key, or a user's token, that nobody vouches for
    refusal = GrantRefused(
        OAuthError.INVALID_REQUEST, f"the {which} token is not accepted: {error.message}", token_code=code
    )
    reason = getattr(error, "reason", None)
    if isinstance(reason, str):
        refusal.add_note(reason)
    lookup = getattr(error, "lookup", None)
    if isinstance(lookup, str):
        refusal.api_key = lookup
    return refusal


def _received(token: AccessToken, service: str) -> AccessToken:
    """Demand that the peer is the service that the token was presented to: a token is not passed on (RFC 9700 2.3)."""
    if token.audience.partition("#")[0] != service:
        raise TokenError(
            TokenCode.AUDIENCE_MISMATCH, "the token is for another service than the one that asks"
        )
    return token


def _user(identity: UserIdentity) -> UserIdentity:
    if identity.subject.startswith(_OURS):
        raise TokenError(TokenCode.TOKEN_INVALID, "the user's name reads as one of ours")
    return identity
