# SPDX-License-Identifier: Apache-2.0
"""The verifier that a service holds: the whole profile, with the costly part remembered.

What is remembered is only that a token's bytes were signed by a key and say what they say.  On each use are
checked again: that the key is still held, that the token is not over, not revoked, and everything that depends on
the call (audience, operation, peer, binding).  Verifiers that asked less left tokens alive after their key, or
took a token that was seen at a laxer door (docs/adr/0013).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.core.clock import Clock, seconds_of
from everyhop.core.errors import TokenError
from everyhop.tokens.access import ACCESS_TYPE, AccessToken, verify_access_token_at
from everyhop.tokens.codes import TokenCode
from everyhop.tokens.compact import unforeseen
from everyhop.tokens.expectation import Expectation, check
from everyhop.tokens.revocations import NOTHING_REVOKED, Revocations
from everyhop.tokens.seen import SeenTokens
from everyhop.tokens.transaction import TRANSACTION_TYPE, TxnToken, verify_txn_token_at

if TYPE_CHECKING:
    from everyhop.tokens.keyset import KeySource
    from everyhop.tokens.replay import ReplayGuard

MAX_ENTRIES: Final = 10_000


class TokenVerifier:
    """Verifies the tokens of one issuer for one trust domain; safe to use from many threads."""

    def __init__(
        self,
        keys: KeySource,
        *,
        issuer: str,
        trust_domain: str,
        clock: Clock,
        revocations: Revocations = NOTHING_REVOKED,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self._keys = keys
        self.issuer = issuer
        self.trust_domain = trust_domain
        self._seconds = seconds_of(clock)
        self._revocations = revocations
        self._accesses: SeenTokens[AccessToken] = SeenTokens(
            f"{ACCESS_TYPE}\0{issuer}\0{trust_domain}", max_entries=max_entries
        )
        self._transactions: SeenTokens[TxnToken] = SeenTokens(
            f"{TRANSACTION_TYPE}\0{issuer}\0{trust_domain}", max_entries=max_entries
        )

    @property
    def revocations(self) -> Revocations:
        """Return the revocations in force."""
        return self._revocations

    def revoke(self, revocations: Revocations) -> None:
        """Put other revocations in force, from the next token on."""
        self._revocations = revocations

    def access(self, token: str | None, expected: Expectation) -> AccessToken:
        """Return a token that is good for this call; raises TokenError, and nothing else.

        ``token`` is untrusted text; None or empty is MISSING_TOKEN.
        """
        try:
            if not token:
                raise missing()
            now = self._seconds()
            digest, found = self._accesses.look(token, self._keys, now)
            if found is None:
                found, key = verify_access_token_at(token, self._keys, self.issuer, now)
                self._accesses.keep(digest, found, key)
            check(found, expected, self._revocations)
        except TokenError:
            raise
        except Exception as error:
            raise unforeseen(error) from error
        return found

    def access_once(self, token: str | None, expected: Expectation, guard: ReplayGuard) -> AccessToken:
        """Do the same for an operation of single use: the token is spent by it."""
        found = self.access(token, expected)
        spend(found, guard)
        return found

    def transaction(self, token: str | None) -> TxnToken:
        """Return a transaction token of this trust domain; raises TokenError, and nothing else."""
        try:
            if not token:
                raise missing()
            now = self._seconds()
            digest, found = self._transactions.look(token, self._keys, now)
            if found is None:
                found, key = verify_txn_token_at(token, self._keys, self.issuer, self.trust_domain, now)
                self._transactions.keep(digest, found, key)
            if self._revocations.any and self._revocations.is_revoked(found):
                raise TokenError(TokenCode.TOKEN_REVOKED, "the transaction token was revoked")
        except TokenError:
            raise
        except Exception as error:
            raise unforeseen(error) from error
        return found


def spend(token: AccessToken, guard: ReplayGuard) -> None:
    """Use a token up, by its ``jti``; raises TokenError TOKEN_REPLAYED unless this is certainly the first use."""
    try:
        first = guard.use(token.jti, token.expires_at)
    except Exception as error:
        raise TokenError(TokenCode.TOKEN_REPLAYED, "single use cannot be established now") from error
    if first is not True:
        raise TokenError(TokenCode.TOKEN_REPLAYED, "the token was used before")


def missing() -> TokenError:
    """Return the error for a call without a token."""
    return TokenError(TokenCode.MISSING_TOKEN, "the call carries no token")
