# SPDX-License-Identifier: Apache-2.0
"""What the authority needs from outside: a store with transactions, and a place that keeps keys."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from everyhop.authority.model import AuthorityEntry, AuthorityKind, AuthorityState
from everyhop.core.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityEvent:
    """What goes into the audit log together with a change.

    ``action`` is that of a :class:`~everyhop.authority.model.Change`, or ``issue-x509-svid`` or ``issue-jwt-svid``;
    then ``subject`` is the SPIFFE ID that it was issued to.
    """

    action: str
    time: datetime
    kind: AuthorityKind
    authority_id: str
    subject: str | None = None
    detail: dict[str, str | int | float | bool | None] = field(default_factory=dict)


class AuthorityTransaction(Protocol):
    """A write transaction: it sees no other, and no other sees it, until it ends well."""

    def load(self) -> AuthorityState:
        """Return the state as this transaction sees it."""

    def insert(self, entry: AuthorityEntry) -> None:
        """Add an authority.  Raises Conflict for an id that exists, or a second prepared or active one of a kind."""

    def update(self, entry: AuthorityEntry) -> None:
        """Replace the authority of the same id.  Raises NotFound, or Conflict as ``insert`` does."""

    def delete(self, authority_id: str) -> None:
        """Remove an authority.  Raises NotFound."""

    def set_sequence(self, sequence: int) -> None:
        """Store the bundle's sequence number.  Raises Conflict unless it grows."""

    def extend_signed_until(self, authority_id: str, moment: datetime) -> bool:
        """Raise ``signed_until`` to at least ``moment``; False, and no change, unless the authority is active."""

    def record(self, event: AuthorityEvent) -> None:
        """Append an event to the audit log, in this transaction."""


class AuthorityStore(Protocol):
    """Keeps authorities for every process that shares the trust domain."""

    def load(self) -> AuthorityState:
        """Return a consistent state."""

    def transaction(self) -> AbstractContextManager[AuthorityTransaction]:
        """Begin a write transaction; it commits when the block ends and rolls back when the block raises."""


class KeyStore(Protocol):
    """Makes private keys and keeps them unreadable where they are stored.

    ``key_id`` and ``purpose`` are bound into what ``wrap`` returns: a blob moved to another row does not unwrap.
    """

    def generate(self) -> Secret:
        """Return a fresh P-256 private key as PKCS#8 DER."""

    def wrap(self, key_id: str, purpose: str, secret: Secret) -> bytes:
        """Encrypt a private key of at most 8 KiB."""

    def unwrap(self, key_id: str, purpose: str, blob: bytes) -> Secret:
        """Decrypt.  Raises InputError for a blob of another form, TrustError for another KEK, row, or altered bytes."""
