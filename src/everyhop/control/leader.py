# SPDX-License-Identifier: Apache-2.0
"""Does a thing while this server holds the lease for it, and stops before another can have it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from everyhop.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from concurrent.futures import Executor

    from everyhop.auditlog.consumer import Leases
    from everyhop.core.clock import Clock

T = TypeVar("T")
_log = logging.getLogger(__name__)

TTL: Final = timedelta(seconds=15)
_TRIES: Final = 5  # renewals within the life of a lease


class Leader:
    """Runs one piece of work on one of several servers.  Used from one event loop."""

    def __init__(
        self,
        leases: Leases,
        name: str,
        holder: str,
        *,
        clock: Clock,
        pool: Executor,
        ttl: timedelta = TTL,
    ) -> None:
        """``holder`` names this process for ever, so that one that starts again is not taken for its forerunner."""
        self._leases = leases
        self._name = name
        self._holder = holder
        self._clock = clock
        self._pool = pool
        self._ttl = ttl
        self.is_leading = False
        """Whether the work runs here now."""

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Hold the lease whenever it is to be had, and run ``work`` for as long; until cancelled.

        Work is cancelled when the lease cannot be renewed in time.  Work that ends or raises is begun again after a
        part of the lease's life: it has to bear being stopped and repeated anywhere.
        """
        pause = self._ttl.total_seconds() / _TRIES
        try:
            while True:
                if await self._take():
                    await self._lead(work, pause)
                await asyncio.sleep(pause)
        finally:
            with contextlib.suppress(Unavailable):
                await asyncio.shield(self._call(partial(self._leases.release, self._name, self._holder)))

    async def _lead(self, work: Callable[[], Awaitable[None]], pause: float) -> None:
        loop = asyncio.get_running_loop()
        _log.info("leading", extra={"lease": self._name})
        task = asyncio.ensure_future(work())
        self.is_leading = True
        # The moment of the last renewal is taken before it is asked for, by a clock that nobody sets.
        end = loop.time() + self._ttl.total_seconds() - pause
        try:
            while not task.done() and loop.time() < end:
                await asyncio.wait({task}, timeout=min(pause, max(0.0, end - loop.time())))
                if task.done():
                    break
                asked = loop.time()
                held = await self._renew(end - asked)
                if held is False:
                    break
                if held:
                    end = asked + self._ttl.total_seconds() - pause
        finally:
            self.is_leading = False
            task.cancel()
            await self._end(task)

    async def _end(self, task: asyncio.Future[None]) -> None:
        try:
            await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
        except Exception:  # noqa: BLE001  # whatever it met, it is begun again
            _log.exception("work under a lease failed; it is begun again", extra={"lease": self._name})
        else:
            return
        _log.info("not leading any more", extra={"lease": self._name})

    async def _renew(self, seconds: float) -> bool | None:
        """Return whether the lease is held, or None when nobody could say within ``seconds``."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                return await self._call(self._taking())
        except (Unavailable, TimeoutError):
            return None

    async def _take(self) -> bool:
        try:
            return await self._call(self._taking())
        except Unavailable:
            return False

    def _taking(self) -> Callable[[], bool]:
        return partial(self._leases.take, self._name, self._holder, now=self._clock.now(), ttl=self._ttl)

    async def _call(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)
