# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest
from tests.support.workloads import AuthorityForTests, FakeClock, FakeControlPlane, spiffe_id

from everyhop.agent.tokens import TokenCache
from everyhop.core.errors import Unavailable

ORDERS = spiffe_id("orders")


@pytest.fixture
def world():
    clock = FakeClock()
    control = FakeControlPlane(AuthorityForTests(clock))
    return clock, control, TokenCache(control=control, clock=clock, max_tokens=3)


async def test_another_audience_or_identity_is_another_token(world):
    _, control, cache = world
    one = await cache.jwt(ORDERS, ("a",))
    assert (await cache.jwt(ORDERS, ("b",))).token != one.token
    assert (await cache.jwt(spiffe_id("payments"), ("a",))).token != one.token
    assert (await cache.jwt(ORDERS, ("a", "b"))).token != one.token
    assert len(control.jwt_calls) == 4


async def test_shared_for_half_of_its_life(world):
    clock, control, cache = world
    one = await cache.jwt(ORDERS, ("a", "b"))
    clock.advance(seconds=149)
    assert await cache.jwt(ORDERS, ("b", "a")) is one
    clock.advance(seconds=2)
    assert (await cache.jwt(ORDERS, ("a", "b"))).token != one.token
    assert len(control.jwt_calls) == 2


async def test_server_down(world):
    clock, control, cache = world
    control.down = True
    with pytest.raises(Unavailable):
        await cache.jwt(ORDERS, ("a",))
    control.down = False
    one = await cache.jwt(ORDERS, ("a",))
    control.down = True
    clock.advance(seconds=299)
    assert await cache.jwt(ORDERS, ("a",)) is one
    clock.advance(seconds=1)
    with pytest.raises(Unavailable):
        await cache.jwt(ORDERS, ("a",))


async def test_the_cache_is_bounded(world):
    clock, _, cache = world
    for number in range(10):
        await cache.jwt(ORDERS, (f"audience-{number}",))
    assert len(cache) == 3
    clock.advance(minutes=6)
    await cache.jwt(ORDERS, ("new",))
    assert len(cache) == 1  # the expired go first


async def test_concurrent_askers_share_one_call_and_one_may_leave(world):
    _, control, cache = world
    control.gate = asyncio.Event()
    asking = [asyncio.create_task(cache.jwt(ORDERS, ("a",))) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0)
    control.gate.set()
    tokens = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(tokens[0], asyncio.CancelledError)
    assert len({token.token for token in tokens[1:]}) == 1
    assert len(control.jwt_calls) == 1


async def test_a_token_whose_key_is_withdrawn_is_forgotten(world):
    _, control, cache = world
    authority = control.authority
    one = await cache.jwt(ORDERS, ("a",))
    cache.keep_only(authority.bundle())
    assert await cache.jwt(ORDERS, ("a",)) is one
    authority.rotate()
    del authority.jwt_keys["jwt-1"]
    cache.keep_only(authority.bundle())
    assert (await cache.jwt(ORDERS, ("a",))).token != one.token


async def test_a_token_never_shows_in_a_repr(world):
    token = await world[2].jwt(ORDERS, ("a",))
    assert token.token not in repr(token)
