# SPDX-License-Identifier: Apache-2.0
"""Blocking work of a door on threads of its own, with an end to how much of it waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from everyhop.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

T = TypeVar("T")


class BoundedWork:
    """Runs calls on a pool, ``most`` of them at a time, those that wait for a thread included.

    Used from one event loop.
    """

    def __init__(self, pool: Executor, most: int, refusal: str) -> None:
        """``refusal`` is what is told to those who are too many."""
        self._pool = pool
        self._most = most
        self._refusal = refusal
        self._waiting = 0

    async def __call__(self, call: Callable[[], T]) -> T:
        """Return what ``call`` returns; raises Unavailable at once where too many wait, and what ``call`` raises."""
        if self._waiting >= self._most:
            raise Unavailable(self._refusal)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        finally:
            self._waiting -= 1
