# SPDX-License-Identifier: Apache-2.0
"""Too many calls of one subject: which of them count, by which thresholds, and what is said when they are crossed."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from everyhop.anomaly.finding import Action, Finding, Severity
from everyhop.anomaly.model import Subject, SubjectKind
from everyhop.anomaly.observation import Outcome
from everyhop.anomaly.window import Crossing, Hit, Threshold
from everyhop.policy.detect import ALL, Counted, SubjectClass, shortest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from everyhop.anomaly.observation import Observation
    from everyhop.anomaly.window import Count, Windows
    from everyhop.policy.detect import Detection, Limits

DETECTOR: Final = "rate-anomaly"
VOLUME: Final = "volume"
"""The prefix of the keys under which all calls of a service with an expected rate count."""

MAX_REMEMBERED: Final = 20_000
_FEW: Final = 4  # ids kept from the beginning of an episode, and from its end

CLASSES: Final[Mapping[SubjectKind, SubjectClass]] = {
    SubjectKind.IDENTITY: SubjectClass.SERVICES,
    SubjectKind.USER: SubjectClass.USERS,
    SubjectKind.API_KEY: SubjectClass.API_KEYS,
    SubjectKind.ADDRESS: SubjectClass.ADDRESSES,
}
_WORDS: Final[Mapping[Counted, str]] = {
    Counted.DENIED: "denied",
    Counted.FAILED: "unauthenticated",
    Counted.UNDECLARED: "undeclared",
    Counted.AMBIGUOUS: "ambiguous",
}


class Seen(NamedTuple):
    """An observation with its place in the log (0: not known)."""

    position: int
    observation: Observation


class Found(NamedTuple):
    """A finding, and the key of the counter that it came from (None for one of another detector)."""

    finding: Finding
    key: str | None = None


@dataclass(slots=True)
class _Episode:
    """Which records make up what is being counted: the first few and the last few."""

    first: datetime
    ids: list[str]
    last: deque[str]


class RateWatch:
    """Counts observations in windows.  Bounded; used from one thread at a time."""

    def __init__(
        self, windows: Windows, detection: Detection, *, service_of: Callable[[str], str | None]
    ) -> None:
        """``service_of`` gives the name of the service that owns a SPIFFE ID."""
        self._windows = windows
        self._episodes: OrderedDict[str, _Episode] = OrderedDict()
        self.configure(detection, service_of)

    def configure(self, detection: Detection, service_of: Callable[[str], str | None]) -> None:
        """Go by another policy from now on; counters stay."""
        self._detection = detection
        self._service_of = service_of
        self._limits: dict[tuple[SubjectClass, str | None], tuple[Limits, Threshold, Threshold | None]] = {}

    def take(self, seen: Sequence[Seen], *, wall: datetime, now: float) -> list[Found]:
        """Count, and return what was crossed, in the order of the log.

        ``wall`` is the time by which ages are told (aware), ``now`` monotonic seconds.
        """
        hits: list[Hit] = []
        about: list[tuple[Subject, Observation]] = []
        for position, observation in seen:
            if observation.outcome is Outcome.FAULT or not observation.subjects:
                continue
            age = (wall - observation.time).total_seconds()
            for subject in observation.subjects:
                for hit in self._hits(subject, observation.outcome, age, position):
                    hits.append(hit)
                    about.append((subject, observation))
        if not hits:
            return []
        counts = self._windows.count(hits, now=now)
        found = []
        for hit, (subject, observation), count in zip(hits, about, counts, strict=True):
            if count.n:
                episode = self._remember(hit.key, observation, count)
                if count.crossing is not None:
                    finding = self._finding(hit, subject, observation, count, episode)
                    found.append(Found(finding, hit.key))
        return found

    def limits_of(self, subject: Subject) -> Limits:
        """Return what holds for a subject."""
        return self._resolved(subject)[0]

    def _resolved(self, subject: Subject) -> tuple[Limits, Threshold, Threshold | None]:
        kind = CLASSES[subject.kind]
        service = self._service_of(subject.value) if kind is SubjectClass.SERVICES else None
        known = self._limits.get((kind, service))
        if known is None:
            limits = self._detection.limits_of(kind, service)
            window = self._detection.window.total_seconds()
            threshold = Threshold(window, limits.alert, limits.block, limits.block_for.total_seconds())
            volume = None
            if limits.expected_rate is not None:
                volume = Threshold(window, int(limits.expected_rate.per_second * window) + 1, None)
            known = self._limits[kind, service] = (limits, threshold, volume)
        return known

    def _hits(self, subject: Subject, outcome: Outcome, age: float, position: int) -> list[Hit]:
        limits, threshold, volume = self._resolved(subject)
        found = []
        if outcome.value in limits.count and not (limits.alert is None and limits.block is None):
            found.append(Hit(str(subject), threshold, age, position))
        if volume is not None:
            found.append(Hit(f"{VOLUME}:{subject}", volume, age, position))
        return found

    def _remember(self, key: str, observation: Observation, count: Count) -> _Episode:
        episode = self._episodes.get(key)
        if episode is None or count.n == 1:
            episode = self._episodes[key] = _Episode(observation.time, [], deque(maxlen=_FEW))
        if len(episode.ids) < _FEW:
            episode.ids.append(observation.record)
        else:
            episode.last.append(observation.record)
        self._episodes.move_to_end(key)
        if len(self._episodes) > MAX_REMEMBERED:
            self._episodes.popitem(last=False)
        return episode

    def _finding(
        self, hit: Hit, subject: Subject, observation: Observation, count: Count, episode: _Episode
    ) -> Finding:
        limits, threshold, _ = self._resolved(subject)
        window = shortest(self._detection.window)
        is_volume = hit.key.startswith(f"{VOLUME}:")
        is_block = count.crossing is Crossing.BLOCK
        what = "calls" if is_volume else _calls(limits)
        suggestion = f"everyhop block {subject} --for 1h --reason ..."
        if is_block:
            suggestion = f"everyhop unblock {subject} --reason ..., if that was meant to happen"
        elif is_volume:
            suggestion = (
                "if that is right, a higher expected_rate for it under detect: per_service in the policy"
            )
        return Finding(
            detector=DETECTOR,
            severity=Severity.HIGH if is_block else Severity.MEDIUM,
            subject=subject,
            title=f"{count.n} {what} within {window}",
            evidence=(*episode.ids, *episode.last),
            count=count.n,
            first=min(episode.first, observation.time),
            last=observation.time,
            observed=count.n,
            threshold=threshold.block if is_block else hit.threshold.alert,
            baseline=self._expected(limits) if is_volume else None,
            unit=f"calls in {window}",
            suggestion=suggestion,
            action=Action.BLOCK if is_block else Action.ALERT,
            block_for=limits.block_for if is_block else None,
            target=observation.target,
            operation=observation.operation,
        )

    def _expected(self, limits: Limits) -> float | None:
        rate = limits.expected_rate
        return None if rate is None else rate.per_second * self._detection.window.total_seconds()


def _calls(limits: Limits) -> str:
    """Say what counted: ``calls``, or ``denied, unauthenticated or undeclared calls``."""
    if limits.count == ALL:
        return "calls"
    words = [word for counted, word in _WORDS.items() if counted in limits.count]
    *others, last = words
    return (f"{', '.join(others)} or {last}" if others else last) + " calls"
