# SPDX-License-Identifier: Apache-2.0
"""Decisions and audit events of this process on their way to the audit log: handed to the agent in the background.

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
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from everyhop.core.errors import AccessDenied, EveryhopError, InputError, Unavailable
from everyhop.sdk.watching import Backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from everyhop.sdk.clients import AsyncWorkloadApiClient
    from everyhop.sdk.loops import Runner
    from everyhop.spiffe.ids import SpiffeId

log = logging.getLogger(__name__)

MAX_WAITING: Final = 4096
MAX_ALLOWED_WAITING: Final = 2048
BATCH: Final = 200
GATHER_SECONDS: Final = 0.2
FLUSH_SECONDS: Final = 1.0
_TELL_SECONDS: Final = 10.0


class Reportable(Protocol):
    """A decision or an event; what was allowed goes first when there is no room."""

    @property
    def allowed(self) -> bool:
        """Tell whether it is no refusal and no failure."""

    @property
    def via_sidecar(self) -> bool:
        """Tell whether a sidecar has recorded it already."""


R = TypeVar("R", bound=Reportable)
R_contra = TypeVar("R_contra", bound=Reportable, contravariant=True)


class Send(Protocol[R_contra]):
    """Hands one batch to the agent; returns how many it did not keep."""

    def __call__(
        self,
        client: AsyncWorkloadApiClient,
        batch: Sequence[tuple[int, R_contra]],
        *,
        dropped: int,
        spiffe_id: str,
    ) -> Awaitable[int]:
        """Call the agent."""


class Reporter(Generic[R]):
    """Takes decisions from any thread; :meth:`run` is the part of the feed that hands them on.

    Refusals are reported, and what was allowed where no sidecar has recorded it already.
    """

    def __init__(
        self,
        runner: Runner,
        send: Send[R],
        *,
        what: str = "decisions",
        spiffe_id: SpiffeId | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        gather_seconds: float = GATHER_SECONDS,
    ) -> None:
        self._runner = runner
        self._send = send
        self._what = what
        self._spiffe_id = "" if spiffe_id is None else str(spiffe_id)
        self._monotonic = monotonic
        self._gather_seconds = gather_seconds
        self._waiting: deque[tuple[int, R]] = deque()
        self._event: asyncio.Event | None = None
        self._pid = os.getpid()
        self._is_over = False
        self._dropped = 0
        self._told_at = float("-inf")
        self.lost = 0
        """How many decisions of this process never reached the agent."""

    @property
    def is_over(self) -> bool:
        """Tell that nothing is taken any more: the agent does not offer it, or the feed has ended."""
        return self._is_over and self._pid == os.getpid()

    def put(self, decided: R) -> None:
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
                log.warning("%d %s were not handed to the agent", len(self._waiting), self._what)
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
            refused = await self._send(client, batch, dropped=dropped, spiffe_id=self._spiffe_id)
        except (InputError, AccessDenied) as error:  # the same batch would be refused again
            log.warning("the agent refuses the record of %d %s: %s", len(batch), self._what, error.message)
            self.lost += len(batch)
            return True
        except EveryhopError as error:
            if isinstance(error, Unavailable) and not error.retry:  # an agent that does not offer it
                log.warning("%s are in the log of this process only: %s", self._what, error.message)
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

    def _put_back(self, batch: list[tuple[int, R]], dropped: int) -> None:
        self._waiting.extendleft(reversed(batch))
        self._dropped += dropped

    def lose(self, count: int) -> None:
        """Count what was lost before it came here; it is told with the next batch."""
        self._lose(count)

    def _lose(self, count: int) -> None:
        self.lost += count
        self._dropped += count
        now = self._monotonic()
        if now - self._told_at > _TELL_SECONDS:
            self._told_at = now
            log.warning("too many %s wait for the agent; %d were dropped so far", self._what, self.lost)
