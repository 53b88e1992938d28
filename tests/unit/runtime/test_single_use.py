# SPDX-License-Identifier: Apache-2.0
"""A token for one call: good once, and never when it could have been used before this process began."""

from types import SimpleNamespace

import pytest
from tests.support.workloads import FakeClock

from everyhop.core.errors import SettingsError, TokenError
from everyhop.runtime.settings import Settings
from everyhop.runtime.single_use import single_use


def token(clock, *, age=0, jti="j1"):
    issued_at = int(clock.now().timestamp()) - age
    return SimpleNamespace(jti=jti, issued_at=issued_at, expires_at=issued_at + 300)


async def refused(spending):
    with pytest.raises(TokenError) as caught:
        await spending
    return caught.value.token_code


async def test_a_token_is_used_once():
    clock = FakeClock()
    spend = single_use(Settings(), clock)
    await spend(token(clock))
    assert await refused(spend(token(clock))) == "TOKEN_REPLAYED"
    await spend(token(clock, jti="j2"))


async def test_what_was_issued_before_the_start_cannot_be_known_to_be_unused():
    clock = FakeClock()
    spend = single_use(Settings(), clock)
    assert await refused(spend(token(clock, age=1))) == "TOKEN_REPLAYED"


async def test_with_redis_the_memory_outlives_the_process_and_its_absence_refuses():
    clock = FakeClock()
    spend = single_use(Settings(redis_url="redis://127.0.0.1:1"), clock)
    assert await refused(spend(token(clock, age=1))) == "TOKEN_REPLAYED"
    with pytest.raises(SettingsError):
        single_use(Settings(redis_url="nonsense"), clock)
