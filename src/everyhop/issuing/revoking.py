# SPDX-License-Identifier: Apache-2.0
"""Taking back: a token, a transaction, everything of a subject; remembered until nothing of it can be alive."""

from __future__ import annotations

from datetime import datetime, timedelta

from everyhop.core.clock import Clock
from everyhop.issuing.errors import GrantRefused, OAuthError
from everyhop.issuing.model import IssuingSettings, Revocation, RevokedKind
from everyhop.issuing.ports import IssuingStore, SigningEvent
from everyhop.issuing.recording import Recorder
from everyhop.issuing.requests import ADMIN
from everyhop.issuing.view import Views
from everyhop.tokens.access import AccessToken
from everyhop.tokens.limits import MAX_LIFETIME_SECONDS
from everyhop.tokens.transaction import TxnToken


class Revoking:
    """Stores revocations.  Each is in the next truth, and a client can only fill its own share of the memory."""

    def __init__(
        self,
        *,
        store: IssuingStore,
        views: Views,
        clock: Clock,
        recorder: Recorder,
        settings: IssuingSettings,
    ) -> None:
        self._store = store
        self._views = views
        self._clock = clock
        self._recorder = recorder
        self._settings = settings

    def token(self, found: AccessToken | TxnToken, asker: str) -> None:
        """Take back a verified token; a transaction token takes its whole transaction with it.

        Raises GrantRefused unless ``asker`` is the client that it was issued to, or ``admin``.
        """
        now = self._clock.now()
        owner = found.client_id if isinstance(found, AccessToken) else found.requester
        if asker not in {ADMIN, owner}:
            refusal = GrantRefused(OAuthError.UNAUTHORIZED_CLIENT, "the token was issued to another client")
            self._recorder.refusal("revoke", asker, refusal, now, detail={"jti": found.jti})
            raise refusal
        if isinstance(found, TxnToken):
            self.transaction(found.txn, asker)
        else:
            end = datetime.fromtimestamp(found.expires_at, now.tzinfo) + self._settings.skew
            self._put(RevokedKind.JTI, found.jti, end, asker, now)

    def transaction(self, txn: str, by: str) -> None:
        """Take back a transaction: its tokens, whatever was narrowed from them, access tokens bound to it."""
        now = self._clock.now()
        self._put(RevokedKind.TXN, txn, now + self._settings.longest_ttl + self._settings.skew, by, now)

    def subject(self, subject: str, by: str) -> None:
        """Take back everything that was issued on behalf of a subject up to now."""
        now = self._clock.now()
        end = now + timedelta(seconds=MAX_LIFETIME_SECONDS) + self._settings.skew
        self._put(RevokedKind.SUBJECT, subject, end, by, now)

    def _put(self, kind: RevokedKind, value: str, end: datetime, by: str, now: datetime) -> None:
        with self._store.transaction() as tx:
            is_full = by != ADMIN and (
                tx.count_revocations() >= self._settings.max_revocations
                or tx.count_revocations(by) >= self._settings.max_revocations_each
            )
            if not is_full:
                tx.revoke(Revocation(kind=kind, value=value, revoked_at=now, expires_at=end, by=by))
                sequence = tx.advance()
                detail: dict[str, str | int | float | bool | None] = {kind.value: value, "sequence": sequence}
                tx.record(SigningEvent(action="revoke", time=now, caller=by, detail=detail))
        self._views.forget()
        if is_full:
            refusal = GrantRefused(
                OAuthError.TEMPORARILY_UNAVAILABLE, "too many tokens are revoked; wait until they end"
            )
            self._recorder.refusal("revoke", by, refusal, now, detail={kind.value: value})
            raise refusal
