# SPDX-License-Identifier: Apache-2.0
"""One behaviour for every implementation of sliding windows: of this process, and shared in Redis."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import time

import pytest
from tests.support.redis_server import PROGRAM, RedisServer
from tests.support.window_model import PlainWindows

from everyhop.anomaly.twin import TwinWindows
from everyhop.anomaly.window import NOTHING, Count, Crossing, Hit, Look, MemoryWindows, Threshold
from everyhop.core.errors import Unavailable

needs_redis = pytest.mark.skipif(PROGRAM is None, reason="needs redis-server (make test-all installs it)")
USUAL = Threshold(300.0, 100, 500, 3600.0)


class Bench:
    """An implementation with a clock of its own, in seconds."""

    def __init__(self, make):
        self.now = 1_000_000.0
        self.windows = make(self)

    def hit(self, key="s", *, age=0.0, position=0, limit=USUAL):
        (count,) = self.windows.count([Hit(key, limit, age, position)], now=self.now)
        return count

    def hits(self, n, key="s", **options):
        return [self.hit(key, **options) for _ in range(n)]

    def look(self, key="s", limit=USUAL):
        return self.windows.look(key, limit.window, now=self.now)


@pytest.fixture(scope="module")
def redis_server():
    with contextlib.closing(RedisServer()) as server:
        yield server


@pytest.fixture(params=["memory", pytest.param("redis", marks=needs_redis)])
def bench(request):
    if request.param == "memory":
        yield Bench(lambda _: MemoryWindows())
        return
    with contextlib.closing(shared(request.getfixturevalue("redis_server"), request.node.name)) as made:
        yield made


def shared(server, name, *, now=None, timeout_seconds=5.0):
    from everyhop.providers.redis_windows import RedisWindows

    def make(bench):
        clock = (lambda: round(bench.now * 1000)) if now is None else now
        return RedisWindows(server.url, namespace=name, now_ms=clock, timeout_seconds=timeout_seconds)

    found = Bench(make)
    found.close = found.windows.close
    return found


def crossings(counts):
    return [(n, count.crossing) for n, count in enumerate(counts, 1) if count.crossing is not None]


def test_alert_at_exactly_100_and_block_at_exactly_500(bench):
    counts = bench.hits(520)
    assert crossings(counts) == [(100, Crossing.ALERT), (500, Crossing.BLOCK)]
    assert [count.n for count in counts[:500]] == list(range(1, 501))
    assert counts[500:] == [NOTHING] * 20


def test_one_short_of_a_threshold_is_nothing(bench):
    assert crossings(bench.hits(99)) == []
    assert crossings(bench.hits(400)) == [(1, Crossing.ALERT)]
    assert bench.look() == Look(499, alerted=True, blocked_for=0.0)


def test_subjects_do_not_share(bench):
    for key in ("a", "b", "a\0", "A", "é", "a" * 600):
        assert crossings(bench.hits(100, key)) == [(100, Crossing.ALERT)]


def test_of_both_at_once_the_block_is_told(bench):
    limit = Threshold(300.0, 3, 3, 60.0)
    assert [count.crossing for count in bench.hits(3, limit=limit)] == [None, None, Crossing.BLOCK]


def test_never_is_never(bench):
    assert crossings(bench.hits(600, limit=Threshold(300.0, None, None))) == []
    assert crossings(bench.hits(600, "b", limit=Threshold(300.0, 100, None))) == [(100, Crossing.ALERT)]
    assert crossings(bench.hits(501, "c", limit=Threshold(300.0, None, 500))) == [(500, Crossing.BLOCK)]


def test_what_is_older_than_the_window_is_forgotten_and_nothing_sooner(bench):
    bench.hits(99)
    bench.now += 299.9
    assert bench.hit() == Count(100, Crossing.ALERT)
    bench.now += 5.2  # the first bucket is over now: 99 calls go, the one of before stays
    assert bench.hit() == Count(2)


def test_an_episode_is_told_once(bench):
    limit = Threshold(300.0, 10, None)
    told = 0
    for _ in range(58):  # two seconds between calls: 150 in a window, all the time
        told += len(crossings(bench.hits(1, limit=limit)))
        bench.now += 2
    assert told == 1


def test_another_episode_is_told_again(bench):
    limit = Threshold(300.0, 10, None)
    assert crossings(bench.hits(12, limit=limit)) == [(10, Crossing.ALERT)]
    bench.now += 310  # all forgotten: below half of it
    assert crossings(bench.hits(12, limit=limit)) == [(10, Crossing.ALERT)]


def test_above_half_it_is_the_same_episode(bench):
    limit = Threshold(300.0, 10, None)
    bench.hits(5, limit=limit)
    bench.now += 150
    assert crossings(bench.hits(5, limit=limit)) == [(5, Crossing.ALERT)]
    bench.now += 160  # the first five are gone, five are left
    assert crossings(bench.hits(7, limit=limit)) == []


def test_after_a_window_what_goes_on_is_told_again(bench):
    limit = Threshold(300.0, 10, None)
    counts = []
    for _ in range(700):
        counts.append(bench.hit(limit=limit))
        bench.now += 1
    assert crossings(counts) == [(10, Crossing.ALERT), (310, Crossing.ALERT), (610, Crossing.ALERT)]


def test_a_block_is_not_extended_and_ends_at_zero(bench):
    bench.hits(500)
    for _ in range(36):
        assert bench.hit() == NOTHING
        bench.now += 99.9
    assert bench.look().blocked_for == pytest.approx(3.6, abs=0.001)
    bench.now += 3.61
    assert bench.look() == Look(0, alerted=False, blocked_for=0.0)
    assert crossings(bench.hits(500)) == [(100, Crossing.ALERT), (500, Crossing.BLOCK)]


def test_what_was_before_the_end_of_a_block_counts_never(bench):
    limit = Threshold(300.0, 100, 500, 10.0)
    bench.hits(500, limit=limit)
    bench.now += 11
    assert bench.hit(age=1.5, limit=limit) == NOTHING
    assert bench.hit(age=0.5, limit=limit) == Count(1)


def test_a_backlog_counts_by_the_age_of_each_call(bench):
    assert bench.hits(1000, age=306) == [NOTHING] * 1000
    assert bench.hits(1000, age=7200) == [NOTHING] * 1000
    assert bench.hit() == Count(1)
    # an outage of ten minutes, one call in four seconds: never more than 76 in any window
    ages = [600 - 4 * n for n in range(150)]
    assert crossings([bench.hit("b", age=age) for age in ages]) == []


def test_a_call_of_the_future_is_of_now(bench):
    assert bench.hit(age=-3600) == Count(1)
    bench.now += 306
    assert bench.hit() == Count(1)


def test_a_position_counts_once(bench):
    assert [bench.hit(position=n).n for n in (1, 2, 2, 1, 3)] == [1, 2, 0, 0, 3]
    assert bench.hit().n == 4


def test_a_position_counts_once_over_a_block_too(bench):
    limit = Threshold(300.0, None, 2, 1.0)
    bench.hit(position=1, limit=limit)
    bench.hit(position=2, limit=limit)
    assert bench.hit(position=3, limit=limit) == NOTHING
    bench.now += 2
    assert [bench.hit(position=n, limit=limit).n for n in (1, 3, 4)] == [0, 0, 1]


def test_what_crossed_is_told_again_when_it_comes_again(bench):
    limit = Threshold(300.0, 2, 4, 60.0)
    told = [bench.hit(position=n, limit=limit) for n in (1, 2, 2, 1, 3, 4, 2, 4, 5, 4)]
    again = Count(4, Crossing.BLOCK)
    assert told == [
        Count(1), Count(2, Crossing.ALERT), Count(2, Crossing.ALERT), NOTHING, Count(3), again, NOTHING, again, NOTHING, again
    ]  # fmt: skip
    bench.windows.release("s", now=bench.now)
    assert bench.hit(position=4, limit=limit) == NOTHING


def test_released_is_begun_anew(bench):
    bench.hits(500)
    bench.windows.release("s", now=bench.now)
    bench.windows.release("nobody", now=bench.now)
    assert bench.hit(age=0.001) == NOTHING
    assert crossings(bench.hits(500)) == [(100, Crossing.ALERT), (500, Crossing.BLOCK)]


def test_a_block_from_elsewhere_is_held(bench):
    bench.windows.hold("s", 10.0, now=bench.now)
    bench.windows.hold("s", 5.0, now=bench.now)  # never shorter
    assert bench.hit() == NOTHING
    assert bench.look().blocked_for == pytest.approx(10.0, abs=0.01)
    bench.now += 10.5
    assert bench.hit(age=1) == NOTHING
    assert bench.hit() == Count(1)


def test_another_window_begins_anew_and_keeps_the_block(bench):
    bench.hits(99)
    other = Threshold(60.0, 100, 500, 60.0)
    assert bench.hit(limit=other) == Count(1)
    bench.hits(499, limit=other)
    assert bench.hit() == NOTHING


def test_one_at_a_time_and_many_at_once_are_the_same(bench):
    hits = [Hit(key, USUAL) for _ in range(520) for key in ("a", "b")]
    counts = bench.windows.count(hits, now=bench.now)
    for first in (0, 1):
        assert crossings(counts[first::2]) == [(100, Crossing.ALERT), (500, Crossing.BLOCK)]


@pytest.mark.parametrize("seed", range(3))
def test_as_the_plain_model_says(bench, seed):
    chance = random.Random(seed)
    alert, block = chance.choice([(3, 9), (5, 5), (4, None), (None, 6)])
    limit = Threshold(60.0, alert, block, 20.0)
    plain = PlainWindows(window=60_000, alert=alert, block=block, block_ms=20_000)
    for _ in range(600):
        bench.now = round(bench.now + chance.choice([0, 0.001, 0.5, 1, 7, 30 * chance.random(), 61]), 3)
        age = round(chance.choice([0, 0, 0.5, 30, 59.9, 60.5, 61, 65, -5]), 3)
        expected = plain.count(round(bench.now * 1000), round(age * 1000))
        assert bench.hit(age=age, limit=limit) == expected


# -- this process only


def test_a_clock_that_steps_back_moves_nothing():
    bench = Bench(lambda _: MemoryWindows())
    bench.hits(99)
    bench.now -= 10_000
    assert bench.hit() == Count(100, Crossing.ALERT)
    bench.now += 10_000
    assert bench.hit() == Count(101)


def test_memory_is_bounded_and_says_what_it_forgot():
    windows = MemoryWindows(max_subjects=100)
    for n in range(1000):
        windows.count([Hit("busy", USUAL), Hit(f"s{n}", USUAL)], now=float(n) / 1000)
    assert (len(windows), windows.evicted) == (100, 901)
    assert windows.look("busy", 300.0, now=1.0).n == 0  # 1,000 calls: blocked long ago
    assert windows.look("busy", 300.0, now=1.0).blocked_for > 0


# -- Redis only


@needs_redis
def test_a_chunk_of_many_and_long_pages_are_in_order(redis_server):
    with contextlib.closing(shared(redis_server, "long")) as bench:
        hits = [Hit(f"s{n % 7}", USUAL, 0.0, n + 1) for n in range(4000)]
        counts = bench.windows.count(hits, now=0.0)
        for first in range(7):
            assert crossings(counts[first::7]) == [(100, Crossing.ALERT), (500, Crossing.BLOCK)]
            assert [count.n for count in counts[first::7]][:500] == list(range(1, 501))
        again = bench.windows.count(hits, now=0.0)
        assert [(n, c.crossing) for n, c in enumerate(again) if c.n] == [
            (n, c.crossing) for n, c in enumerate(counts) if c.crossing is Crossing.BLOCK
        ]


@needs_redis
def test_two_clients_have_one_count(redis_server):
    name = "two"
    with (
        contextlib.closing(shared(redis_server, name)) as one,
        contextlib.closing(shared(redis_server, name)) as two,
    ):
        counts = [bench.hit() for bench in itertools.islice(itertools.cycle((one, two)), 520)]
        assert crossings(counts) == [(100, Crossing.ALERT), (500, Crossing.BLOCK)]
        assert two.look().blocked_for > 0


@needs_redis
def test_two_clients_at_once_have_one_count(redis_server):
    import threading

    found, barrier = [], threading.Barrier(2)

    def run():
        with contextlib.closing(shared(redis_server, "at once")) as bench:
            barrier.wait()
            counts = [bench.windows.count([Hit("s", USUAL)] * 10, now=0.0) for _ in range(26)]
            found.extend(count for chunk in counts for count in chunk)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = sorted((count.n, count.crossing) for count in found if count.crossing)
    assert told == [(100, Crossing.ALERT), (500, Crossing.BLOCK)]
    assert sorted(count.n for count in found if count.n) == list(range(1, 501))


@needs_redis
def test_a_subject_is_one_small_hash_that_goes_by_itself(redis_server):
    import redis

    client = redis.Redis.from_url(redis_server.url)
    with contextlib.closing(shared(redis_server, "size")) as bench:
        for _ in range(400):
            bench.hit(limit=Threshold(300.0, None, None))
            bench.now += 1
        (key,) = client.scan_iter(match="size:*")
        assert key.count(b"{") == key.count(b"}") == 1
        assert client.hlen(key) <= 61 + 10
        assert client.memory_usage(key) < 2048
        assert 290_000 < client.pttl(key) <= 306_000
        bench.hits(1, limit=Threshold(300.0, None, 1, 3600.0))
        assert 3_890_000 < client.pttl(key) <= 3_906_000
        bench.windows.hold("t", 60.0, now=0.0)
        bench.windows.release("u", now=0.0)
        assert all(client.pttl(key) > 0 for key in client.scan_iter(match="size:*"))
    client.close()


@needs_redis
def test_the_time_of_the_server_is_what_counts(redis_server):
    with contextlib.closing(shared(redis_server, "time", now=lambda: 0)) as bench:
        bench.now = 5.0
        assert bench.hit(age=299.0) == Count(1)
        assert bench.hit(age=310.0) == NOTHING


@needs_redis
def test_a_flush_is_a_new_beginning_and_no_error(redis_server):
    import redis

    client = redis.Redis.from_url(redis_server.url)
    with contextlib.closing(shared(redis_server, "flush")) as bench:
        bench.hits(99)
        client.flushall()
        client.script_flush()
        assert crossings(bench.hits(100)) == [(100, Crossing.ALERT)]
    client.close()


class Outages(list):
    """What a twin told of its outages."""


@pytest.fixture
def own_server():
    with contextlib.closing(RedisServer()) as server:
        yield server


def twin_of(server, name, told, **options):
    from everyhop.providers.redis_windows import RedisWindows

    bench = Bench(
        lambda b: TwinWindows(
            RedisWindows(server.url, namespace=name, now_ms=lambda: int(b.now * 1000)),
            told=told.append,
            **options,
        )
    )
    bench.close = bench.windows._shared.close
    return bench


@needs_redis
def test_killed_it_goes_on_alone_and_says_so_once(own_server):
    told = Outages()
    with contextlib.closing(twin_of(own_server, "kill", told)) as bench:
        bench.hits(99)
        own_server.process.kill()
        own_server.process.wait(10)
        counts = bench.hits(421)
        assert crossings(counts) == [(1, Crossing.ALERT), (401, Crossing.BLOCK)]
        assert told == [True]
        bench.now += 10
        bench.hits(5, "b")
        assert told == [True]
        own_server.socket.unlink(missing_ok=True)
        own_server.start()
        bench.now += 60
        bench.hit("b")
        assert told == [True, False]


@needs_redis
def test_frozen_it_costs_fifty_milliseconds_and_then_nothing(own_server):
    told = Outages()
    with contextlib.closing(twin_of(own_server, "freeze", told)) as bench:
        bench.hit()
        os.kill(own_server.process.pid, signal.SIGSTOP)
        try:
            before = time.monotonic()
            bench.hits(200)
            took = time.monotonic() - before
        finally:
            os.kill(own_server.process.pid, signal.SIGCONT)
        assert took < 0.5  # one timeout of 0.05 s and a busy machine; 200 of them would be ten seconds
        assert told == [True]
        for _ in range(100):  # fifty milliseconds are not much on a busy machine
            bench.now += 60
            bench.hit()
            if told == [True, False]:
                break
        assert told == [True, False]


# -- the twin, with something that fails on demand


class Flaky:
    """Counts like memory, unless it is told to fail."""

    def __init__(self):
        self.windows = MemoryWindows()
        self.is_down = False
        self.asked = 0

    def __getattr__(self, name):
        def call(*arguments, **options):
            self.asked += 1
            if self.is_down:
                raise Unavailable("down")
            return getattr(self.windows, name)(*arguments, **options)

        return call


def flaky(**options):
    told, far = Outages(), Flaky()
    return Bench(lambda _: TwinWindows(far, told=told.append, **options)), far, told


def test_the_breaker_waits_longer_each_time_and_recovers():
    bench, far, told = flaky()
    far.is_down = True
    asked = []
    for _ in range(200):
        before = far.asked
        bench.hit()
        asked.append(far.asked - before)
        bench.now += 1
    times = [second for second, n in enumerate(asked) if n]
    assert times == [0, 1, 3, 7, 15, 31, 61, 91, 121, 151, 181]
    assert told == [True]
    far.is_down = False
    bench.now += 30
    bench.hit()
    assert told == [True, False]


def test_alone_each_of_three_has_a_third():
    bench, far, _ = flaky(replicas=3)
    far.is_down = True
    assert crossings(bench.hits(200)) == [(34, Crossing.ALERT), (167, Crossing.BLOCK)]


def test_alone_it_may_also_count_nothing():
    bench, far, _ = flaky(counts_alone=lambda: False)
    far.is_down = True
    assert bench.hits(600) == [NOTHING] * 600


def test_known_blocks_are_kept_in_an_outage():
    bench, far, _ = flaky()
    bench.windows.hold("s", 100.0, now=bench.now)
    far.is_down = True
    bench.windows.hold("t", 100.0, now=bench.now)
    assert bench.hit("s") == bench.hit("t") == NOTHING
    assert bench.look("t").blocked_for == pytest.approx(100)
    bench.windows.release("t", now=bench.now)
    assert bench.hit("t") == Count(1)
