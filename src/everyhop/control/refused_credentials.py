# SPDX-License-Identifier: Apache-2.0
"""Credentials that sidecars refuse, told to the server as digests: only there can be said whether one was a canary.

The agent has no list of canaries, so a stolen node cannot be asked which key is one: asking is using it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol

from everyhop.anomaly.canary import digest_of
from everyhop.control.messages import RefusedCredential
from everyhop.core.errors import EveryhopError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from everyhop.control.shown_credentials import Shown
    from everyhop.core.clock import Clock

_log = logging.getLogger(__name__)

MAX_WAITING: Final = 1024
MAX_BATCH: Final = 256
MAX_SEEN: Final = 8192
AGAIN_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 0.5


class Server(Protocol):
    """The server, as far as this is concerned."""

    async def refused(self, items: Sequence[RefusedCredential]) -> None:
        """Hand them over; raises Unavailable."""


class RefusedCredentials:
    """Waits for refused credentials and sends them on at once.  All use is from one event loop.

    The same one of the same caller is told once in ten seconds; when more than 1,024 wait, the newest are dropped and
    counted: whoever floods has his first tries looked at.
    """

    def __init__(self, server: Server, clock: Clock) -> None:
        self._server = server
        self._clock = clock
        self._waiting: list[RefusedCredential] = []
        self._seen: OrderedDict[tuple[bytes, str | None, str | None], float] = OrderedDict()
        self._wake = asyncio.Event()
        self._dropped = 0

    def note(self, texts: Iterable[str], shown: Shown) -> None:
        """Take what a call has shown that was refused; returns at once."""
        for text in texts:
            digest = digest_of(text)
            if self._is_new(digest, shown):
                self._add(digest, shown)

    def _add(self, digest: bytes, shown: Shown) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
            return
        self._waiting.append(
            RefusedCredential(
                digest=digest.hex(),
                where=shown.where,
                caller=shown.caller,
                source=shown.source,
                target=shown.target,
                decision=shown.decision,
            )
        )
        self._wake.set()

    def _is_new(self, digest: bytes, shown: Shown) -> bool:
        now, key = self._clock.now().timestamp(), (digest, shown.caller, shown.source)
        last = self._seen.get(key)
        if last is not None and 0 <= now - last < AGAIN_SECONDS:
            return False
        self._seen[key] = now
        self._seen.move_to_end(key)
        while len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        return True

    async def run(self) -> None:
        """Send what waits, until cancelled; what the server did not take is sent again."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = self._waiting[:MAX_BATCH]
                try:
                    await self._server.refused(batch)
                except EveryhopError as error:
                    _log.warning("refused credentials wait", extra={"reason": error.message})
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                del self._waiting[: len(batch)]
            if self._dropped:
                _log.warning("refused credentials were not looked at", extra={"count": self._dropped})
                self._dropped = 0
