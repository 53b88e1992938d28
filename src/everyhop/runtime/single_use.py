# SPDX-License-Identifier: Apache-2.0
"""Where single-use tokens are counted: in this process, or in Redis for all replicas of a service."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from everyhop.tokens.replay import MemoryReplayGuard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from everyhop.core.clock import Clock
    from everyhop.runtime.settings import Settings
    from everyhop.tokens.replay import ReplayGuard


def replay_guard(settings: Settings, clock: Clock) -> ReplayGuard:
    """Return the guard that the settings name; its ``use`` may block."""
    if not settings.redis_url:
        return MemoryReplayGuard(clock)
    from everyhop.providers.redis_replay import RedisReplayGuard

    return RedisReplayGuard(settings.redis_url, clock=clock)


def first_use(settings: Settings, clock: Clock) -> Callable[[str, int], Awaitable[bool]]:
    """Return what spends a token id until its end (epoch seconds): True for the first use only."""
    guard = replay_guard(settings, clock)
    if settings.redis_url:

        async def spend_shared(jti: str, expires_at: int) -> bool:
            return await asyncio.to_thread(guard.use, jti, expires_at)

        return spend_shared

    async def spend(jti: str, expires_at: int) -> bool:
        return guard.use(jti, expires_at)

    return spend
