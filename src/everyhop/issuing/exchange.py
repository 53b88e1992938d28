# SPDX-License-Identifier: Apache-2.0
"""Token exchange (RFC 8693): what comes out never says more than what went in.  Pure: values in, claims out.

- An access token on behalf of someone: the scope is of the policy for the service that asks, the end is not after that
  of the subject token, and each service adds itself to a chain of at most four actors.
- A transaction token from a user's token or an API key, at the edge only; or from a transaction token, narrower:
  ``txn`` and ``sub`` stay, scope, roles and end never grow.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final

from everyhop.issuing.errors import GrantRefused, OAuthError
from everyhop.issuing.granting import check_size, refuse_surplus
from everyhop.issuing.model import UserIdentity
from everyhop.issuing.policy_view import PolicyView
from everyhop.issuing.ports import ApiKeyIdentity
from everyhop.issuing.requests import ExchangeRequest
from everyhop.issuing.subjects import Subject
from everyhop.tokens.access import AccessToken
from everyhop.tokens.codes import TokenCode
from everyhop.tokens.limits import MAX_ACTORS
from everyhop.tokens.transaction import TxnToken

API_KEY_IDP: Final = "apikey"
MAX_CONTEXT: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Behalf:
    """On whose behalf an access token is, through which actors (the present one first), and until when (seconds)."""

    subject: str
    actors: tuple[str, ...]
    expires_at: int
    txn: str | None = None
    limit: frozenset[str] | None = None  # the operations that the transaction is for, None for any


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What a transaction token will say; ``txn`` of None begins one."""

    subject: str
    scope: frozenset[str]
    expires_at: int
    txn: str | None = None
    tctx: dict[str, Any] = field(default_factory=dict)
    rctx: dict[str, Any] = field(default_factory=dict)


def behalf_of(subject: Subject, request: ExchangeRequest, policy: PolicyView) -> Behalf:
    """Return on whose behalf the caller may have an access token.  Raises GrantRefused."""
    if isinstance(subject, TxnToken):
        _demand_user_service(policy, request.caller)
        operations = frozenset(name for name in subject.scope if policy.is_operation(name))
        return Behalf(
            subject=subject.subject,
            actors=(request.caller,),
            expires_at=subject.expires_at,
            txn=subject.txn,
            limit=operations or None,
        )
    if not isinstance(subject, AccessToken):
        raise GrantRefused(
            OAuthError.INVALID_REQUEST,
            "a user's token or an API key is exchanged for a transaction token first",
        )
    if subject.txn is not None:
        # Such a token says what may be done at this service; what the transaction is for, only its own token says.
        raise GrantRefused(
            OAuthError.INVALID_REQUEST,
            "the token belongs to a transaction",
            hint="exchange the transaction token that came with it",
        )
    actors = (request.caller, *subject.actors)
    if len(actors) > MAX_ACTORS:
        raise GrantRefused(OAuthError.INVALID_REQUEST, f"the chain of actors is longer than {MAX_ACTORS}")
    return Behalf(subject=subject.subject, actors=actors, expires_at=subject.expires_at)


def limited(scope: frozenset[str], behalf: Behalf, *, is_asked: bool) -> frozenset[str]:
    """Return the scope within what the transaction is for.

    Raises GrantRefused for more than that when it was asked for, and when nothing is left.
    """
    if behalf.limit is None:
        return scope
    if is_asked:
        refuse_surplus(scope - behalf.limit, "more than the transaction is for")
    left = scope & behalf.limit
    if not left:
        raise GrantRefused(OAuthError.INVALID_SCOPE, "the transaction is for nothing that is granted there")
    return left


def transaction_of(
    subject: Subject, request: ExchangeRequest, policy: PolicyView, service: str
) -> Transaction:
    """Return the transaction that the caller may begin or narrow.  Raises GrantRefused."""
    if isinstance(subject, TxnToken):
        return _narrower(subject, request, policy)
    if isinstance(subject, AccessToken):
        raise GrantRefused(
            OAuthError.INVALID_REQUEST, "a transaction begins with a user's token or an API key"
        )
    if not policy.admits_outside(service):
        raise GrantRefused(
            OAuthError.UNAUTHORIZED_CLIENT,
            f"{service} is not at the edge: no rule opens it to the outside",
        )
    if isinstance(subject, UserIdentity):
        return _for_user(subject, request)
    return _for_api_key(subject, request, policy, service)


def _for_user(user: UserIdentity, request: ExchangeRequest) -> Transaction:
    roles = _narrowed_roles(user.roles, request.roles)
    known = {
        "acr": user.acr,
        "amr": list(user.amr) or None,
        "auth_time": user.auth_time,
        "email": user.email,
        "attributes": dict(user.attributes) or None,
    }
    context: dict[str, Any] = {"idp": user.idp, "kind": "user", "roles": sorted(roles)}
    context |= {name: value for name, value in known.items() if value is not None}
    if request.scope is not None:
        check_size(request.scope)
    return Transaction(
        subject=user.subject,
        scope=request.scope or frozenset(),
        expires_at=user.expires_at,
        tctx=context,
        rctx=_request_context(request),
    )


def _for_api_key(
    key: ApiKeyIdentity, request: ExchangeRequest, policy: PolicyView, service: str
) -> Transaction:
    here = frozenset(f"{service}.{name}" for name in policy.granted("outside", service))
    if not key.scopes & here:
        raise GrantRefused(OAuthError.INVALID_SCOPE, f"the API key is not for {service}")
    if request.roles:
        raise GrantRefused(OAuthError.INVALID_SCOPE, "an API key has no roles")
    return Transaction(
        subject=f"apikey:{key.lookup}",
        scope=_narrowed_scope(key.scopes, request.scope),
        expires_at=int(key.expires_at.timestamp()),
        tctx={"idp": API_KEY_IDP, "kind": "client", "roles": []},
        rctx=_request_context(request),
    )


def _narrower(token: TxnToken, request: ExchangeRequest, policy: PolicyView) -> Transaction:
    _demand_user_service(policy, request.caller)
    roles = _narrowed_roles(frozenset(token.roles), request.roles)
    # A transaction without a stated purpose is for anything; stating one narrows it.
    is_open = not token.scope
    if is_open and request.scope is not None:
        check_size(request.scope)
    return Transaction(
        subject=token.subject,
        scope=(request.scope or frozenset()) if is_open else _narrowed_scope(token.scope, request.scope),
        expires_at=token.expires_at,
        txn=token.txn,
        tctx={**token.context, "roles": sorted(roles)},
        rctx=dict(token.request_context),
    )


def _narrowed_scope(held: AbstractSet[str], asked: frozenset[str] | None) -> frozenset[str]:
    if asked is None:
        return frozenset(held)
    check_size(asked)
    refuse_surplus(asked - held, "more than the subject token is for")
    return asked


def _narrowed_roles(held: frozenset[str], asked: frozenset[str] | None) -> frozenset[str]:
    if asked is None:
        return held
    surplus = asked - held
    if surplus:
        raise GrantRefused(OAuthError.INVALID_SCOPE, f"the user does not have the role {min(surplus)[:80]!r}")
    return asked


def _demand_user_service(policy: PolicyView, caller: str) -> None:
    """Refuse a service that no call may be made to for a user: it has the token from nowhere it should have."""
    service = policy.service_of(caller)
    if service is None or not policy.receives_users(service):
        raise GrantRefused(
            OAuthError.UNAUTHORIZED_CLIENT,
            "no rule lets a call to this service be made for a user",
            token_code=TokenCode.AUDIENCE_MISMATCH,
        )


def _request_context(request: ExchangeRequest) -> dict[str, Any]:
    if len(request.context) > MAX_CONTEXT:
        raise GrantRefused(OAuthError.INVALID_REQUEST, f"a request has at most {MAX_CONTEXT} facts")
    context: dict[str, Any] = dict(request.context)
    if request.source is not None:
        context["ip"] = request.source
    return context
