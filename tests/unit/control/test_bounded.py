# SPDX-License-Identifier: Apache-2.0
"""Work with an end: who is stuck, who has not begun, and who is in time."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from everyhop.control.bounded import within
from everyhop.core.errors import Unavailable


@pytest.fixture
def gate():
    made = threading.Event()
    yield made
    made.set()


@pytest.fixture
def pool(gate):
    made = ThreadPoolExecutor(1)
    yield made
    gate.set()
    made.shutdown()


async def test_who_is_stuck_is_answered_and_so_is_everybody_behind_him(pool, gate):
    begun = []
    loop = asyncio.get_running_loop()
    start = loop.time()
    calls = [within(pool, gate.wait, seconds=0.1)]
    calls += [within(pool, begun.append, number, seconds=0.1) for number in range(5)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, Unavailable) and result.retry for result in results)
    assert loop.time() - start < 5
    gate.set()
    assert await within(pool, int, "7", seconds=20) == 7
    assert begun == []  # what had not begun never does


async def test_what_a_late_call_raises_disturbs_nobody(pool, gate):
    def late():
        gate.wait()
        raise ValueError

    with pytest.raises(Unavailable):
        await within(pool, late, seconds=0.05)
    gate.set()
    assert await within(pool, int, "7", seconds=20) == 7


async def test_what_a_call_raises_in_time_passes_through(pool):
    with pytest.raises(ValueError, match="x"):
        await within(pool, int, "x", seconds=20)
