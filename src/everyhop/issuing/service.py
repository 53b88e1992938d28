# SPDX-License-Identifier: Apache-2.0
"""The token service: minting, exchange, introspection, revocation, and what verifiers are told.

The caller of every method has established who asks (the peer of mutual TLS, or an attested process); nothing in a
request can change that.  Whatever is issued or refused is recorded before it is answered.  The methods
block; run them on a worker pool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from everyhop.core.clock import Clock, Entropy
from everyhop.core.errors import InputError, TokenError
from everyhop.issuing.errors import ActorBlocked, GrantRefused, OAuthError
from everyhop.issuing.exchange import Behalf, Transaction, behalf_of, limited, transaction_of
from everyhop.issuing.granting import check_binding, granted_to, narrowed, service_named
from everyhop.issuing.introspection import INACTIVE, describe, may_inspect
from everyhop.issuing.keys import SigningKeys
from everyhop.issuing.model import IssuingSettings, TokenTruth
from everyhop.issuing.policy_view import PolicyView
from everyhop.issuing.ports import (
    ApiKeyAuthenticator,
    Blocks,
    IssuingStore,
    NobodyBlocked,
    PolicyInForce,
    TokenJournal,
    UserTokens,
    WorkloadTokens,
)
from everyhop.issuing.recording import Recorder
from everyhop.issuing.requests import ADMIN, ExchangeRequest, Issued, MintRequest, TokenType
from everyhop.issuing.revoking import Revoking
from everyhop.issuing.subjects import (
    Judges,
    check_actor,
    name_of,
    peeked_type,
    read_subject,
    verified_access,
    verified_txn,
)
from everyhop.issuing.view import View
from everyhop.jose.encoding import encode_base64url
from everyhop.tokens import TxnClaims, access_claims
from everyhop.tokens.access import AccessToken
from everyhop.tokens.codes import TokenCode
from everyhop.tokens.expectation import Expectation, check
from everyhop.tokens.transaction import TRANSACTION_TYPE, TxnToken

_ID_BYTES: Final = 16
_SHORTEST: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPorts:
    """What the token service works with; without users, API keys or workloads such tokens are not exchanged."""

    keys: SigningKeys
    store: IssuingStore
    policy: PolicyInForce
    journal: TokenJournal
    clock: Clock
    entropy: Entropy
    users: UserTokens | None = None
    api_keys: ApiKeyAuthenticator | None = None
    workloads: WorkloadTokens | None = None
    blocks: Blocks = field(default_factory=NobodyBlocked)


class TokenService:
    """Issues tokens for one trust domain.  Safe to share between threads."""

    def __init__(self, ports: TokenPorts, settings: IssuingSettings) -> None:
        self.settings = settings
        self.keys = ports.keys
        self._views = ports.keys.views
        self._policy = ports.policy
        self._clock = ports.clock
        self._entropy = ports.entropy
        self._judges = Judges(users=ports.users, api_keys=ports.api_keys, workloads=ports.workloads)
        self._blocks = ports.blocks
        self._recorder = Recorder(ports.journal)
        self._revoking = Revoking(
            store=ports.store,
            views=self._views,
            clock=ports.clock,
            recorder=self._recorder,
            settings=settings,
        )

    # --- issuing -------------------------------------------------------------------------------------------------

    def mint(self, request: MintRequest) -> Issued:
        """Return an access token for the caller itself.

        Raises GrantRefused for anything that the policy does not grant, ActorBlocked for one who is blocked, Unavailable when there is no key to sign with.
        """
        now = self._clock.now()
        try:
            self._refuse_blocked(now, identity=request.caller)
            issued = self._access(request, request.target, None, self._policy(), self._views.recent(now), now)
        except GrantRefused as refusal:
            self._recorder.refused("mint", request, refusal, now)
            raise
        self._recorder.issued("mint", request, issued, now)
        return issued

    def exchange(self, request: ExchangeRequest) -> Issued:
        """Return a token for another one: narrower, and never for longer.

        Raises GrantRefused, or Unavailable when there is no key to sign with or a user's issuer cannot be asked.
        """
        now = self._clock.now()
        view = self._views.fresh(now)
        policy = self._policy()
        try:
            self._refuse_blocked(now, identity=request.caller, address=request.source)
            issued = self._exchanged(request, policy, view, now)
        except GrantRefused as refusal:
            self._recorder.refused("exchange", request, refusal, now)
            raise
        self._recorder.issued("exchange", request, issued, now)
        return issued

    def _exchanged(self, request: ExchangeRequest, policy: PolicyView, view: View, now: datetime) -> Issued:
        service = service_named(policy, request.caller)
        if request.requested_token_type not in {TokenType.ACCESS, TokenType.TRANSACTION}:
            raise GrantRefused(
                OAuthError.INVALID_REQUEST,
                f"no token of the type {request.requested_token_type[:120]!r} is issued",
            )
        check_actor(request, view, self.settings, self._judges, now)
        subject = read_subject(request, service, view, self.settings, self._judges, now)
        self._refuse_blocked(now, subject=name_of(subject))
        if request.requested_token_type == TokenType.TRANSACTION:
            return self._transaction(request, transaction_of(subject, request, policy, service), view, now)
        if request.target is None:
            raise GrantRefused(OAuthError.INVALID_TARGET, "an access token is for a service: name it")
        behalf = behalf_of(subject, request, policy)
        return self._access(request, request.target, behalf, policy, view, now)

    def _refuse_blocked(
        self,
        now: datetime,
        *,
        identity: str | None = None,
        subject: str | None = None,
        address: str | None = None,
    ) -> None:
        found = self._blocks.actor(now, identity=identity, subject=subject, address=address)
        if found is not None:
            raise ActorBlocked(found.subject, found.retry_after)

    def _access(
        self,
        request: MintRequest | ExchangeRequest,
        target: str,
        behalf: Behalf | None,
        policy: PolicyView,
        view: View,
        now: datetime,
    ) -> Issued:
        check_binding(request.x5t, request.jkt)
        granted = granted_to(policy, request.caller, target, request.operation)
        scope = narrowed(granted, request.scope, target)
        issued_at = int(now.timestamp())
        expires_at = issued_at + _seconds(request.ttl, self.settings.token_ttl)
        if behalf is not None:
            scope = limited(scope, behalf, is_asked=request.scope is not None)
            expires_at = _earliest(issued_at, expires_at, behalf.expires_at)
        jti = self._new_id()
        claims = access_claims(
            issuer=self.settings.issuer,
            client_id=request.caller,
            audience=granted.audience,
            scope=tuple(scope),
            jti=jti,
            issued_at=issued_at,
            expires_at=expires_at,
            x5t=request.x5t,
            jkt=request.jkt,
            txn=None if behalf is None else behalf.txn,
            subject=None if behalf is None else behalf.subject,
            actors=() if behalf is None else behalf.actors,
        )
        return Issued(
            token=_signed(lambda: view.signer().access(claims)),
            token_type="Bearer"
            if request.jkt is None
            else "DPoP",  # RFC 6749 section 7.1, RFC 9449 section 5
            issued_token_type=TokenType.ACCESS,
            audience=claims.aud,
            scope=scope,
            subject=claims.sub,
            jti=jti,
            issued_at=issued_at,
            expires_at=expires_at,
            txn=claims.txn,
        )

    def _transaction(
        self, request: ExchangeRequest, wanted: Transaction, view: View, now: datetime
    ) -> Issued:
        issued_at = int(now.timestamp())
        own_end = issued_at + _seconds(request.ttl, self.settings.transaction_ttl)
        claims = TxnClaims(
            iss=self.settings.issuer,
            aud=self.settings.trust_domain,
            sub=wanted.subject,
            txn=wanted.txn or self._new_id(),
            req_wl=request.caller,
            scope=" ".join(sorted(wanted.scope)),
            jti=self._new_id(),
            iat=issued_at,
            exp=_earliest(issued_at, own_end, wanted.expires_at),
            tctx=wanted.tctx,
            rctx=wanted.rctx,
        )
        return Issued(
            token=_signed(lambda: view.signer().transaction(claims)),
            token_type="N_A",  # noqa: S106  # RFC 8693 section 2.2.1: it is no access token
            issued_token_type=TokenType.TRANSACTION,
            audience=claims.aud,
            scope=wanted.scope,
            subject=claims.sub,
            jti=claims.jti,
            issued_at=issued_at,
            expires_at=claims.exp,
            txn=claims.txn,
            roles=tuple(wanted.tctx.get("roles", ())),
        )

    # --- asking and taking back ----------------------------------------------------------------------------------

    def introspect(self, token: str, *, asker: str) -> dict[str, Any]:
        """Return what a token says to those whom it concerns (RFC 7662), ``{"active": false}`` to everybody else.

        ``asker`` is a SPIFFE ID or ``admin``.  Believed is what a verifier would believe now, revocations included.
        """
        found = self._verified(token)
        if found is None or not may_inspect(found, asker, self._policy()):
            return dict(INACTIVE)
        return describe(found)

    def accept(self, token: str, expected: Expectation) -> AccessToken:
        """Return an access token that was presented to this server itself, if it is good for the call.

        Raises TokenError for every other one, Unavailable when the keys cannot be read.
        """
        now = self._clock.now()
        view = self._views.recent(now)
        found = verified_access(token, view, self.settings, now)
        check(found, expected, view.revocations)
        return found

    def revoke(self, token: str, *, asker: str) -> bool:
        """Take a token back (RFC 7009); a transaction token takes its whole transaction with it.

        ``asker`` is a SPIFFE ID, which must be the client that the token was issued to, or ``admin``.  Returns False
        for a token that is not believed anyway.  Raises GrantRefused for somebody else's token, or for an asker that
        has revoked too many.
        """
        found = self._verified(token)
        if found is None:
            return False
        self._revoking.token(found, asker)
        return True

    def revoke_transaction(self, txn: str, *, by: str = ADMIN) -> None:
        """Take back a transaction: its tokens, whatever was narrowed from them, access tokens bound to it."""
        self._revoking.transaction(txn, by)

    def revoke_subject(self, subject: str, *, by: str = ADMIN) -> None:
        """Take back everything that was issued on behalf of a user, an API key or a workload up to now."""
        self._revoking.subject(subject, by)

    def truth(self) -> TokenTruth:
        """Return what verifiers need to know now: rendered from what is stored at this moment."""
        now = self._clock.now()
        view = self._views.fresh(now)
        return TokenTruth(
            issuer=self.settings.issuer,
            trust_domain=self.settings.trust_domain,
            sequence=view.state.sequence,
            jwks=view.jwks,
            revocations=view.revocations.since(now.timestamp()),
        )

    def sequence(self) -> int:
        """Return the number of the present truth, without rendering it."""
        return self._views.fresh(self._clock.now()).state.sequence

    def _verified(self, token: str) -> AccessToken | TxnToken | None:
        now = self._clock.now()
        view = self._views.fresh(now)
        try:
            if peeked_type(token) == TRANSACTION_TYPE:
                return verified_txn(token, view, self.settings, now)
            return verified_access(token, view, self.settings, now)
        except (TokenError, InputError):
            return None

    def _new_id(self) -> str:
        return encode_base64url(self._entropy.token_bytes(_ID_BYTES))


def _signed(sign: Callable[[], str]) -> str:
    """Return the token; claims that no verifier would take (too long, not printable) are a refusal."""
    try:
        return sign()
    except InputError as error:
        raise GrantRefused(
            OAuthError.INVALID_REQUEST, f"the token would be refused: {error.message}"
        ) from error


def _seconds(asked: timedelta | None, most: timedelta) -> int:
    if asked is not None and asked < _SHORTEST:
        raise GrantRefused(OAuthError.INVALID_REQUEST, "a token lives for at least one second")
    return int((most if asked is None else min(asked, most)).total_seconds())


def _earliest(issued_at: int, own_end: int, end: int) -> int:
    """Return the end of a token that must not outlive another one, which ends at ``end``."""
    expires_at = min(own_end, end)
    if expires_at <= issued_at:
        raise GrantRefused(
            OAuthError.INVALID_REQUEST, "the subject token is over", token_code=TokenCode.TOKEN_EXPIRED
        )
    return expires_at
