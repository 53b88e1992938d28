# SPDX-License-Identifier: Apache-2.0
"""Tokens by key: fetched once for everybody who asks, renewed before they are due, kept while the agent is away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
import weakref
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from everyhop.core.errors import AccessDenied, EveryhopError, Unavailable
from everyhop.sdk.clients import CALL_SECONDS, Issued

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from everyhop.core.clock import Clock

K = TypeVar("K", bound="Hashable")

MAX_TOKENS: Final = 1024
LIFE_SHARE: Final = 0.8
MARGIN: Final = timedelta(seconds=30)
_JITTER: Final = 0.1
_LAST_SECOND: Final = timedelta(seconds=1)  # what is over on its way is of no use
_REFUSED_FOR: Final = timedelta(seconds=5)
_RETRY_AFTER: Final = timedelta(seconds=2)

_ALL: Final[weakref.WeakSet[TokenCache[Any]]] = weakref.WeakSet()


def refresh_at(now: datetime, expires_at: datetime, fraction: float) -> datetime:
    """Return when to renew: min(80 % of life, end less 30 s), earlier by up to a tenth of that at random.

    A token of a minute or less is renewed after half of its life, so that a short one is not renewed each time.
    """
    life = expires_at - now
    after = min(life * LIFE_SHARE, life - MARGIN) if life > 2 * MARGIN else life / 2
    return now + after * (1 - _JITTER * fraction)


@dataclass(slots=True)
class _Entry:
    token: Issued | None = None
    refresh_at: datetime | None = None
    retry_at: datetime | None = None
    refusal: AccessDenied | None = None
    refused_until: datetime | None = None


class TokenCache(Generic[K]):
    """A bounded cache; ``fetch`` starts one call and must not block.  Safe for threads and event loops at once."""

    def __init__(
        self,
        fetch: Callable[[K], Future[Issued]],
        *,
        clock: Clock,
        fraction: Callable[[], float] = random.random,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._fraction = fraction
        self._max = max_tokens
        self._lock = threading.RLock()
        self._entries: OrderedDict[K, _Entry] = OrderedDict()
        self._flights: dict[K, Future[Issued]] = {}
        _ALL.add(self)

    def get(self, key: K) -> str:
        """Return a token, waiting for it when none is held.

        Raises AccessDenied when it is refused (remembered for five seconds), Unavailable when the agent does not
        answer and nothing is held.
        """
        found = self._look_up(key)
        if isinstance(found, Future):
            try:
                found = found.result(CALL_SECONDS + 1)
            except TimeoutError:
                raise Unavailable("the agent did not answer in time") from None
        return found.token.reveal().decode("ascii")

    async def aget(self, key: K) -> str:
        """Do the same for asyncio; one who stops waiting does not stop the others."""
        found = self._look_up(key)
        if isinstance(found, Future):
            waiting = asyncio.wrap_future(found)
            waiting.add_done_callback(_seen)
            found = await asyncio.shield(waiting)
        return found.token.reveal().decode("ascii")

    def forget(self, is_stale: Callable[[K], bool]) -> None:
        """Drop the tokens whose key is stale."""
        with self._lock:
            for key in [key for key in self._entries if is_stale(key)]:
                del self._entries[key]

    def prefetch(self, other: Callable[[K], K]) -> None:
        """Begin to fetch ``other`` of every key whose token is held; failures are no news."""
        with self._lock:
            held = [key for key, entry in self._entries.items() if entry.token is not None]
            for key in dict.fromkeys(other(one) for one in held):
                if key not in self._entries:
                    with contextlib.suppress(EveryhopError):
                        self._fly(key)

    def discard(self, token: str) -> None:
        """Drop a token that was refused where it was shown, unless another has taken its place already."""
        data = token.encode("ascii")
        with self._lock:
            held = [
                key for key, one in self._entries.items() if one.token and one.token.token.reveal() == data
            ]
            for key in held:
                del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)

    def _look_up(self, key: K) -> Issued | Future[Issued]:
        with self._lock:
            now = self._clock.now()
            entry = self._entries.get(key)
            if entry is None:
                return self._fly(key)
            self._entries.move_to_end(key)
            if entry.refusal is not None and entry.refused_until is not None and now < entry.refused_until:
                raise AccessDenied(entry.refusal.message, hint=entry.refusal.hint)
            held = entry.token
            if held is None or now >= held.expires_at - _LAST_SECOND:
                return self._fly(key)
            due = entry.refresh_at is None or now >= entry.refresh_at
            if due and (entry.retry_at is None or now >= entry.retry_at):
                self._fly(key)  # renewed behind the scenes; the held one is good meanwhile
            return held

    def _fly(self, key: K) -> Future[Issued]:
        """Return the one call that is under way, or begin it."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = self._fetch(key)
            flight.add_done_callback(lambda done: self._land(key, done))
        return flight

    def _land(self, key: K, flight: Future[Issued]) -> None:
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
            now = self._clock.now()
            error = Unavailable("cancelled") if flight.cancelled() else flight.exception()
            if error is None:
                issued = flight.result()
                self._store(key, _Entry(issued, refresh_at(now, issued.expires_at, self._fraction())), now)
            elif isinstance(error, AccessDenied):
                self._store(key, _Entry(refusal=error, refused_until=now + _REFUSED_FOR), now)
            elif key in self._entries:
                self._entries[key].retry_at = now + _RETRY_AFTER

    def _store(self, key: K, entry: _Entry, now: datetime) -> None:
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > self._max:
            self.forget(lambda one: _is_over(self._entries[one], now))
        while len(self._entries) > self._max:
            self._entries.popitem(last=False)

    def after_fork(self) -> None:
        """Forget calls and locks of threads that do not exist here; tokens stay."""
        self._lock = threading.RLock()
        self._flights = {}


def _is_over(entry: _Entry, now: datetime) -> bool:
    end = entry.refused_until if entry.token is None else entry.token.expires_at
    return end is None or end <= now


def _seen(future: asyncio.Future[Any]) -> None:
    """Take the exception of a call that nobody waits for any more; whoever waits has it too."""
    if not future.cancelled():
        future.exception()


def _after_fork_in_child() -> None:
    for cache in tuple(_ALL):
        cache.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
