# SPDX-License-Identifier: Apache-2.0
"""Detection over a stretch of the log: records in, findings and what is to be done about them out.  Deterministic.

The same engine watches the log as it grows and tells what another policy would have found in what was recorded.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

from everyhop.anomaly.breaker import BlockBreaker
from everyhop.anomaly.finding import Action, Answer, Finding
from everyhop.anomaly.model import BlockMode, Subject, SubjectKind
from everyhop.anomaly.observation import observe
from everyhop.anomaly.rates import Found, RateWatch, Seen
from everyhop.core.clock import parse_rfc3339
from everyhop.core.errors import InputError
from everyhop.policy.detect import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from everyhop.anomaly.observation import Observation, Recorded
    from everyhop.anomaly.ports import Detector
    from everyhop.anomaly.window import Look, Windows
    from everyhop.policy.detect import Detection

_log = logging.getLogger(__name__)

MAX_FINDINGS: Final = 100
"""Findings of one stretch; what is beyond is counted and not told."""

_RESPONSE: Final = "response"
_EXPIRED: Final = "expired"
_LONGEST: Final = 30 * 86_400.0
_DEFAULT_BLOCK: Final = timedelta(hours=1)


class Policy(Protocol):
    """What the engine reads of a snapshot."""

    @property
    def detection(self) -> Detection: ...  # noqa: D102

    def service_of(self, spiffe_id: str, /) -> object | None:
        """Return the service that owns a SPIFFE ID; it has a ``name``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A finding and the answer to it.  ``mode`` and ``block_for`` are what to block with, where the answer is to."""

    finding: Finding
    answer: Answer
    mode: BlockMode | None = None
    block_for: timedelta | None = None


class Engine:
    """Watches.  Used from one thread at a time."""

    def __init__(self, policy: Policy, windows: Windows, detectors: Iterable[Detector] = ()) -> None:
        self._windows = windows
        self._detectors = tuple(detectors)
        self._breaker = BlockBreaker()
        self._rates = RateWatch(windows, policy.detection, service_of=_namer(policy))
        self._detection = policy.detection
        self.unseen = 0
        """Findings that were too many to tell."""

    @property
    def detection(self) -> Detection:
        """Return the chapter of the policy by which it goes."""
        return self._detection

    @property
    def breaker(self) -> BlockBreaker:
        """Return what holds blocks back."""
        return self._breaker

    def configure(self, policy: Policy, detectors: Iterable[Detector] | None = None) -> None:
        """Go by another policy from now on, and by other detectors where they are given."""
        if detectors is not None:
            self._detectors = tuple(detectors)
        self._detection = policy.detection
        self._rates.configure(policy.detection, _namer(policy))

    def take(self, records: Sequence[tuple[int, Recorded]], *, wall: datetime, now: float) -> list[Judged]:
        """Return what records show, each with its place in the log; ``wall`` is aware, ``now`` monotonic seconds."""
        found: list[Found] = []
        seen: list[Seen] = []
        for position, record in records:
            if record.kind == _RESPONSE:
                # In the order of the log: what came before a lifted block must not count after it.
                found += self._rates.take(seen, wall=wall, now=now)
                seen = []
                self._follow(record, wall, now)
                continue
            observation = observe(record)
            if observation is None:
                continue
            seen.append(Seen(position, observation))
            for subject in observation.subjects:
                self._breaker.see(subject, now)
            found += self._ask(observation, wall)
        found += self._rates.take(seen, wall=wall, now=now)
        return self._judge_all(found, now)

    def weigh(self, seen: Sequence[Seen], *, wall: datetime, now: float) -> list[Judged]:
        """Return what thresholds say of observations; detectors are not asked."""
        return self._judge_all(self._rates.take(seen, wall=wall, now=now), now)

    def _judge_all(self, found: list[Found], now: float) -> list[Judged]:
        if len(found) > MAX_FINDINGS:
            self.unseen += len(found) - MAX_FINDINGS
            _log.warning("more findings at once than are told", extra={"count": len(found)})
            found.sort(key=lambda one: one.finding.severity.number, reverse=True)
            found = found[:MAX_FINDINGS]
        return [self._judge(one, now) for one in found]

    def prime(self, records: Sequence[tuple[int, Recorded]], *, wall: datetime, now: float) -> None:
        """Count what was looked at before, and tell nothing of it: detectors remember by themselves."""
        seen: list[Seen] = []
        for position, record in records:
            if record.kind == _RESPONSE:
                self._rates.take(seen, wall=wall, now=now)
                seen = []
                self._follow(record, wall, now)
            elif (observation := observe(record)) is not None:
                seen.append(Seen(position, observation))
                for subject in observation.subjects:
                    self._breaker.see(subject, now)
        self._rates.take(seen, wall=wall, now=now)

    def look(self, subject: Subject, *, now: float) -> Look:
        """Return the counter of a subject."""
        return self._windows.look(str(subject), self._detection.window.total_seconds(), now=now)

    def release(self, subject: Subject, *, now: float) -> None:
        """Count a subject from zero: blocking it failed."""
        self._windows.release(str(subject), now=now)

    def hold(self, subject: Subject, seconds: float, *, now: float) -> None:
        """Take over a block that is in force."""
        self._windows.hold(str(subject), min(seconds, _LONGEST), now=now)

    def _ask(self, observation: Observation, wall: datetime) -> list[Found]:
        found: list[Found] = []
        for detector in self._detectors:
            try:
                found += [Found(finding) for finding in detector.observe(observation, wall)]
            except Exception:  # noqa: BLE001  # one that is broken must not blind the others
                _log.exception("a detector failed", extra={"detector": detector.name})
        return found

    def _judge(self, found: Found, now: float) -> Judged:
        finding = found.finding
        if finding.action is Action.ALERT:
            return Judged(finding=finding, answer=Answer.ALERT)
        subject, detection = finding.subject, self._detection
        if detection.is_exempt(subject.kind.value, subject.value):
            return Judged(finding=finding, answer=Answer.EXEMPT)
        if detection.response is Response.OBSERVE:
            return Judged(finding=finding, answer=Answer.OBSERVED)
        if not self._breaker.admits(subject, detection.breaker, now):
            if found.key is not None and detection.breaker is not None:
                # Neither blocked nor told of with every further call: looked at again when the breaker may be closed.
                self._windows.release(found.key, now=now)
                self._windows.hold(found.key, detection.breaker.within.total_seconds(), now=now)
            return Judged(finding=finding, answer=Answer.HELD_BACK)
        block_for = finding.block_for or _DEFAULT_BLOCK
        if finding.action is Action.QUARANTINE and subject.kind is SubjectKind.IDENTITY:
            return Judged(
                finding=finding, answer=Answer.QUARANTINED, mode=BlockMode.QUARANTINE, block_for=block_for
            )
        return Judged(finding=finding, answer=Answer.BLOCKED, mode=BlockMode.BLOCK, block_for=block_for)

    def _follow(self, record: Recorded, wall: datetime, now: float) -> None:
        """Let counters know of a block, or of its end, from wherever it came."""
        subject = blocked_subject(record)
        if subject is None:
            return
        if record.operation == "unblock":
            if record.reason != _EXPIRED:  # the counter knows the end by itself
                self.release(subject, now=now)
        elif record.operation in {"block", "quarantine"}:
            left = _seconds_left(record, wall)
            if left > 0:
                self.hold(subject, left, now=now)


def blocked_subject(record: Recorded) -> Subject | None:
    """Return whom the record of a response is about; None when it does not say."""
    named = record.detail.get("block")
    if named == SubjectKind.USER.value:
        named = f"user:{record.detail.get('user')}"
    try:
        return Subject.parse(named) if isinstance(named, str) else None
    except InputError:
        return None


def _seconds_left(record: Recorded, wall: datetime) -> float:
    until = record.detail.get("until")
    if not isinstance(until, str):
        return _LONGEST
    try:
        return (parse_rfc3339(until) - wall).total_seconds()
    except ValueError:
        return 0.0


def _namer(policy: Policy) -> Callable[[str], str | None]:
    def name(spiffe_id: str) -> str | None:
        owner = policy.service_of(spiffe_id)
        return None if owner is None else str(getattr(owner, "name", None))

    return name
