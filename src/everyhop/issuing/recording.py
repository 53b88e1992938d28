# SPDX-License-Identifier: Apache-2.0
"""What the token service writes into the audit log, and when; never a token."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final

from everyhop.issuing.errors import GrantRefused, OAuthError
from everyhop.issuing.ports import TokenEvent, TokenJournal
from everyhop.issuing.requests import ExchangeRequest, Issued, MintRequest, TokenType

Detail = dict[str, str | int | float | bool | None]

_SCOPES_SHOWN: Final = 64
_FINGERPRINT: Final = 16


class Recorder:
    """Records issues and refusals."""

    def __init__(self, journal: TokenJournal) -> None:
        self._journal = journal

    def issued(
        self, action: str, request: MintRequest | ExchangeRequest, issued: Issued, now: datetime
    ) -> None:
        """Record an issue, before the token leaves; raises Unavailable when that fails."""
        detail: Detail = {
            "jti": issued.jti,
            "audience": issued.audience,
            "scope": " ".join(sorted(issued.scope)),
            "expires_at": issued.expires_at,
        }
        if issued.txn is not None:
            detail["txn"] = issued.txn
        if issued.subject != request.caller:
            detail["subject"] = issued.subject
        if issued.roles:
            detail["roles"] = " ".join(issued.roles[:_SCOPES_SHOWN])
        if isinstance(request, ExchangeRequest) and request.source is not None:
            detail |= {"source": request.source, **_presented(request)}
        self._journal.issued(
            TokenEvent(action=action, time=now, caller=request.caller, target=request.target, detail=detail)
        )

    def refused(
        self, action: str, request: MintRequest | ExchangeRequest, refusal: GrantRefused, now: datetime
    ) -> None:
        """Record that a request was refused, with what it asked for."""
        detail: Detail = {}
        if request.operation is not None:
            detail["operation"] = request.operation
        if request.scope is not None:
            detail["scope"] = " ".join(sorted(request.scope)[:_SCOPES_SHOWN])
        if isinstance(request, ExchangeRequest):
            detail["subject_token_type"] = request.subject_token_type
            detail["requested_token_type"] = request.requested_token_type
            if request.source is not None:
                detail |= {"source": request.source, **_presented(request)}
        if refusal.api_key is not None:
            detail["api_key"] = refusal.api_key
        self.refusal(action, request.caller, refusal, now, target=request.target, detail=detail)

    def refusal(
        self,
        action: str,
        caller: str,
        refusal: GrantRefused,
        now: datetime,
        *,
        target: str | None = None,
        detail: Detail,
    ) -> None:
        """Record a refusal; durable when it returns, except one of a flood."""
        if refusal.token_code is not None:
            detail["code"] = refusal.token_code
        event = TokenEvent(
            action=action,
            time=now,
            caller=caller,
            target=target,
            refused=refusal.error,
            reason="; ".join([refusal.message, *getattr(refusal, "__notes__", [])]),
            detail=detail,
        )
        # A stranger who is shut out can ask as often as he likes: that must not cost a commit each time.
        is_flood = refusal.error is OAuthError.TEMPORARILY_UNAVAILABLE
        (self._journal.noted if is_flood else self._journal.refused)(event)


def _presented(request: ExchangeRequest) -> Detail:
    """Return what tells one presented token from others, so that its use from two places shows; it opens nothing.

    API keys have a public part for that.
    """
    if request.subject_token_type == TokenType.API_KEY:
        return {}
    digest = hashlib.sha256(request.subject_token.encode("utf-8", "surrogatepass")).hexdigest()
    return {"presented": digest[:_FINGERPRINT]}
