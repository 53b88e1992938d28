# SPDX-License-Identifier: Apache-2.0
"""What the issuer needs from outside: a store, a key store, the policy's grants, other people's identities, a log."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

import msgspec

from everyhop.core.secret import Secret
from everyhop.issuing.model import IssuingState, Revocation, SigningKey, UserIdentity
from everyhop.issuing.policy_view import PolicyView


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningEvent:
    """A step in a signing key's life, or a revocation, for the audit log, in the same transaction."""

    action: str
    time: datetime
    kid: str | None = None
    caller: str | None = None
    detail: dict[str, str | int | float | bool | None] = field(default_factory=dict)


class TokenEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A token that was issued, or a request that was refused; a msgspec record, because one is made for each token.

    ``action`` is ``mint`` or ``exchange``; ``caller`` the SPIFFE ID of the peer; ``refused`` the OAuth error code and
    ``reason`` the words for the operator, both None when it was issued.  Never holds a token.
    """

    action: str
    time: datetime
    caller: str | None
    target: str | None = None
    refused: str | None = None
    reason: str | None = None
    detail: dict[str, str | int | float | bool | None] = {}  # msgspec copies an empty default


class IssuingTransaction(Protocol):
    """A write transaction: it sees no other, and no other sees it, until it ends well."""

    def load(self) -> IssuingState:
        """Return keys and sequence as this transaction sees them, without revocations, of which there may be many."""

    def insert_key(self, key: SigningKey) -> None:
        """Add a key.  Raises Conflict for a second prepared or active one of an algorithm, or one of the same kid."""

    def update_key(self, key: SigningKey) -> None:
        """Replace the key of the same kid.  Raises NotFound, or Conflict as ``insert_key`` does."""

    def delete_key(self, kid: str) -> None:
        """Remove a key.  Raises NotFound."""

    def advance(self) -> int:
        """Let the sequence grow by one and return it."""

    def revoke(self, revocation: Revocation) -> None:
        """Store a revocation; one of the same name is kept until the later of both ends."""

    def count_revocations(self, by: str | None = None) -> int:
        """Count the stored revocations, or those that ``by`` asked for."""

    def prune_revocations(self, now: datetime) -> int:
        """Remove the revocations that ended before ``now``; return how many."""

    def record(self, event: SigningEvent) -> None:
        """Append an event to the audit log, in this transaction."""


class IssuingStore(Protocol):
    """Keeps keys and revocations for every process that shares the trust domain."""

    def sequence(self) -> int:
        """Return the number of the present state, cheaply."""

    def load(self) -> IssuingState:
        """Return a consistent state."""

    def transaction(self) -> AbstractContextManager[IssuingTransaction]:
        """Begin a write transaction; it commits when the block ends and rolls back when the block raises."""


class KeyStore(Protocol):
    """Keeps private keys unreadable where they are stored."""

    def wrap(self, key_id: str, purpose: str, secret: Secret) -> bytes:
        """Encrypt a private key of at most 8 KiB, bound to its id and purpose."""

    def unwrap(self, key_id: str, purpose: str, blob: bytes) -> Secret:
        """Decrypt.  Raises InputError or TrustError."""


PolicyInForce = Callable[[], PolicyView]
"""Returns the policy in force; called once per request, so that a request is judged by one snapshot."""


class UserTokens(Protocol):
    """Tokens of the OIDC issuers that the policy trusts."""

    def verify(self, token: str, *, now: datetime) -> UserIdentity:
        """Return who signed in.  Raises InputError or TrustError; Unavailable when the issuer cannot be asked."""


class ApiKeyIdentity(Protocol):
    """What an API key proves."""

    @property
    def lookup(self) -> str:
        """Return the public part of the key, its name."""

    @property
    def owner(self) -> str:
        """Return who answers for it."""

    @property
    def scopes(self) -> frozenset[str]:
        """Return the ``service.operation`` texts that it may use now."""

    @property
    def expires_at(self) -> datetime:
        """Return when it ends."""


class ApiKeyAuthenticator(Protocol):
    """Decides about presented API keys."""

    def authenticate(self, presented: str, source: str | None) -> ApiKeyIdentity:
        """Return whose key it is; ``source`` is an IP address.

        Raises TrustError, the same for every reason, or AccessDenied for a source that fails too often.
        """


class BlockedActor(NamedTuple):
    """One who is blocked: ``subject`` as records name it, ``retry_after`` in seconds."""

    subject: str
    retry_after: int


class Blocks(Protocol):
    """Who is blocked now."""

    def actor(
        self,
        now: datetime,
        *,
        identity: str | None = None,
        subject: str | None = None,
        address: str | None = None,
    ) -> BlockedActor | None:
        """Return the first of those who act that is blocked: a SPIFFE ID, the subject of a token, an IP address."""


class NobodyBlocked:
    """Blocks where there are none."""

    def actor(
        self,
        now: datetime,
        *,
        identity: str | None = None,
        subject: str | None = None,
        address: str | None = None,
    ) -> BlockedActor | None:
        """Return None."""
        del now, identity, subject, address
        return None


class WorkloadTokens(Protocol):
    """JWT-SVIDs, where one is presented as the actor's token."""

    def subject(self, token: str, *, now: datetime) -> str:
        """Return the SPIFFE ID that a JWT-SVID for this issuer proves.  Raises InputError or TrustError."""


class TokenJournal(Protocol):
    """Where issues and refusals are recorded."""

    def issued(self, event: TokenEvent) -> None:
        """Record an issue; durable when it returns, together with those of others.

        Raises Unavailable when that cannot be, and then the token must not leave.
        """

    def noted(self, event: TokenEvent) -> None:
        """Note a refusal that a stranger can cause without end (a source that is shut out); may be written later."""

    def refused(self, event: TokenEvent) -> None:
        """Record a refusal; durable when it returns."""
