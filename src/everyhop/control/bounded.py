# SPDX-License-Identifier: Apache-2.0
"""Blocking work with an end: whoever asks is answered in time, whatever the database does.

A call that has not begun by then never does.  One that has goes on, and what it gives is dropped: it may be on record,
and nobody was handed anything.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from everyhop.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

T = TypeVar("T")

EFFECT_SECONDS: Final = 2.0
"""What has to be recorded before it takes effect is recorded within this time, or refused."""


async def within(
    pool: Executor, call: Callable[..., T], /, *args: object, seconds: float = EFFECT_SECONDS
) -> T:
    """Return what ``call`` returns in a thread of ``pool``.

    Raises Unavailable after ``seconds``, waiting for a thread included; what ``call`` raises passes through.
    """
    future = asyncio.get_running_loop().run_in_executor(pool, partial(call, *args))
    done, _ = await asyncio.wait([future], timeout=seconds)
    if done:
        return future.result()
    future.cancel()
    future.add_done_callback(_forget)
    raise Unavailable(
        "not recorded in time, so nothing was handed out", hint="the database is slow or locked"
    )


def _forget(future: asyncio.Future[T]) -> None:
    """Look at an error that nobody waits for, so that it is not reported as forgotten."""
    if not future.cancelled():
        future.exception()
