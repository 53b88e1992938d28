# SPDX-License-Identifier: Apache-2.0
"""Tokens whose signature held, by the SHA-256 of their text and of the configuration they were verified under.

Bounded, and filled by verified tokens only.  The text itself is not kept: a heap dump gives nobody a token.
"""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from everyhop.tokens.claims import check_expiry, malformed
from everyhop.tokens.limits import EXPIRY_SKEW_SECONDS, MAX_TOKEN_BYTES

if TYPE_CHECKING:
    from everyhop.tokens.keyset import KeySource, PinnedKey


class Believed(Protocol):
    """What is remembered of either kind of token."""

    @property
    def kid(self) -> str:
        """The name of the key that signed it."""

    @property
    def expires_at(self) -> int:
        """Seconds since 1970."""


Kept = TypeVar("Kept", bound=Believed)


class SeenTokens(Generic[Kept]):
    """Remembers verified tokens of one kind under one configuration; safe to use from many threads."""

    __slots__ = ("_lock", "_max_entries", "_prefix", "_seen")

    def __init__(self, configuration: str, *, max_entries: int) -> None:
        self._prefix = hashlib.sha256(configuration.encode()).digest()[:16]
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._seen: dict[bytes, tuple[Kept, PinnedKey]] = {}

    def look(self, token: str, keys: KeySource, now: float) -> tuple[bytes, Kept | None]:
        """Return the name under which a token is kept, and what it said, if it was seen and its key is still held.

        Raises TOKEN_EXPIRED when it is over, TOKEN_MALFORMED for what is too long for a token.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise malformed(f"a token has at most {MAX_TOKEN_BYTES} bytes")
        digest = hashlib.sha256(self._prefix + token.encode()).digest()
        entry = self._seen.get(digest)
        if entry is None:
            return digest, None
        known, key = entry
        held = keys.current(known.kid)
        # The same key in a newer document is another object; another key under the old name is no key.
        if held is not key and (held is None or held.identity != key.identity):
            self._forget(digest)
            return digest, None
        if now >= known.expires_at + EXPIRY_SKEW_SECONDS:
            self._forget(digest)
            check_expiry(known.expires_at, now)
        return digest, known

    def keep(self, digest: bytes, token: Kept, key: PinnedKey) -> None:
        """Remember a token that ``key`` was just found to have signed; the oldest entries make room."""
        if self._max_entries <= 0:
            return
        with self._lock:
            while len(self._seen) >= self._max_entries:
                del self._seen[next(iter(self._seen))]
            self._seen[digest] = token, key

    def _forget(self, digest: bytes) -> None:
        with self._lock:
            self._seen.pop(digest, None)

    @property
    def size(self) -> int:
        """How many tokens are remembered."""
        return len(self._seen)
