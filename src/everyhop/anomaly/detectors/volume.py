# SPDX-License-Identifier: Apache-2.0
"""How much a caller calls, against how much it usually does at this hour of the week."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from everyhop.anomaly.detectors._memory import Memory
from everyhop.anomaly.detectors._statistics import HOURS, count_spread
from everyhop.anomaly.detectors._telling import named
from everyhop.anomaly.finding import Finding, Severity, some_of
from everyhop.anomaly.model import SubjectKind
from everyhop.anomaly.observation import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from everyhop.anomaly.detectors.settings import Volume as Settings
    from everyhop.anomaly.model import Subject
    from everyhop.anomaly.observation import Observation

MAX_SUBJECTS: Final = 2048
WEEK: Final = 7 * HOURS
MAX_WEEKS: Final = 6
MAX_DAYS: Final = 10
MAX_SAMPLES: Final = 32
SHARE: Final = 0.1
QUIET_HOURS: Final = 12
BURST_ROOM: Final = 1.25  # above what one hour in thirty reaches anyway
_ENOUGH: Final = 4
_HOUR: Final = 3600
_ALPHA: Final = 0.1
_HIGHEST_GROWTH: Final = 3.0
_HIGHEST_RATIO: Final = 50.0
_SATURDAY: Final = 5
_EPOCH_WEEKDAY: Final = 3  # 1970-01-01 was a Thursday
_WATCHED: Final = frozenset({SubjectKind.IDENTITY, SubjectKind.API_KEY})


class Usual(NamedTuple):
    """What is usual now, by which measure."""

    middle: float
    spread: float
    by: str


class Series(msgspec.Struct):
    """The counts of one subject by the hour.  Bounded: 6 values for each hour of the week, 10 for each of the day."""

    began: int = 0  # hours since 1970
    hour: int = 0
    count: int = 0
    weekly: dict[int, list[int]] = {}  # msgspec copies an empty default
    daily: dict[int, list[int]] = {}
    level: float = 0.0
    variance: float = 0.0
    ratios: list[float] = []  # counts of the last week's hours, each divided by what was usual for it
    told: int = 0
    samples: list[str] = []

    def advance(self, hour: int) -> None:
        """Let the counting of ``hour`` begin; what was counted before becomes part of what is usual."""
        if self.began == 0:
            self.began = self.hour = hour
        if hour - self.hour > WEEK:  # a whole week without anything teaches nothing but that
            self.close(self.hour, self.count)
            self.hour, self.count = hour - WEEK, 0
        while self.hour < hour:
            self.close(self.hour, self.count)
            self.hour, self.count = self.hour + 1, 0
            self.samples = []

    def close(self, hour: int, count: int) -> None:
        """Learn the count of an hour that is over."""
        usual = self.usual(hour)
        if usual is not None and usual.middle >= 1:
            self.ratios = [*self.ratios, round(min(count / usual.middle, _HIGHEST_RATIO), 3)][-WEEK:]
        self.weekly[hour % WEEK] = [*self.weekly.get(hour % WEEK, []), count][-MAX_WEEKS:]
        key = _day_key(hour)
        self.daily[key] = [*self.daily.get(key, []), count][-MAX_DAYS:]
        difference = count - self.level
        self.level += _ALPHA * difference
        self.variance = (1 - _ALPHA) * (self.variance + _ALPHA * difference * difference)

    def usual(self, hour: int) -> Usual | None:
        """Return what is usual in an hour, by the best that is known: hour of the week, of the day, or lately."""
        for values, by in (
            (self.weekly.get(hour % WEEK, ()), "this hour of the week"),
            (self.daily.get(_day_key(hour), ()), "this hour of such days"),
        ):
            if len(values) >= _ENOUGH:
                return Usual(*count_spread(values, share=SHARE), by)
        if self.hour - self.began < HOURS:
            return None
        floor = max(math.sqrt(max(self.level, 0.0)), SHARE * self.level, 1.0)
        return Usual(self.level, max(math.sqrt(self.variance), floor), "the last hours")

    @property
    def grown(self) -> float:
        """Return by what factor the last day was above what was usual; at least 1: less than usual excuses nothing."""
        last = sorted(self.ratios[-HOURS:])
        if len(last) < HOURS // 2:
            return 1.0
        return min(max(1.0, last[len(last) // 2]), _HIGHEST_GROWTH)

    @property
    def bursts(self) -> float:
        """Return by what factor one hour in thirty of the last week was above the usual; some callers come in bursts."""
        if len(self.ratios) < HOURS:
            return 1.0
        return sorted(self.ratios)[-1 - len(self.ratios) // 30]


class VolumeDetector:
    """Finds an hour with far more calls than usual, as soon as it is over the threshold, once until it was quiet for 12 hours.

    The threshold is ``median + spreads * spread``, with median and median absolute deviation of the same hour of the last
    weeks; where there are fewer than four, of the same hour of the last working or free days; else an exponentially
    weighted mean.  What the whole last day was above the usual raises it, so that growth is told once and not every hour;
    and so does what one hour in thirty of the last week reached, for callers that come in bursts.
    It never asks for a block: much traffic is no proof.
    """

    name: Final = "volume"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._subjects = Memory(Series, limit=MAX_SUBJECTS)
        self._limits: dict[
            str, tuple[int, tuple[float, Usual] | None]
        ] = {}  # of the running hour of each subject

    def observe(self, observation: Observation, now: datetime) -> Sequence[Finding]:
        """Take one observation."""
        del now
        if not observation.is_call or observation.outcome is not Outcome.ALLOWED:
            return ()
        hour = int(observation.time.timestamp()) // _HOUR
        return [
            found
            for subject in observation.subjects
            if subject.kind in _WATCHED
            for found in self._call(subject, hour, observation)
        ]

    def _call(self, subject: Subject, hour: int, o: Observation) -> Sequence[Finding]:
        key = str(subject)
        series = self._subjects.touch(key)
        if hour < series.hour:
            return ()  # its hour is over and judged; a spool was late
        series.advance(hour)
        series.count += 1
        if len(series.samples) < MAX_SAMPLES:
            series.samples.append(o.record)
        threshold = self._of_this_hour(key, series)
        if threshold is None or series.count <= threshold[0] or series.told >= hour:
            return ()
        # An episode goes on while there is an hour over the threshold now and then; it is told once.
        goes_on, series.told = hour - series.told <= QUIET_HOURS, hour
        if goes_on:
            return ()
        limit, usual = threshold
        return (
            Finding(
                detector=self.name,
                severity=Severity.MEDIUM,
                subject=subject,
                title=f"{named(subject)} made {series.count} calls in an hour; {usual.middle:.0f} are usual for {usual.by}",
                evidence=some_of(series.samples),
                first=o.time.replace(minute=0, second=0, microsecond=0),
                last=o.time,
                observed=float(series.count),
                threshold=round(limit, 1),
                baseline=round(usual.middle, 1),
                unit="calls an hour",
                count=series.count,
                suggestion=f"everyhop log show --caller {shlex.quote(named(subject))}; this detector never blocks",
                target=o.target,
            ),
        )

    def _of_this_hour(self, key: str, series: Series) -> tuple[float, Usual] | None:
        """Return the threshold; it is the same for the whole hour, and every call asks."""
        held = self._limits.get(key)
        if held is None or held[0] != series.hour:
            if len(self._limits) >= MAX_SUBJECTS:
                self._limits.clear()
            held = self._limits[key] = (series.hour, self.threshold(series))
        return held[1]

    def threshold(self, series: Series) -> tuple[float, Usual] | None:
        """Return what the running hour may hold, None while nothing is known."""
        s = self._settings
        if (series.hour - series.began) * _HOUR < s.learn.total_seconds():
            return None
        usual = series.usual(series.hour)
        if usual is None:
            return None
        grown = series.grown
        limit = max(
            grown * (usual.middle + s.spreads * usual.spread),
            max(s.times * grown, BURST_ROOM * series.bursts) * usual.middle,
            s.least,
        )
        return limit, usual

    def state(self) -> Mapping[str, bytes]:
        """Return the counts of each subject."""
        return self._subjects.state()

    def restore(self, state: Mapping[str, bytes]) -> None:
        """Take them back."""
        self._subjects.restore(state)


def _day_key(hour: int) -> int:
    """Return the hour of the day, told apart for working days and weekends."""
    weekday = (hour // HOURS + _EPOCH_WEEKDAY) % 7
    return hour % HOURS + (HOURS if weekday >= _SATURDAY else 0)
