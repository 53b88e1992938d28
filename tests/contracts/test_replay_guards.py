# SPDX-License-Identifier: Apache-2.0
"""One behaviour for every replay guard."""

import contextlib
import threading
from datetime import timedelta

import pytest
from tests.support.identity import FakeClock
from tests.support.redis_server import PROGRAM, RedisServer

from everyhop.tokens import MemoryReplayGuard

needs_redis = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="needs redis-server (make test-all installs it)"),
]


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(params=["memory", pytest.param("redis", marks=needs_redis)])
def guard(request, clock):
    if request.param == "memory":
        yield MemoryReplayGuard(clock)
        return
    from everyhop.providers.redis_replay import RedisReplayGuard

    with (
        contextlib.closing(RedisServer()) as server,
        contextlib.closing(RedisReplayGuard(server.url, clock=clock)) as one,
    ):
        yield one


@pytest.fixture
def end(clock):
    return int(clock.now().timestamp()) + 300


def test_once(guard, end):
    assert guard.use("a", end) is True
    for _ in range(3):
        assert guard.use("a", end) is False
    assert guard.use("b", end) is True


def test_a_name_is_compared_whole(guard, end):
    for name in ("a", "A", "a ", "a\0", "a:b", "é", "x" * 256, ""):
        assert guard.use(name, end) is True
        assert guard.use(name, end) is False


def test_another_end_does_not_make_it_another_name(guard, end):
    assert guard.use("a", end)
    assert guard.use("a", end + 100) is False
    assert guard.use("a", end - 100) is False


def test_what_is_over_is_never_the_first(guard, clock, end):
    clock.advance(timedelta(seconds=306))
    assert guard.use("a", end) is False
    assert guard.use("b", 0) is False


def test_within_the_skew_of_a_verifier_it_counts(guard, clock, end):
    clock.advance(timedelta(seconds=304))
    assert guard.use("a", end) is True
    assert guard.use("a", end) is False


def test_of_many_at_once_one_is_the_first(guard, end):
    barrier, results = threading.Barrier(16), []

    def run():
        barrier.wait()
        results.append([guard.use(f"n{n}", end) for n in range(10)])

    threads = [threading.Thread(target=run) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sum(column) for column in zip(*results, strict=True)] == [1] * 10
