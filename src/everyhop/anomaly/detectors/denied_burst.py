# SPDX-License-Identifier: Apache-2.0
"""Many refusals of one subject in a short time; over many places it is a search for an open door."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from everyhop.anomaly.detectors._memory import Memory
from everyhop.anomaly.detectors._telling import MAX_RECENT, block, moment, named, spoken, why
from everyhop.anomaly.finding import Finding, Severity
from everyhop.anomaly.observation import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from everyhop.anomaly.detectors.settings import DeniedBurst as Settings
    from everyhop.anomaly.model import Subject
    from everyhop.anomaly.observation import Observation

MAX_SUBJECTS: Final = 4096
PROBING: Final = "probing"
_PLACE: Final = 120
_REFUSED: Final = frozenset({Outcome.DENIED, Outcome.FAILED, Outcome.UNDECLARED, Outcome.AMBIGUOUS})


class _Refusal(msgspec.Struct, array_like=True):
    time: float
    service: str
    place: str
    reason: str
    record: str


class _Recent(msgspec.Struct):
    refusals: list[_Refusal] = []  # msgspec copies an empty default
    count: int = 0  # of this episode, also those that were left out of the list
    told_burst: float = 0.0
    told_probing: float = 0.0


class DeniedBurst:
    """Finds ``denied-burst`` and ``probing``; each once until the subject has been quiet for a window."""

    name: Final = "denied-burst"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._subjects = Memory(_Recent, limit=MAX_SUBJECTS)

    def observe(self, observation: Observation, now: datetime) -> Sequence[Finding]:
        """Take one observation."""
        del now
        if observation.outcome not in _REFUSED:
            return ()
        return [found for s in observation.subjects for found in self._refused(s, observation)]

    def _refused(self, subject: Subject, o: Observation) -> list[Finding]:
        time, window = o.time.timestamp(), self._settings.window.total_seconds()
        recent = self._subjects.touch(str(subject))
        refusals = [r for r in recent.refusals if r.time > time - window]
        if not refusals:
            recent.told_burst = recent.told_probing = 0.0
            recent.count = 0
        recent.count += 1
        service = (o.target or "")[:_PLACE]
        place = f"{service} {o.operation or f'{o.method} {o.path}'}"[:_PLACE]
        refusals.append(_Refusal(time, service, place, o.reason or "", o.record))
        recent.refusals = refusals[-MAX_RECENT:]
        return [*self._burst(subject, recent, o), *self._probing(subject, recent, o)]

    def _burst(self, subject: Subject, recent: _Recent, o: Observation) -> list[Finding]:
        if len(recent.refusals) < min(self._settings.denials, MAX_RECENT) or recent.told_burst:
            return []
        recent.told_burst = o.time.timestamp()
        reason, _ = Counter(r.reason for r in recent.refusals).most_common(1)[0]
        title = (
            f"{named(subject)} was refused {len(recent.refusals)} times in {spoken(self._settings.window)},"
            f" mostly for {reason or 'no stated reason'}"
        )
        found = self._finding(self.name, Severity.MEDIUM, subject, recent, o, title)
        return [found]

    def _probing(self, subject: Subject, recent: _Recent, o: Observation) -> list[Finding]:
        services = len({r.service for r in recent.refusals})
        places = len({r.place for r in recent.refusals})
        is_wide = services >= self._settings.services and places >= self._settings.services
        if recent.told_probing or not (is_wide or places >= min(self._settings.places, MAX_RECENT)):
            return []
        recent.told_probing = o.time.timestamp()
        title = f"{named(subject)} tries doors: refused at {places} places of {services} services"
        found = self._finding(
            PROBING,
            Severity.HIGH,
            subject,
            recent,
            o,
            title,
            observed=places,
            threshold=self._settings.services if is_wide else self._settings.places,
            unit="places",
        )
        return [found]

    def _finding(
        self,
        detector: str,
        severity: Severity,
        subject: Subject,
        recent: _Recent,
        o: Observation,
        title: str,
        *,
        observed: float | None = None,
        threshold: float | None = None,
        unit: str = "refusals",
    ) -> Finding:
        return Finding(
            detector=detector,
            severity=severity,
            subject=subject,
            title=title,
            evidence=tuple(r.record for r in recent.refusals),
            first=moment(recent.refusals[0].time),
            last=o.time,
            observed=float(len(recent.refusals) if observed is None else observed),
            threshold=float(self._settings.denials if threshold is None else threshold),
            unit=unit,
            count=recent.count,
            suggestion=f"{why(o.record)}; to shut it out: {block(subject, detector)}",
            target=o.target,
            operation=o.operation,
        )

    def state(self) -> Mapping[str, bytes]:
        """Return what was refused of each subject lately."""
        return self._subjects.state()

    def restore(self, state: Mapping[str, bytes]) -> None:
        """Take it back."""
        self._subjects.restore(state)
