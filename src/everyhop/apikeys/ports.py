# SPDX-License-Identifier: Apache-2.0
"""What API keys need from outside: a store, a key store for the pepper, and the policy's edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from everyhop.apikeys.model import ApiKeyEntry, Pepper
from everyhop.core.secret import Secret

EdgeScopes = Callable[[], frozenset[str]]
"""The ``service.operation`` texts that the policy in force opens to callers from outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyEvent:
    """A change for the audit log: ``create``, ``rotate``, ``revoke``, ``enable`` or ``disable``; holds no key."""

    action: str
    time: datetime
    lookup: str
    by: str
    detail: dict[str, str | int | float | bool | None] = field(default_factory=dict)


class ApiKeyTransaction(Protocol):
    """A write transaction."""

    def find(self, lookup: str) -> ApiKeyEntry | None:
        """Return a key by its lookup, or None."""

    def insert(self, entry: ApiKeyEntry) -> None:
        """Add a key.  Raises Conflict for a lookup that exists, or a second one that replaces the same key."""

    def update(self, entry: ApiKeyEntry) -> None:
        """Replace the key of the same lookup.  Raises NotFound."""

    def count(self) -> int:
        """Count the keys that are held."""

    def pepper(self) -> Pepper | None:
        """Return the newest pepper, or None."""

    def insert_pepper(self, pepper: Pepper) -> None:
        """Add a pepper."""

    def revoke_subject(self, subject: str, *, by: str, at: datetime, until: datetime) -> None:
        """Refuse, until ``until``, every token that was issued to ``subject`` up to now."""

    def advance(self) -> int:
        """Let the sequence grow that tells agents that something ended; return it."""

    def record(self, event: ApiKeyEvent) -> None:
        """Append an event to the audit log, in this transaction."""


class ApiKeyStore(Protocol):
    """Keeps API keys, without their secrets."""

    def find(self, lookup: str) -> ApiKeyEntry | None:
        """Return a key by its lookup, or None."""

    def list(self, owner: str | None = None) -> tuple[ApiKeyEntry, ...]:
        """Return the keys, or those of one owner, oldest first."""

    def peppers(self) -> tuple[Pepper, ...]:
        """Return every pepper, oldest first."""

    def touch(self, used: Mapping[str, datetime]) -> None:
        """Store when keys were last used, in one transaction; an older moment changes nothing."""

    def transaction(self) -> AbstractContextManager[ApiKeyTransaction]:
        """Begin a write transaction; it commits when the block ends and rolls back when the block raises."""


class CanaryMarks(Protocol):
    """Which keys must never be used."""

    def is_canary(self, text: str) -> bool:
        """Tell whether a presented key is one of them."""

    def commitment(self, lookup: str, *, is_canary: bool) -> str:
        """Return what the record of a new key says, so that its nature can be shown later and not read now."""


class KeyStore(Protocol):
    """Keeps the pepper unreadable where it is stored."""

    def wrap(self, key_id: str, purpose: str, secret: Secret) -> bytes:
        """Encrypt a secret, bound to its id and purpose."""

    def unwrap(self, key_id: str, purpose: str, blob: bytes) -> Secret:
        """Decrypt.  Raises InputError or TrustError."""
