# SPDX-License-Identifier: Apache-2.0
"""A key set that is fetched: one request at a time, one per cool-down, and never a good key lost to a bad one.

A stranger can name as many keys as he likes before anything about him is verified.  So an unknown name costs the
issuer at most one request in 30 seconds, whoever asks and however often, and tokens of known keys do not wait.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from everyhop.tokens.keyset import KeySet, PinnedKey, parse_jwks, unknown_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from everyhop.core.clock import Clock

COOLDOWN: Final = timedelta(seconds=30)
MAX_AGE: Final = timedelta(seconds=300)
MAX_UNKNOWN: Final = 1024
_UNKNOWN_FOR: Final = 120.0  # seconds that a name stays unknown without asking again
_FIRST_RETRY: Final = (
    1.0  # seconds; before there is any set, waiting half a minute would only prolong the outage
)


class FetchedKeys:
    """Keys from ``fetch``, which returns the bytes of a JWK Set or raises; safe to use from many threads.

    The set is fetched again when it is older than ``max_age``, and for an unknown name at most once per
    ``cooldown``.  When that fails, or gives a document that is refused, the last good set stays.
    """

    def __init__(
        self,
        fetch: Callable[[], bytes],
        clock: Clock,
        *,
        cooldown: timedelta = COOLDOWN,
        max_age: timedelta = MAX_AGE,
        initial: KeySet | None = None,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._cooldown = cooldown.total_seconds()
        self._max_age = max_age.total_seconds()
        self._lock = threading.Lock()
        self._keys = initial
        self._fetched_at = self._now() if initial is not None else 0.0
        self._next_attempt = 0.0
        self._failures = 0
        self._unknown: dict[str, float] = {}
        self.attempts = 0
        """How often ``fetch`` was called."""
        self.last_error: Exception | None = None
        """Why the latest fetch failed, for operators; None after a success."""

    @property
    def keys(self) -> KeySet:
        """Return the set that is held now; empty before the first success."""
        return self._keys if self._keys is not None else KeySet()

    def current(self, kid: str) -> PinnedKey | None:
        """Return the key if it is held now; never fetches."""
        held = self._keys
        return None if held is None else held.find(kid)

    def key(self, kid: str) -> PinnedKey:
        """Return the key, fetching when it is due; raises TokenError UNKNOWN_KEY_ID.

        Waits for a fetch only when the name is unknown.
        """
        now = self._now()
        found = self.current(kid)
        if found is not None:
            if now - self._fetched_at >= self._max_age and not self._cooling(now):
                self._refresh(now, wait=False)
                found = self.current(kid)
            if found is not None:
                return found
        until = self._unknown.get(kid)
        if until is not None and now < until and self._keys is not None:
            raise unknown_key()
        self._refresh(now, wait=True)
        found = self.current(kid)
        if found is None:
            if self._fetched_at >= now:
                self._remember_unknown(kid, now)
            raise unknown_key()
        return found

    def _remember_unknown(self, kid: str, now: float) -> None:
        """Do not ask again soon for a name that the issuer has just been asked for."""
        with self._lock:
            while len(self._unknown) >= MAX_UNKNOWN:
                del self._unknown[next(iter(self._unknown))]
            self._unknown[kid] = now + _UNKNOWN_FOR

    def _cooling(self, now: float) -> bool:
        # A clock that was set back must not turn half a minute into a day.
        return now < self._next_attempt <= now + self._cooldown

    def _refresh(self, now: float, *, wait: bool) -> None:
        """Fetch unless another thread does, or did within the cool-down."""
        if not self._lock.acquire(blocking=wait):
            return
        try:
            if self._cooling(now):
                return
            self._attempt(now)
        finally:
            self._lock.release()

    def _attempt(self, now: float) -> None:
        self.attempts += 1
        # Set before the request: a fetch that hangs or dies must not be repeated by the next stranger either.
        self._next_attempt = now + self._cooldown
        try:
            fresh = parse_jwks(self._fetch())
        except Exception as error:  # noqa: BLE001  # whatever the fetch raises, the last good keys stay
            self.last_error = error
            if self._keys is None:
                self._next_attempt = now + min(self._cooldown, _FIRST_RETRY * 2**self._failures)
                self._failures = min(self._failures + 1, 16)
            return
        self.last_error = None
        self._failures = 0
        self._fetched_at = now
        if self._keys is None or fresh.version != self._keys.version:
            self._keys = fresh

    def _now(self) -> float:
        return self._clock.now().timestamp()
