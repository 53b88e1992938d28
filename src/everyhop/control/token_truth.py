# SPDX-License-Identifier: Apache-2.0
"""By what this node judges tokens: the server's keys and revocations, as they last came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from everyhop.control.messages import TokenTruthDocument
from everyhop.core.errors import InputError, Unavailable
from everyhop.tokens.keyset import HeldKeys, parse_jwks
from everyhop.tokens.revocations import Revocations
from everyhop.tokens.verifier import TokenVerifier

if TYPE_CHECKING:
    from everyhop.agent import ServiceToken
    from everyhop.core.clock import Clock
    from everyhop.spiffe import TrustDomain

_DECODER: Final = msgspec.json.Decoder(TokenTruthDocument)


class TokenTruth:
    """The truth of the moment and the verifier that follows it.  All use is from one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._document: TokenTruthDocument | None = None
        self._keys: HeldKeys | None = None
        self._verifier: TokenVerifier | None = None

    @property
    def document(self) -> TokenTruthDocument:
        """Return what the server said last; raises Unavailable before the first."""
        if self._document is None:
            raise Unavailable("the agent has no keys of the token issuer yet")
        return self._document

    @property
    def verifier(self) -> TokenVerifier:
        """Return the verifier of tokens; raises Unavailable before the first truth."""
        if self._verifier is None:
            raise Unavailable("the agent has no keys of the token issuer yet")
        return self._verifier

    @property
    def sequence(self) -> int:
        """Return the number of the truth that is held; 0 before the first."""
        return 0 if self._document is None else self._document.sequence

    @property
    def issuer(self) -> str | None:
        """Return who issues tokens; None before the first truth."""
        return None if self._document is None else self._document.issuer

    @property
    def epoch(self) -> str:
        """Return a text that differs whenever keys, issuer or revocations differ."""
        return str(self.sequence)

    def take(self, encoded: bytes, trust_domain: TrustDomain) -> None:
        """Take over a truth; raises InputError, and keeps the one before, when it is not one of this domain."""
        try:
            document = _DECODER.decode(encoded)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise InputError(f"the token truth cannot be read: {error}") from error
        if document.trust_domain != trust_domain.name:
            raise InputError("the token truth is of another trust domain")
        keys = parse_jwks(bytes(document.jwks))
        revocations = Revocations.from_members(msgspec.to_builtins(document.revoked))
        if self._verifier is None or self._keys is None or self._verifier.issuer != document.issuer:
            self._keys = HeldKeys(keys)
            self._verifier = TokenVerifier(
                self._keys, issuer=document.issuer, trust_domain=document.trust_domain, clock=self._clock
            )
        self._keys.replace(keys)
        self._verifier.revoke(revocations)
        self._document = document

    def is_dead(self, token: ServiceToken) -> bool:
        """Tell whether a token of ours would not be believed any more: revoked, or of a key that is gone."""
        if self._keys is None or self._verifier is None:
            return False
        revoked = self._verifier.revocations
        return self._keys.current(token.kid) is None or token.kid in revoked.kids or token.jti in revoked.jtis
