# SPDX-License-Identifier: Apache-2.0
"""Detection against brute force: whatever the order, the pauses and the ages, the plain model says the same."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings, strategies as st
from tests.support.detecting import Watched, of_address, of_user, record, told
from tests.support.window_model import PlainWindows

from everyhop.anomaly.window import Crossing, Hit, MemoryWindows, Threshold

PAUSES = st.sampled_from([0, 1, 500, 1000, 999, 30_000, 59_999, 60_000, 61_000, 61_001]) | st.integers(
    0, 90_000
)
CALLS = st.lists(st.tuples(PAUSES, st.just(0) | st.integers(-1000, 70_000)), min_size=1, max_size=120)
LIMIT = st.none() | st.integers(1, 12)


@settings(max_examples=300)
@given(calls=CALLS, alert=LIMIT, block=LIMIT, block_ms=st.integers(1, 120_000), start=st.integers(0, 10**12))
def test_windows_count_as_the_model_that_remembers_every_call(calls, alert, block, block_ms, start):
    plain = PlainWindows(window=60_000, alert=alert, block=block, block_ms=block_ms)
    windows, limit = MemoryWindows(), Threshold(60_000.0, alert, block, float(block_ms))
    now = start
    for pause, age in calls:
        now += pause
        # In milliseconds on both sides: binary fractions of seconds would make edges of their own.
        (count,) = windows.count([Hit("s", limit, age)], now=now)
        assert count == plain.count(now, age)


WHO = st.sampled_from([(record, ()), (of_user, ("a",)), (of_user, ("b",)), (of_address, ("203.0.113.7",))])


@settings(max_examples=60)
@given(st.lists(st.tuples(WHO, st.integers(0, 40_000)), min_size=1, max_size=150))
def test_the_engine_speaks_when_the_model_does(steps):
    chapter = "{window: 1m, users: {alert: 4, block: 9, block_for: 30s}, addresses: {alert: 3, block: 3, block_for: 5s},"
    chapter += " services: {alert: 5, block: never, count: [denied]}, breaker: off}"
    watched = Watched(chapter)
    models = {
        "record": PlainWindows(window=60_000, alert=5, block=None, block_ms=1),
        "a": PlainWindows(window=60_000, alert=4, block=9, block_ms=30_000),
        "b": PlainWindows(window=60_000, alert=4, block=9, block_ms=30_000),
        "203.0.113.7": PlainWindows(window=60_000, alert=3, block=3, block_ms=5000),
    }
    milliseconds = 0
    for (make, arguments), pause in steps:
        milliseconds += pause - pause % 125  # eighths of a second are exact in binary
        watched.wall += timedelta(milliseconds=milliseconds - watched.now * 1000)
        watched.now = milliseconds / 1000
        name = arguments[0] if arguments else "record"
        crossing = models[name].count(milliseconds, 0).crossing
        expected = {None: [], Crossing.ALERT: [(1, "alert")], Crossing.BLOCK: [(1, "blocked")]}[crossing]
        found = watched.calls(1, make, *arguments)
        assert (
            told([one for one in found if name in str(one[1].finding.subject) or name == "record"])
            == expected
        )
