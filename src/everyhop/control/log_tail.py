# SPDX-License-Identifier: Apache-2.0
"""The log as those see it who follow it: page after page in its order, from a position that they remember.

A position is the number of a record (from 1).  Numbers are given under one lock and become visible in their order, so a
reader that goes on behind the last one it saw misses none.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from everyhop.auditlog import Order, RecordFilter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from concurrent.futures import Executor

    from everyhop.auditlog import Page, RecordStore

POLL_SECONDS: Final = 0.05
_EVERYTHING: Final = RecordFilter()


class LogTail:
    """Follows a record store.  Used from one event loop, by any number of readers."""

    def __init__(self, records: RecordStore, pool: Executor, *, poll_seconds: float = POLL_SECONDS) -> None:
        """``poll_seconds`` is how long records of another server stay unseen; own ones wake the readers."""
        self._records = records
        self._pool = pool
        self._poll_seconds = poll_seconds
        self._grown = asyncio.Event()

    def wake(self) -> None:
        """Tell the readers that this process has appended something."""
        self._grown.set()
        self._grown = asyncio.Event()

    @property
    def growth(self) -> asyncio.Event:
        """Return what is set when this process appends something next; ask for it before the page that is read."""
        return self._grown

    async def follow(self, position: int, *, limit: int = 500) -> AsyncIterator[Page]:
        """Yield every page behind ``position``, for ever; raises Unavailable when the store does not answer."""
        while True:
            grown = self._grown
            page = await self.read(position, limit=limit)
            if page.last is not None:
                position = page.last
                yield page
                continue
            try:
                await asyncio.wait_for(grown.wait(), self._poll_seconds)
            except TimeoutError:
                continue

    async def read(self, position: int, *, limit: int = 500) -> Page:
        """Return the page behind ``position``; an empty one at the end."""
        ask = partial(self._records.query, _EVERYTHING, order=Order.OLDEST, cursor=position, limit=limit)
        return await asyncio.get_running_loop().run_in_executor(self._pool, ask)
