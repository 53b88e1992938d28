# SPDX-License-Identifier: Apache-2.0
"""The token service: minting, exchange, introspection, revocation, and what verifiers are told.

The caller of every method has established who asks (the peer of mutual TLS, or an attested process); nothing in a
request can change that.  Whatever is refused is recorded before the refusal is answered.  Minting touches no disk:
its rate is that of the signature.  Methods may block; run them on a worker pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from everyhop.core.clock import Clock, Entropy
from everyhop.core.errors import InputError, TokenError
from everyhop.issuing.errors import GrantRefused, OAuthError
from everyhop.issuing.exchange import behalf_of, limited, transaction_of
from everyhop.issuing.granting import check_binding, granted_to, narrowed, service_named
from everyhop.issuing.introspection import INACTIVE, describe, may_inspect
from everyhop.issuing.keys import SigningKeys
from everyhop.issuing.model import IssuingSettings, Revocation, RevokedKind, TokenTruth
from everyhop.issuing.ports import (
    ApiKeyAuthenticator,
    IssuingStore,
    PolicyInForce,
    SigningEvent,
    TokenEvent,
    TokenJournal,
    UserTokens,
    WorkloadTokens,
)
from everyhop.issuing.requests import ADMIN, ExchangeRequest, Issued, MintRequest, TokenType
from everyhop.issuing.subjects import (
    Judges,
    check_actor,
    peeked_type,
    read_subject,
    verified_access,
    verified_txn,
)
from everyhop.issuing.view import View
from everyhop.jose.encoding import encode_base64url
from everyhop.tokens.access import AccessToken
from everyhop.tokens.codes import TokenCode
from everyhop.tokens.limits import MAX_LIFETIME_SECONDS
from everyhop.tokens.mint import TxnClaims, access_claims
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


class TokenService:
    """Issues tokens for one trust domain.  Safe to share between threads."""

    def __init__(self, ports: TokenPorts, settings: IssuingSettings) -> None:
        self.settings = settings
        self.keys = ports.keys
        self._ports = ports
        self._judges = Judges(users=ports.users, api_keys=ports.api_keys, workloads=ports.workloads)

    # --- issuing -------------------------------------------------------------------------------------------------

    def mint(self, request: MintRequest) -> Issued:
        """Return an access token for the caller itself.

        Raises GrantRefused for anything that the policy does not grant, Unavailable when there is no key to sign with.
        """
        now = self._ports.clock.now()
        try:
            check_binding(request.x5t, request.jkt)
            granted = granted_to(self._ports.policy(), request.caller, request.target, request.operation)
            scope = narrowed(granted, request.scope, request.target)
            issued_at = int(now.timestamp())
            expires_at = issued_at + _seconds(request.ttl, self.settings.token_ttl)
        except GrantRefused as refusal:
            self._record_refusal("mint", request, refusal, now)
            raise
        view = self.keys.views.recent(now)
        jti = self._new_id()
        token = view.signer().access(
            access_claims(
                issuer=self.settings.issuer,
                client_id=request.caller,
                audience=granted.audience,
                scope=tuple(scope),
                jti=jti,
                issued_at=issued_at,
                expires_at=expires_at,
                x5t=request.x5t,
                jkt=request.jkt,
            )
        )
        issued = Issued(
            token=token,
            token_type="Bearer" if request.jkt is None else "DPoP",  # RFC 6749 section 7.1
            issued_token_type=TokenType.ACCESS,
            audience=granted.audience,
            scope=scope,
            subject=request.caller,
            jti=jti,
            issued_at=issued_at,
            expires_at=expires_at,
        )
        self._record_issue("mint", request.caller, request.target, issued, now)
        return issued

    def exchange(self, request: ExchangeRequest) -> Issued:
        """Return a token for another one: narrower, and never for longer.

        Raises GrantRefused, or Unavailable when there is no key to sign with or a user's issuer cannot be asked.
        """
        now = self._ports.clock.now()
        view = self.keys.views.fresh(now)
        try:
            policy = self._ports.policy()
            service = service_named(policy, request.caller)
            check_actor(request, view, self.settings, self._judges, now)
            subject = read_subject(request, service, view, self.settings, self._judges, now)
            if request.requested_token_type == TokenType.ACCESS:
                issued = self._on_behalf(request, subject, view, now)
            elif request.requested_token_type == TokenType.TRANSACTION:
                issued = self._transaction(request, subject, service, view, now)
            else:
                raise GrantRefused(
                    OAuthError.INVALID_REQUEST,
                    f"no token of the type {request.requested_token_type[:120]!r} is issued",
                )
        except GrantRefused as refusal:
            self._record_refusal("exchange", request, refusal, now)
            raise
        self._record_issue("exchange", request.caller, request.target, issued, now)
        return issued

    def _on_behalf(self, request: ExchangeRequest, subject: Any, view: View, now: datetime) -> Issued:
        check_binding(request.x5t, request.jkt)
        if request.target is None:
            raise GrantRefused(OAuthError.INVALID_TARGET, "an access token is for a service: name it")
        policy = self._ports.policy()
        behalf = behalf_of(subject, request, policy)
        granted = granted_to(policy, request.caller, request.target, request.operation)
        scope = limited(
            narrowed(granted, request.scope, request.target), behalf, is_asked=request.scope is not None
        )
        issued_at = int(now.timestamp())
        expires_at = _earliest(issued_at, request.ttl, self.settings.token_ttl, behalf.expires_at)
        jti = self._new_id()
        token = view.signer().access(
            access_claims(
                issuer=self.settings.issuer,
                client_id=request.caller,
                audience=granted.audience,
                scope=tuple(scope),
                jti=jti,
                issued_at=issued_at,
                expires_at=expires_at,
                x5t=request.x5t,
                jkt=request.jkt,
                txn=behalf.txn,
                subject=behalf.subject,
                actors=behalf.actors,
            )
        )
        return Issued(
            token=token,
            token_type="Bearer" if request.jkt is None else "DPoP",  # RFC 6749 section 7.1
            issued_token_type=TokenType.ACCESS,
            audience=granted.audience,
            scope=scope,
            subject=behalf.subject,
            jti=jti,
            issued_at=issued_at,
            expires_at=expires_at,
            txn=behalf.txn,
        )

    def _transaction(
        self, request: ExchangeRequest, subject: Any, service: str, view: View, now: datetime
    ) -> Issued:
        wanted = transaction_of(subject, request, self._ports.policy(), service)
        issued_at = int(now.timestamp())
        expires_at = _earliest(issued_at, request.ttl, self.settings.transaction_ttl, wanted.expires_at)
        jti, txn = self._new_id(), wanted.txn or self._new_id()
        claims = TxnClaims(
            iss=self.settings.issuer,
            aud=self.settings.trust_domain,
            sub=wanted.subject,
            txn=txn,
            req_wl=request.caller,
            scope=" ".join(sorted(wanted.scope)),
            jti=jti,
            iat=issued_at,
            exp=expires_at,
            tctx=wanted.tctx,
            rctx=wanted.rctx,
        )
        try:
            token = view.signer().transaction(claims)
        except InputError as error:
            raise GrantRefused(
                OAuthError.INVALID_REQUEST, f"the transaction token would be refused: {error.message}"
            ) from error
        return Issued(
            token=token,
            token_type="N_A",  # noqa: S106  # RFC 8693 section 2.2.1
            issued_token_type=TokenType.TRANSACTION,
            audience=self.settings.trust_domain,
            scope=wanted.scope,
            subject=wanted.subject,
            jti=jti,
            issued_at=issued_at,
            expires_at=expires_at,
            txn=txn,
        )

    # --- asking and taking back ----------------------------------------------------------------------------------

    def introspect(self, token: str, *, asker: str) -> dict[str, Any]:
        """Return what a token says to those whom it concerns (RFC 7662), ``{"active": false}`` to everybody else.

        ``asker`` is a SPIFFE ID or ``admin``.  Believed is what a verifier would believe now, revocations included.
        """
        now = self._ports.clock.now()
        view = self.keys.views.fresh(now)
        found = self._verified(token, view, now)
        if found is None or not may_inspect(found, asker, self._ports.policy()):
            return dict(INACTIVE)
        return describe(found)

    def revoke(self, token: str, *, asker: str) -> bool:
        """Take a token back (RFC 7009); a transaction token takes its whole transaction with it.

        ``asker`` is a SPIFFE ID, which must be the client that the token was issued to, or ``admin``.  Returns False
        for a token that is not believed anyway.  Raises GrantRefused for somebody else's token, or for an asker that
        has revoked too many.
        """
        now = self._ports.clock.now()
        found = self._verified(token, self.keys.views.fresh(now), now)
        if found is None:
            return False
        owner = found.client_id if isinstance(found, AccessToken) else found.requester
        if asker not in {ADMIN, owner}:
            refusal = GrantRefused(OAuthError.UNAUTHORIZED_CLIENT, "the token was issued to another client")
            self._refused("revoke", asker, None, refusal, now, {"jti": found.jti})
            raise refusal
        if isinstance(found, TxnToken):
            self.revoke_transaction(found.txn, by=asker)
        else:
            end = datetime.fromtimestamp(found.expires_at, now.tzinfo) + self.settings.skew
            self._store_revocation(RevokedKind.JTI, found.jti, end, asker, now)
        return True

    def revoke_transaction(self, txn: str, *, by: str = ADMIN) -> None:
        """Take back a transaction: its tokens, whatever was narrowed from them, and access tokens bound to it."""
        now = self._ports.clock.now()
        end = now + self.settings.longest_ttl + self.settings.skew
        self._store_revocation(RevokedKind.TXN, txn, end, by, now)

    def revoke_subject(self, subject: str, *, by: str = ADMIN) -> None:
        """Take back everything that was issued on behalf of a user, an API key or a workload up to now."""
        now = self._ports.clock.now()
        end = now + timedelta(seconds=MAX_LIFETIME_SECONDS) + self.settings.skew
        self._store_revocation(RevokedKind.SUBJECT, subject, end, by, now)

    def truth(self) -> TokenTruth:
        """Return what verifiers need to know now: rendered from what is stored at this moment."""
        now = self._ports.clock.now()
        view = self.keys.views.fresh(now)
        return TokenTruth(
            issuer=self.settings.issuer,
            trust_domain=self.settings.trust_domain,
            sequence=view.state.sequence,
            jwks=view.jwks,
            revocations=view.revocations.since(now.timestamp()),
        )

    def _verified(self, token: str, view: View, now: datetime) -> AccessToken | TxnToken | None:
        try:
            if peeked_type(token) == TRANSACTION_TYPE:
                return verified_txn(token, view, self.settings, now)
            return verified_access(token, view, self.settings, now)
        except (TokenError, InputError):
            return None

    def _store_revocation(self, kind: RevokedKind, value: str, end: datetime, by: str, now: datetime) -> None:
        with self._ports.store.transaction() as tx:
            is_over = tx.count_revocations() >= self.settings.max_revocations or (
                by != ADMIN and tx.count_revocations(by) >= self.settings.max_revocations_each
            )
            if not is_over:
                tx.revoke(Revocation(kind=kind, value=value, revoked_at=now, expires_at=end, by=by))
                detail: dict[str, str | int | float | bool | None] = {kind.value: value}
                tx.record(SigningEvent(action="revoke", time=now, caller=by, detail=detail))
                tx.advance()
        self.keys.views.forget()
        if is_over:
            refusal = GrantRefused(
                OAuthError.TEMPORARILY_UNAVAILABLE, "too many tokens are revoked; wait until they end"
            )
            self._refused("revoke", by, None, refusal, now, {kind.value: value})
            raise refusal

    # --- records -------------------------------------------------------------------------------------------------

    def _new_id(self) -> str:
        return encode_base64url(self._ports.entropy.token_bytes(_ID_BYTES))

    def _record_issue(
        self, action: str, caller: str, target: str | None, issued: Issued, now: datetime
    ) -> None:
        detail: dict[str, str | int | float | bool | None] = {
            "jti": issued.jti,
            "audience": issued.audience,
            "scope": " ".join(sorted(issued.scope)),
            "expires_at": issued.expires_at,
        }
        if issued.txn is not None:
            detail["txn"] = issued.txn
        if issued.subject != caller:
            detail["subject"] = issued.subject
        self._ports.journal.issued(
            TokenEvent(action=action, time=now, caller=caller, target=target, detail=detail)
        )

    def _record_refusal(
        self, action: str, request: MintRequest | ExchangeRequest, refusal: GrantRefused, now: datetime
    ) -> None:
        detail: dict[str, str | int | float | bool | None] = {}
        if request.operation is not None:
            detail["operation"] = request.operation
        if request.scope is not None:
            detail["scope"] = " ".join(sorted(request.scope)[:64])
        if isinstance(request, ExchangeRequest):
            detail["subject_token_type"] = request.subject_token_type
            detail["requested_token_type"] = request.requested_token_type
            if request.source is not None:
                detail["source"] = request.source
        self._refused(action, request.caller, request.target, refusal, now, detail)

    def _refused(
        self,
        action: str,
        caller: str,
        target: str | None,
        refusal: GrantRefused,
        now: datetime,
        detail: dict[str, str | int | float | bool | None],
    ) -> None:
        if refusal.token_code is not None:
            detail["code"] = refusal.token_code
        notes = getattr(refusal, "__notes__", [])
        event = TokenEvent(
            action=action,
            time=now,
            caller=caller,
            target=target,
            refused=refusal.error,
            reason="; ".join([refusal.message, *notes]),
            detail=detail,
        )
        # A stranger who is shut out can ask as often as he likes: that must not cost a commit each time.
        is_flood = refusal.error is OAuthError.TEMPORARILY_UNAVAILABLE
        (self._ports.journal.issued if is_flood else self._ports.journal.refused)(event)


def _seconds(asked: timedelta | None, most: timedelta) -> int:
    if asked is not None and asked < _SHORTEST:
        raise GrantRefused(OAuthError.INVALID_REQUEST, "a token lives for at least one second")
    return int((most if asked is None else min(asked, most)).total_seconds())


def _earliest(issued_at: int, asked: timedelta | None, most: timedelta, end: int) -> int:
    """Return the end of a token: its own life, and never after ``end``."""
    expires_at = min(issued_at + _seconds(asked, most), end)
    if expires_at <= issued_at:
        raise GrantRefused(
            OAuthError.INVALID_REQUEST, "the subject token is over", token_code=TokenCode.TOKEN_EXPIRED
        )
    return expires_at
