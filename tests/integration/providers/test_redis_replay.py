# SPDX-License-Identifier: Apache-2.0
"""Single use across replicas, on a real Redis: races, outages, and what it must not forget."""

import contextlib
import threading
import time

import pytest
from tests.support.identity import FakeClock
from tests.support.redis_server import PROGRAM, RedisServer

from everyhop.core.errors import SettingsError, TokenError, Unavailable
from everyhop.providers.redis_replay import MARGIN_SECONDS, RedisReplayGuard
from everyhop.tokens import AccessToken, spend

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="needs redis-server (make test-all installs it)"),
]


@pytest.fixture
def server():
    with contextlib.closing(RedisServer()) as one:
        yield one


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(server, clock):
    with contextlib.ExitStack() as stack:
        yield lambda **more: stack.enter_context(
            contextlib.closing(RedisReplayGuard(server.url, clock=clock, **more))
        )


@pytest.fixture
def end(clock):
    return int(clock.now().timestamp()) + 300


def token(end):
    return AccessToken(
        issuer="i",
        subject="s",
        client_id="s",
        audience="a",
        scope=frozenset(),
        jti="j",
        issued_at=end - 300,
        expires_at=end,
        kid="k",
    )


def test_two_replicas_with_32_threads_each_race_for_one_token(make, end):
    for round_ in range(20):
        replicas = [make(), make()]
        barrier, results = threading.Barrier(64), []

        def run(guard, name=f"jti-{round_}", barrier=barrier, results=results):
            barrier.wait()
            results.append(guard.use(name, end))

        threads = [threading.Thread(target=run, args=(guard,)) for guard in replicas for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == [False] * 63 + [True]


def test_without_redis_nothing_is_let_through(make, server, end):
    guard = make()
    assert guard.use("a", end)
    server.stop()
    for _ in range(3):
        with pytest.raises(Unavailable):
            guard.use("b", end)
    with pytest.raises(TokenError) as caught:
        spend(token(end), guard)
    assert caught.value.token_code == "TOKEN_REPLAYED"
    with pytest.raises(Unavailable):
        guard.check()
    server.start()
    assert guard.use("b", end)  # it finds its way back by itself


def test_a_redis_that_hangs(make, server, end):
    import signal

    guard = make(timeout_seconds=0.2)
    assert guard.use("a", end)
    server.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            guard.use("b", end)
        assert time.monotonic() - began < 5
    finally:
        server.process.send_signal(signal.SIGCONT)
    # Whether that command was done is not known; the token is not taken a second time on a guess.
    assert guard.use("b", end) in {True, False}
    assert guard.use("b", end) is False


def test_an_entry_outlives_the_token_and_then_goes(make, clock, end):
    import redis

    guard = make()
    guard.use("a", end)
    client = guard._redis
    assert isinstance(client, redis.Redis)
    (key,) = client.keys("*")
    assert 305 < client.ttl(key) <= 306 + MARGIN_SECONDS
    assert key.startswith(b"everyhop:jti:")
    assert b":a" not in key[-3:]


def test_trust_domains_that_share_a_redis(make, end):
    one, other = make(namespace="one"), make(namespace="other")
    assert one.use("a", end)
    assert other.use("a", end)
    assert not make(namespace="one").use("a", end)


def test_a_redis_that_may_forget(make):
    guard = make()
    guard.check()
    guard._redis.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(SettingsError, match="evict"):
        guard.check()


def test_a_redis_that_does_not_tell(server, make):
    guard = make()
    guard._redis.acl_setuser("default", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-config"])
    guard.check()


def test_a_full_redis_refuses(make, end):
    guard = make()
    guard._redis.config_set("maxmemory", "1")
    with pytest.raises(Unavailable):
        guard.use("a", end)


@pytest.mark.parametrize("url", ["", "ftp://user:word@host", "redis://host:port:x/0", "http://x"])
def test_addresses_that_are_none(url, clock):
    with pytest.raises(SettingsError) as caught:
        RedisReplayGuard(url, clock=clock)
    assert "word" not in str(caught.value)


def test_a_password_is_in_no_message(clock, end):
    guard = RedisReplayGuard("redis://user:pass-word@127.0.0.1:1/0", clock=clock)
    with pytest.raises(Unavailable) as caught:
        guard.use("a", end)
    assert "pass-word" not in repr(caught.value) + repr(guard) + repr(vars(guard)["_clock"])
    assert caught.value.__cause__ is None
