# SPDX-License-Identifier: Apache-2.0
"""From a service context to a verifier of tokens, and from a verified transaction token to a user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from everyhop.sdk.model import User
from everyhop.tokens.keyset import StaticKeys, parse_jwks
from everyhop.tokens.revocations import Revocations
from everyhop.tokens.verifier import TokenVerifier

if TYPE_CHECKING:
    from everyhop.core.clock import Clock
    from everyhop.sdk.context import ServiceContext
    from everyhop.tokens.transaction import TxnToken


def verifier_for(
    context: ServiceContext, clock: Clock, before: tuple[ServiceContext, TokenVerifier] | None = None
) -> TokenVerifier:
    """Return a verifier with the keys and revocations of ``context``.

    ``before`` is the context and verifier in use: while nothing that tokens are checked with has changed, the
    verifier stays, and with it what it has verified already.  Raises InputError for keys that are refused.
    """
    if before is not None and _tokens_of(before[0]) == _tokens_of(context):
        return before[1]
    return TokenVerifier(
        keys=StaticKeys(parse_jwks(context.jwks)),
        issuer=context.issuer,
        trust_domain=context.trust_domain.name,
        clock=clock,
        revocations=Revocations(
            kids=context.revoked.kids, jtis=context.revoked.jtis, txns=context.revoked.txns
        ),
    )


def user_of(token: TxnToken) -> User:
    """Return the user of a verified transaction token."""
    facts = token.context
    return User(
        subject=token.subject,
        txn=token.txn,
        kind=_text(facts.get("kind")) or "user",
        roles=frozenset(token.roles),
        scope=frozenset(token.scope),
        issuer=_text(facts.get("idp")),
        acr=_text(facts.get("acr")),
        amr=_texts(facts.get("amr")),
        auth_time=_integer(facts.get("auth_time")),
        email=_text(facts.get("email")),
        requester=token.requester,
        expires_at=token.expires_at,
    )


def _tokens_of(context: ServiceContext) -> tuple[Any, ...]:
    revoked = context.revoked
    return context.jwks, context.issuer, context.trust_domain, revoked.kids, revoked.jtis, revoked.txns


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list | tuple) else ()


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
