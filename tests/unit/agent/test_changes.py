# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest

from everyhop.agent.changes import Changes


async def test_a_change_between_reading_and_waiting_is_not_missed():
    changes = Changes()
    version = changes.version
    changes.bump()
    assert await asyncio.wait_for(changes.beyond(version), 1) == 1


async def test_no_change_no_wake():
    changes = Changes()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await changes.beyond(0)


async def test_every_watcher_wakes():
    changes = Changes()
    watchers = [asyncio.create_task(changes.beyond(0)) for _ in range(20)]
    late = asyncio.create_task(changes.beyond(1))
    await asyncio.sleep(0)
    changes.bump()
    assert await asyncio.gather(*watchers) == [1] * 20
    assert not late.done()
    changes.bump()
    assert await late == 2
