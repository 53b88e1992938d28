# SPDX-License-Identifier: Apache-2.0
"""Tokens whose signature held, by the SHA-256 of their text and of the configuration they were verified under.

Bounded, and filled by verified tokens only.  The text itself is not kept: a heap dump gives nobody a token.
"""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from everyhop.core.errors import TokenError
from everyhop.tokens.claims import check_expiry, malformed
from everyhop.tokens.limits import MAX_TOKEN_BYTES

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
        self._prefix = configuration.encode() + b"\0"
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._seen: dict[bytes, tuple[Kept, str]] = {}

    def digest(self, token: str) -> bytes:
        """Return the name under which a token is kept; raises TOKEN_MALFORMED for what no token can be."""
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise malformed(f"a token is ASCII and has at most {MAX_TOKEN_BYTES} bytes")
        return hashlib.sha256(self._prefix + token.encode()).digest()

    def recall(self, digest: bytes, keys: KeySource, now: float) -> Kept | None:
        """Return the token unless it is unknown or its key is no longer held; raises TOKEN_EXPIRED when it is over."""
        entry = self._seen.get(digest)
        if entry is None:
            return None
        token, identity = entry
        key = keys.current(token.kid)
        if key is None or key.identity != identity:
            self._forget(digest)
            return None
        try:
            check_expiry(token.expires_at, now)
        except TokenError:
            self._forget(digest)
            raise
        return token

    def keep(self, digest: bytes, token: Kept, key: PinnedKey) -> None:
        """Remember a token that ``key`` was just found to have signed; the oldest entries make room."""
        if self._max_entries <= 0:
            return
        with self._lock:
            while len(self._seen) >= self._max_entries:
                del self._seen[next(iter(self._seen))]
            self._seen[digest] = token, key.identity

    def _forget(self, digest: bytes) -> None:
        with self._lock:
            self._seen.pop(digest, None)

    def __len__(self) -> int:
        return len(self._seen)
