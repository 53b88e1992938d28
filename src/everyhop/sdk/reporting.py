# SPDX-License-Identifier: Apache-2.0
"""Decisions of this process on their way to the audit log: handed to the agent in the background.

A request never waits for it and never fails by it.  What waits is bounded; beyond that the newest are dropped, allowed
calls long before refusals, and how many were is told with the next batch and in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import AccessDenied, EveryhopError, InputError, Unavailable
from everyhop.sdk.watching import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from everyhop.sdk.clients import AsyncWorkloadApiClient
    from everyhop.sdk.loops import Runner
    from everyhop.sdk.model import Decided
    from everyhop.spiffe.ids import SpiffeId

log = logging.getLogger(__name__)

MAX_WAITING: Final = 4096
MAX_ALLOWED_WAITING: Final = 2048
BATCH: Final = 200
GATHER_SECONDS: Final = 0.2
FLUSH_SECONDS: Final = 1.0
_TELL_SECONDS: Final = 10.0


class Reporter:
    """Takes decisions from any thread; :meth:`run` is the part of the feed that hands them on.

    Refusals are reported, and what was allowed where no sidecar has recorded it already.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        spiffe_id: SpiffeId | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        gather_seconds: float = GATHER_SECONDS,
    ) -> None:
        self._runner = runner
        self._spiffe_id = "" if spiffe_id is None else str(spiffe_id)
        self._monotonic = monotonic
        self._gather_seconds = gather_seconds
        self._waiting: deque[tuple[int, Decided]] = deque()
        self._event: asyncio.Event | None = None
        self._pid = os.getpid()
        self._is_over = False
        self._dropped = 0
        self._told_at = float("-inf")
        self.lost = 0
        """How many decisions of this process never reached the agent."""

    def put(self, decided: Decided) -> None:
        """Take a decision; never blocks and never raises."""
        self._begin_in_child()
        if self._is_over or (decided.allowed and decided.via_sidecar):
            return
        if len(self._waiting) >= (MAX_ALLOWED_WAITING if decided.allowed else MAX_WAITING):
            self._lose(1)
            return
        self._waiting.append((time.time_ns() // 1000, decided))
        event = self._event
        if event is not None and not event.is_set():
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                self._runner.loop.call_soon_threadsafe(event.set)

    async def run(self, client: AsyncWorkloadApiClient) -> None:
        """Hand on what waits until cancelled; then once more, for at most a second."""
        self._begin_in_child()
        event = self._event = asyncio.Event()
        backoff = Backoff()
        try:
            while not self._is_over:
                if not self._waiting:
                    event.clear()
                    if not self._waiting:  # put between the two
                        await event.wait()
                await asyncio.sleep(self._gather_seconds)
                while self._waiting and not self._is_over:
                    if not await self._hand_on(client):
                        await asyncio.sleep(backoff.next())
                    else:
                        backoff.reset()
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    while self._waiting and await self._hand_on(client):
                        pass
            if self._waiting:
                log.warning("%d decisions were not handed to the agent", len(self._waiting))
            raise
        finally:
            self._event, self._is_over = None, True

    def _begin_in_child(self) -> None:
        """Begin anew after a fork: what waits is the parent's to report."""
        if self._pid != os.getpid():
            self._pid, self._event, self._is_over = os.getpid(), None, False
            self._waiting, self._dropped, self.lost = deque(), 0, 0

    async def _hand_on(self, client: AsyncWorkloadApiClient) -> bool:
        """Hand on one batch; return whether the agent has taken it or refused it for good."""
        batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        dropped, self._dropped = self._dropped, 0
        try:
            refused = await client.report(batch, dropped=dropped, spiffe_id=self._spiffe_id)
        except (InputError, AccessDenied) as error:  # the same batch would be refused again
            log.warning("the agent refuses the record of %d decisions: %s", len(batch), error.message)
            self.lost += len(batch)
            return True
        except EveryhopError as error:
            if isinstance(error, Unavailable) and not error.retry:  # an agent that does not offer it
                log.warning("decisions are in the log of this process only: %s", error.message)
                self._is_over = True
                self._waiting.clear()
                return True
            self._put_back(batch, dropped)
            return False
        except BaseException:
            self._put_back(batch, dropped)
            raise
        self.lost += refused  # the agent counts and records these
        return True

    def _put_back(self, batch: list[tuple[int, Decided]], dropped: int) -> None:
        self._waiting.extendleft(reversed(batch))
        self._dropped += dropped

    def _lose(self, count: int) -> None:
        self.lost += count
        self._dropped += count
        now = self._monotonic()
        if now - self._told_at > _TELL_SECONDS:
            self._told_at = now
            log.warning("too many decisions wait for the agent; %d were dropped so far", self.lost)
