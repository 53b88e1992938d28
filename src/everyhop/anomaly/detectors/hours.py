# SPDX-License-Identifier: Apache-2.0
"""Hours of the day at which a user or an identity is not usually there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from everyhop.anomaly.detectors._memory import Memory
from everyhop.anomaly.detectors._statistics import HOURS, smoothed
from everyhop.anomaly.detectors._telling import named, why
from everyhop.anomaly.finding import Finding, Severity
from everyhop.anomaly.model import SubjectKind
from everyhop.anomaly.observation import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from everyhop.anomaly.detectors.settings import UnusualHour as Settings
    from everyhop.anomaly.model import Subject
    from everyhop.anomaly.observation import Observation

MAX_SUBJECTS: Final = 8192
PRIOR: Final = 0.05
_KEEP: Final = (
    0.997  # what an hour of activity keeps each time another is added: about half is gone after 230 of them
)
_SATURDAY: Final = 5
_HOUR: Final = 3600
_LEAST_DAYS: Final = 5  # of weekends: with fewer, the hours of all days are asked
_WATCHED: Final = frozenset({SubjectKind.USER, SubjectKind.IDENTITY})


class _Habits(msgspec.Struct):
    began: float = 0.0
    slot: int = 0  # the last hour, since 1970, in which there was anything
    day: int = 0
    days: int = 0
    free_days: int = 0
    told_day: int = 0
    working: list[float] = msgspec.field(default_factory=lambda: [0.0] * HOURS)
    free: list[float] = msgspec.field(default_factory=lambda: [0.0] * HOURS)


class UnusualHour:
    """Finds activity at an hour that is rare for its subject, at most once a day each.

    An hour counts once however much happens in it.  Working days and weekends are kept apart as soon as there are enough
    of both.  A service that runs around the clock has no unusual hour.  Times are UTC.
    """

    name: Final = "unusual-hour"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._subjects = Memory(_Habits, limit=MAX_SUBJECTS)

    def observe(self, observation: Observation, now: datetime) -> Sequence[Finding]:
        """Take one observation."""
        del now
        if observation.outcome is not Outcome.ALLOWED:
            return ()
        slot = int(observation.time.timestamp()) // _HOUR
        found: list[Finding] = []
        for subject in observation.subjects:
            if subject.kind not in _WATCHED:
                continue
            key = str(subject)
            known = self._subjects.get(key)
            if known is None or known.slot < slot:
                found += self._hour(subject, self._subjects.touch(key), slot, observation)
        return found

    def _hour(self, subject: Subject, habits: _Habits, slot: int, o: Observation) -> Sequence[Finding]:
        hour, day = slot % HOURS, slot // HOURS
        is_free = o.time.weekday() >= _SATURDAY
        habits.began = habits.began or o.time.timestamp()
        found: Sequence[Finding] = ()
        age = o.time.timestamp() - habits.began
        if habits.days >= self._settings.days and age >= self._settings.learn.total_seconds():
            found = self._judge(subject, habits, hour, day, o, is_free=is_free)
        if day != habits.day:
            habits.days += 1
            habits.free_days += is_free
        habits.slot, habits.day = slot, day
        counts = habits.free if is_free else habits.working
        for index in range(HOURS):
            counts[index] *= _KEEP
        counts[hour] += 1
        return found

    def _judge(
        self, subject: Subject, habits: _Habits, hour: int, day: int, o: Observation, *, is_free: bool
    ) -> Sequence[Finding]:
        few = (habits.free_days if is_free else habits.days - habits.free_days) < _LEAST_DAYS
        own = habits.free if is_free else habits.working
        counts = [a + b for a, b in zip(habits.working, habits.free, strict=True)] if few else own
        usual = smoothed(counts, prior=PRIOR)
        if usual[hour] >= self._settings.rarer_than or habits.told_day == day:
            return ()
        habits.told_day = day
        best = max(range(HOURS), key=usual.__getitem__)
        return (
            Finding(
                detector=self.name,
                severity=Severity.LOW,
                subject=subject,
                title=(
                    f"{named(subject)} is active at {hour:02d}h UTC, usually around {best:02d}h"
                    f" ({habits.days} days known)"
                ),
                evidence=(o.record,),
                first=o.time,
                last=o.time,
                observed=round(usual[hour], 6),
                threshold=self._settings.rarer_than,
                baseline=round(usual[best], 6),
                unit="share of its active hours",
                count=1,
                suggestion=why(o.record),
                target=o.target,
                operation=o.operation,
            ),
        )

    def state(self) -> Mapping[str, bytes]:
        """Return the hours of each subject."""
        return self._subjects.state()

    def restore(self, state: Mapping[str, bytes]) -> None:
        """Take them back."""
        self._subjects.restore(state)
