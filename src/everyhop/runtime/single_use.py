# SPDX-License-Identifier: Apache-2.0
"""Where single-use tokens are counted: in this process, or in Redis for all replicas of a service."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from everyhop.core.errors import TokenError
from everyhop.tokens.codes import TokenCode
from everyhop.tokens.replay import MemoryReplayGuard
from everyhop.tokens.verifier import spend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from everyhop.core.clock import Clock
    from everyhop.runtime.settings import Settings
    from everyhop.tokens.access import AccessToken
    from everyhop.tokens.replay import ReplayGuard


def replay_guard(settings: Settings, clock: Clock) -> ReplayGuard:
    """Return the guard that the settings name; its ``use`` may block.

    Raises SettingsError for an address of Redis that does not parse.
    """
    if not settings.redis_url:
        return MemoryReplayGuard(clock)
    from everyhop.providers.redis_replay import RedisReplayGuard

    return RedisReplayGuard(settings.redis_url, clock=clock)


def single_use(settings: Settings, clock: Clock) -> Callable[[AccessToken], Awaitable[None]]:
    """Return what uses a token up; it raises TokenError unless that was certainly the first use."""
    guard = replay_guard(settings, clock)
    begun = math.ceil(clock.now().timestamp())

    async def spend_here(token: AccessToken) -> None:
        if token.issued_at < begun:  # the memory of what was used then ended with the process before
            raise TokenError(TokenCode.TOKEN_REPLAYED, "the token is older than the memory of used ones")
        spend(token, guard)

    async def spend_shared(token: AccessToken) -> None:
        await asyncio.to_thread(spend, token, guard)  # it waits for the network

    return spend_shared if settings.redis_url else spend_here
