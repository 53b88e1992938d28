# SPDX-License-Identifier: Apache-2.0
"""Single use: of a thousand simultaneous uses one is the first, and no room means no."""

import threading
from datetime import timedelta

import pytest
from tests.support.identity import FakeClock
from tests.support.tokens import AT, KEYS, mint_access

from everyhop.core.errors import TokenError
from everyhop.tokens import MemoryReplayGuard, spend, verify_access_token
from everyhop.tokens.limits import EXPIRY_SKEW_SECONDS


def test_once_and_not_again_until_everything_is_over():
    clock = FakeClock()
    guard = MemoryReplayGuard(clock)
    assert guard.use("a", AT + 10)
    assert guard.use("b", AT + 10)
    assert not guard.use("a", AT + 10)
    assert not guard.use("a", AT + 1000)
    clock.advance(timedelta(seconds=10 + EXPIRY_SKEW_SECONDS - 1))
    assert not guard.use("a", AT + 1000)
    clock.advance(timedelta(seconds=1))
    assert guard.use("c", AT + 1000)
    assert guard.size == 1


def test_what_is_over_is_never_first():
    clock = FakeClock()
    guard = MemoryReplayGuard(clock)
    assert not guard.use("a", AT - EXPIRY_SKEW_SECONDS)
    assert guard.size == 0


def test_full_of_live_names_it_fails_closed():
    clock = FakeClock()
    guard = MemoryReplayGuard(clock, max_entries=3)
    assert [guard.use(str(n), AT + 10) for n in range(5)] == [True, True, True, False, False]
    assert guard.refused_full == 2
    clock.advance(timedelta(seconds=20))
    assert guard.use("3", AT + 60)


def test_one_winner_under_threads():
    guard = MemoryReplayGuard(FakeClock())
    wins, start = [], threading.Barrier(16)

    def race():
        start.wait(10)
        wins.extend(n for n in range(200) if guard.use(f"j{n}", AT + 60))

    threads = [threading.Thread(target=race) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(wins) == list(range(200))


@pytest.mark.parametrize("answer", [False, None, 1, OSError("store away")])
def test_only_a_certain_first_use_spends(answer):
    class Guard:
        def use(self, jti, expires_at):
            if isinstance(answer, Exception):
                raise answer
            return answer

    from tests.support.identity import NOW
    from tests.support.tokens import ISSUER

    token = verify_access_token(mint_access(), KEYS, issuer=ISSUER, now=NOW)
    with pytest.raises(TokenError) as refusal:
        spend(token, Guard())
    assert refusal.value.token_code == "TOKEN_REPLAYED"
