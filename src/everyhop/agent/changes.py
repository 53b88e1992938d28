# SPDX-License-Identifier: Apache-2.0
"""One counter of "something changed", on which any number of watchers wait."""

from __future__ import annotations

import asyncio
from typing import final


@final
class Changes:
    """A version that only grows.

    A watcher reads :attr:`version`, *then* the state it cares for, and waits for a version beyond the one it
    read: whatever changes in between ends the wait at once, so no change is missed.  All use is from one event
    loop's thread.
    """

    __slots__ = ("_next", "_version")

    def __init__(self) -> None:
        self._version = 0
        self._next: asyncio.Event | None = None

    @property
    def version(self) -> int:
        """Return the number of changes so far."""
        return self._version

    def bump(self) -> None:
        """Count a change and wake every watcher."""
        self._version += 1
        event, self._next = self._next, None
        if event is not None:
            event.set()

    async def beyond(self, version: int) -> int:
        """Wait until the version is greater than ``version``; return it."""
        while self._version <= version:
            if self._next is None:
                self._next = asyncio.Event()
            await self._next.wait()
        return self._version
