# SPDX-License-Identifier: Apache-2.0
"""Unusual hours, and more calls than usual: with season, and never a block."""

from __future__ import annotations

import random

import pytest
from tests.unit.anomaly.detectors.acts import act, at_edge, feed, feed_with_restarts, later

from everyhop.anomaly import Severity
from everyhop.anomaly.detectors import UnusualHour, VolumeDetector
from everyhop.anomaly.detectors._statistics import count_spread, smoothed, spread
from everyhop.anomaly.detectors.settings import UnusualHour as HourSettings, Volume as VolumeSettings
from everyhop.anomaly.detectors.volume import MAX_DAYS, MAX_WEEKS, WEEK, Series
from everyhop.anomaly.finding import Action


def hours():
    return UnusualHour(HourSettings())


def office(days, *, user="alice"):
    """Calls at nine, eleven and three on working days; day 0 is a Monday and ``later`` counts from nine."""
    return [
        at_edge(later(days=day, hours=hour), user=user)
        for day in range(days)
        if day % 7 < 5
        for hour in (0, 2, 6)
    ]


def test_the_middle_of_the_night_is_unusual_once_a_day():
    seen = [*office(21), *(at_edge(later(days=21, hours=-6, minutes=n), user="alice") for n in range(30))]
    (found,) = feed(hours(), seen)
    assert (found.detector, found.severity, str(found.subject)) == (
        "unusual-hour",
        Severity.LOW,
        "user:alice",
    )
    assert "active at 03h UTC" in found.title
    assert found.observed < found.threshold < found.baseline


@pytest.mark.parametrize(
    "more",
    [
        [at_edge(later(days=21, hours=-1), user="alice")],  # an hour early
        [at_edge(later(days=21, hours=8), user="alice")],  # two hours late
        [at_edge(later(days=21, hours=-6), user="alice", reason="user-not-permitted")],
        [at_edge(later(days=21, hours=-6), user="somebody new")],
    ],
    ids=["early", "late", "refused", "new"],
)
def test_it_is_not_unusual(more):
    assert feed(hours(), [*office(21), *more]) == []


def test_nothing_is_said_before_there_is_a_history():
    assert feed(hours(), [*office(10), at_edge(later(days=12, hours=-6), user="alice")]) == []


def test_whoever_is_there_at_all_hours_has_no_unusual_one():
    seen = [act(later(days=day, hours=hour)) for day in range(20) for hour in range(24)]
    assert feed(hours(), seen) == []


def test_an_hour_that_becomes_a_habit_is_not_told_for_ever():
    nights = [at_edge(later(days=21 + day, hours=-6), user="alice") for day in range(0, 21, 7)]
    assert len(feed(hours(), [*office(21), *nights])) < 3


def test_a_restart_keeps_the_habits():
    seen = [*office(21), at_edge(later(days=21, hours=-6), user="alice")]
    assert len(feed_with_restarts(hours, seen)) == 1


# --- volume


def volume():
    return VolumeDetector(VolumeSettings())


def busy(days, *, seed=1, more=()):
    """Counts by hour: a day's wave, half of it on weekends; ``more`` adds to (day, hour)."""
    rng, extra = random.Random(seed), dict(more)
    seen = []
    for day in range(days):
        for hour in range(24):
            mean = (60 if 2 <= hour <= 10 else 15) * (0.5 if day % 7 >= 5 else 1)
            count = max(0, round(rng.gauss(mean, mean**0.5))) + extra.get((day, hour), 0)
            seen += [act(later(days=day, hours=hour, seconds=3599 * i / count)) for i in range(count)]
    return seen


@pytest.fixture(scope="module")
def quiet():
    return busy(24)


def test_a_quiet_month_is_quiet(quiet):
    assert feed(volume(), quiet) == []


def test_a_copied_store_is_found_within_its_hour_and_asks_for_no_block():
    seen = busy(24, more=[((23, 15), 300)])
    (found,) = feed(volume(), seen)
    assert (found.detector, found.action, found.severity) == ("volume", Action.ALERT, Severity.MEDIUM)
    assert found.observed > found.threshold > found.baseline
    assert found.last < later(days=23, hours=15, minutes=40)
    assert len(found.evidence) == 16


def test_what_is_usual_at_the_peak_is_found_at_night():
    seen = busy(24, more=[((23, 18), 60)])
    (found,) = feed(volume(), seen)
    assert found.baseline == pytest.approx(15, abs=6)


def test_an_episode_of_several_hours_is_told_once():
    assert len(feed(volume(), busy(24, more=[((23, hour), 400) for hour in range(12, 18)]))) == 1


def test_growth_for_days_is_told_once_and_then_usual():
    more = [((day, hour), 130) for day in range(18, 24) for hour in range(24)]
    assert 1 <= len(feed(volume(), busy(24, more=more))) <= 4


def test_few_calls_are_never_a_volume():
    seen = [act(later(days=day, hours=3)) for day in range(20)]
    seen += [act(later(days=20, hours=5, seconds=n)) for n in range(45)]
    assert feed(volume(), seen) == []


def test_a_late_spool_and_a_long_silence_do_no_harm(quiet):
    detector = volume()
    feed(detector, quiet)
    assert feed(detector, [act(later(days=2)), act(later(days=400)), act(later(days=400, hours=1))]) == []


def test_a_restart_keeps_the_season():
    seen = busy(22)
    before = volume()
    assert feed(before, seen) == []
    after = volume()
    after.restore(before.state())
    found = feed(after, [act(later(days=22, hours=20, seconds=n)) for n in range(200)])
    assert [f.baseline for f in found] == [pytest.approx(15, abs=6)]


def test_what_is_usual_goes_from_the_best_that_is_known_to_the_next():
    series = Series()
    series.advance(1000)
    series.count = 7
    assert series.usual(1000) is None
    for hour in range(1001, 1001 + 30):
        series.advance(hour)
        series.count = 7
    assert series.usual(series.hour).by == "the last hours"
    for hour in range(1031, 1031 + 24 * 8):
        series.advance(hour)
        series.count = 7
    assert series.usual(series.hour).by == "this hour of such days"
    for hour in range(series.hour + 1, series.hour + WEEK * 6):
        series.advance(hour)
        series.count = 7
    usual = series.usual(series.hour)
    assert usual.by == "this hour of the week"
    assert usual.middle == 7
    assert all(len(values) <= MAX_WEEKS for values in series.weekly.values())
    assert all(len(values) <= MAX_DAYS for values in series.daily.values())


def test_one_wild_value_moves_neither_median_nor_spread_far():
    assert spread([10, 11, 9, 10, 1000]) == (10, pytest.approx(1.4826))
    assert count_spread([100, 100, 100], share=0.1) == (100, 10)
    assert count_spread([0, 0], share=0.1) == (0, 1)


def test_hours_are_a_circle():
    counts = [0.0] * 24
    counts[23] = 10
    usual = smoothed(counts, prior=0.05)
    assert usual[0] == usual[22] > usual[1] == usual[21] > usual[2]
    assert sum(usual) == pytest.approx(1)
