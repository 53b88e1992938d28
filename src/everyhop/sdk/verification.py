# SPDX-License-Identifier: Apache-2.0
"""From a service context to a verifier of tokens, and from a verified transaction token to a user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.sdk.model import User
from everyhop.tokens.keyset import HeldKeys, parse_jwks
from everyhop.tokens.verifier import TokenVerifier

if TYPE_CHECKING:
    from everyhop.core.clock import Clock
    from everyhop.sdk.context import ServiceContext
    from everyhop.tokens.transaction import TxnToken


class Verification:
    """A verifier whose keys and revocations follow the contexts; what it has seen survives a change of neither."""

    __slots__ = ("_jwks", "_keys", "verifier")

    def __init__(self, context: ServiceContext, clock: Clock) -> None:
        """Begin with a context.  Raises InputError for keys that are refused."""
        self._jwks = context.jwks
        self._keys = HeldKeys(parse_jwks(context.jwks))
        self.verifier: Final = TokenVerifier(
            self._keys,
            issuer=context.issuer,
            trust_domain=context.trust_domain.name,
            clock=clock,
            revocations=context.revoked,
        )

    def follow(self, context: ServiceContext) -> bool:
        """Take over the keys and revocations of a newer context; False when it is of another issuer.

        Raises InputError for keys that are refused; then nothing has changed.
        """
        if (self.verifier.issuer, self.verifier.trust_domain) != (context.issuer, context.trust_domain.name):
            return False
        if context.jwks != self._jwks:
            self._keys.replace(parse_jwks(context.jwks))
            self._jwks = context.jwks
        self.verifier.revoke(context.revoked)
        return True


def user_of(token: TxnToken) -> User:
    """Return the user of a verified transaction token."""
    facts = token.context
    return User(
        subject=token.subject,
        txn=token.txn,
        kind=token.kind,
        roles=frozenset(token.roles),
        scope=frozenset(token.scope),
        issuer=token.idp,
        acr=_text(facts.get("acr")),
        amr=_texts(facts.get("amr")),
        auth_time=_integer(facts.get("auth_time")),
        email=_text(facts.get("email")),
        requester=token.requester,
        expires_at=token.expires_at,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list | tuple) else ()


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
