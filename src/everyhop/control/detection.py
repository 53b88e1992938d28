# SPDX-License-Identifier: Apache-2.0
"""Detection as a consumer of the log: what is durable is looked at, what is found becomes durable, then it is acted upon.

One server of several does it at a time (a lease).  Findings and the cursor move in one transaction; a block is asked for
afterwards and, when this process ends in between, once more at the next start.  Counters of this process are filled again
from the last window of the log, so a restart forgets nothing and tells nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from everyhop.anomaly.engine import Engine
from everyhop.anomaly.finding import Answer
from everyhop.anomaly.model import BlockMode, Subject, SubjectKind
from everyhop.anomaly.rates import CLASSES
from everyhop.auditlog import Event, Kind, decode_record
from everyhop.control.leader import Leader
from everyhop.core.clock import rfc3339
from everyhop.core.errors import Conflict, EveryhopError, InputError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from everyhop.anomaly.engine import Judged
    from everyhop.anomaly.ports import Detector, Responder
    from everyhop.anomaly.window import Look, Windows
    from everyhop.auditlog import Record
    from everyhop.auditlog.consumer import Consumers, Leases
    from everyhop.auditlog.model import Scalar
    from everyhop.control.exporting import LogLines
    from everyhop.core.clock import Clock
    from everyhop.policy.detect import Limits
    from everyhop.policy.model import Snapshot

T = TypeVar("T")
_log = logging.getLogger(__name__)

CONSUMER: Final = "detection"
BY: Final = "detection"
POLL_SECONDS: Final = 0.05
PAGE: Final = 500
"""Records of one stretch: what waits behind it on the worker waits for some milliseconds."""

PAGE_BYTES: Final = 2 * 1024 * 1024
MAX_PRIMED: Final = 100_000
SAVE_SECONDS: Final = 30.0
_MOVE_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 1.0
_MAX_REASON: Final = 300
_MAX_AHEAD: Final = 10_000
_MAX_UNTOLD: Final = 1000


class FindingStore(Protocol):
    """Writes findings."""

    def commit(
        self, consumer: str, events: Sequence[Event], position: int, *, at: datetime
    ) -> tuple[Record, ...]:
        """Append events and move the cursor in one transaction; nothing when the cursor is there already."""

    def append(self, events: Sequence[Event]) -> tuple[Record, ...]:
        """Append events."""


class DetectorStates(Protocol):
    """Keeps what detectors have learned."""

    def load(self, detector: str, /) -> Mapping[str, bytes]:
        """Return the state of one by key."""

    def save(self, states: Mapping[str, Mapping[str, bytes]], at: datetime, /) -> int:
        """Store states."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionPorts:
    """What detection stands on.

    ``pool`` has one thread, which is the only one that touches counters and detectors.  ``detectors`` makes those that a policy
    wishes for; ``reveal`` puts persons in place of their pseudonyms, since it is persons and addresses that are blocked.
    """

    lines: LogLines
    store: FindingStore
    consumers: Consumers
    leases: Leases
    snapshot: Callable[[], Snapshot]
    windows: Windows
    clock: Clock
    monotonic: Callable[[], float]
    pool: Executor
    holder: str
    responder: Responder | None = None
    detectors: Callable[[Snapshot], Sequence[Detector]] = lambda _: ()
    reveal: Callable[[Sequence[Record]], Sequence[Record]] = lambda records: records
    states: DetectorStates | None = None


@dataclass(slots=True)
class _Stretch:
    """A page that was looked at: whether there was anything on it, up to which record, and what it showed."""

    is_new: bool
    position: int
    judged: list[Judged] = field(default_factory=list)


class Detection:
    """Watches the log.  Used from one event loop."""

    def __init__(self, ports: DetectionPorts) -> None:
        self._p = ports
        snapshot = ports.snapshot()
        self._detectors = tuple(ports.detectors(snapshot))
        self._engine = Engine(snapshot, ports.windows, self._detectors)
        self._hash = snapshot.hash
        self._leader = Leader(ports.leases, CONSUMER, ports.holder, clock=ports.clock, pool=ports.pool)
        self._grown = asyncio.Event()
        self._position = self._moved_to = 0
        self._moved_at = self._saved_at = float("-inf")
        self._pending: _Stretch | None = None
        self._notices: deque[Event] = deque(maxlen=_MAX_UNTOLD)
        self._orphans: list[tuple[Subject, BlockMode, datetime, str, str]] = []
        self._counted = self._found = 0

    def wake(self) -> None:
        """Tell that this process has appended something.  Only from the event loop."""
        self._grown.set()

    def degraded(self, is_degraded: bool) -> None:  # noqa: FBT001  # the callback of twin windows
        """Note that shared counters are away, or back: one record each.  From the worker thread."""
        action = "detection-degraded" if is_degraded else "detection-restored"
        _log.warning("shared counters: %s", action)
        self._notices.append(
            Event(
                kind=Kind.LIFECYCLE, action=action, time=self._p.clock.now(), reason="shared-counters",
                detail={"on_error": self._engine.detection.on_error.value},
            )
        )  # fmt: skip

    async def run(self) -> None:
        """Watch whenever this server holds the lease, until cancelled."""
        await self._leader.run(self._watch)

    async def _watch(self) -> None:
        await self._call(self._begin)
        for orphan in self._orphans:
            await self._block(*orphan)
        self._orphans = []
        try:
            while True:
                await self._once()
        finally:
            with suppress(EveryhopError):
                await asyncio.shield(self._call(self._save))

    async def _once(self) -> None:
        """Look at one stretch, or wait for one."""
        self._grown.clear()
        try:
            stretch, records = await self._call(self._step)
        except Unavailable as error:
            _log.warning("detection waits for the database", extra={"reason": error.message})
            await asyncio.sleep(_RETRY_SECONDS)
            return
        for judged, record in zip(stretch.judged, records, strict=False):
            if judged.mode is not None and judged.block_for is not None:
                until = self._p.clock.now() + judged.block_for
                title = f"{judged.finding.detector}: {judged.finding.title}"
                await self._block(judged.finding.subject, judged.mode, until, title, record.id)
        if not stretch.is_new:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._grown.wait(), POLL_SECONDS)

    # -- on the worker thread

    def _begin(self) -> None:
        """Take up the cursor, fill counters from the last window, and find blocks that were never asked for."""
        self._configure()
        self._pending = None
        known = self._p.consumers.get(CONSUMER)
        if known is None:
            # Whatever is older than the first start of detection is nothing that anybody waits to hear.
            self._position = self._p.lines.head()
            self._p.consumers.move(CONSUMER, self._position, at=self._p.clock.now())
        else:
            self._position = known.position
        self._moved_to = self._position
        self._restore()
        recent = self._recent()
        wall, now = self._p.clock.now(), self._p.monotonic()
        self._engine.prime(recent, wall=wall, now=now)
        self._hold_blocks(wall, now)
        self._orphans = self._unanswered([*(record for _, record in recent), *self._ahead()], wall)
        self._saved_at = now

    def _recent(self) -> list[tuple[int, Record]]:
        """Return the records of the last window up to the cursor, in their order; at most 100,000."""
        since = self._p.clock.now() - self._engine.detection.window - timedelta(seconds=60)
        blocks: deque[list[tuple[int, Record]]] = deque()
        end, count = self._position, 0
        while end > 0 and count < MAX_PRIMED:
            start = max(0, end - PAGE)
            page = [one for one in self._read(start)[0] if one[0] <= end]
            end = start
            blocks.appendleft(page)
            count += len(page)
            if page and all(record.time < since for _, record in page):
                break
        return [one for page in blocks for one in page]

    def _ahead(self) -> list[Record]:
        """Return what stands behind the cursor already: a finding always does, and perhaps the answer to it."""
        found: list[Record] = []
        position, is_new = self._position, True
        while is_new and len(found) < _MAX_AHEAD:
            page, last = self._read(position)
            is_new, position = last > position, last
            found += [record for _, record in page]
        return found

    def _hold_blocks(self, wall: datetime, now: float) -> None:
        if self._p.responder is None:
            return
        for subject, block in self._p.responder.blocks.by_subject.items():
            left = float("inf") if block.until is None else (block.until - wall).total_seconds()
            if left > 0:
                self._engine.hold(subject, left, now=now)

    def _unanswered(
        self, records: Sequence[Record], wall: datetime
    ) -> list[tuple[Subject, BlockMode, datetime, str, str]]:
        """Return blocks that findings promised and nothing of which is recorded: this process ended in between."""
        answered = {record.detail.get("finding") for record in records}
        if self._p.responder is not None:
            answered |= {block.finding for block in self._p.responder.blocks.by_subject.values()}
        found = []
        for record in records:
            if record.kind is not Kind.FINDING or record.id in answered:
                continue
            mode = {Answer.BLOCKED: BlockMode.BLOCK, Answer.QUARANTINED: BlockMode.QUARANTINE}.get(
                record.reason  # type: ignore[call-overload]  # any text may be asked for
            )
            seconds = record.detail.get("block_seconds")
            if mode is None or not isinstance(seconds, int) or record.caller is None:
                continue
            until = record.time + timedelta(seconds=seconds)
            if until > wall:
                with suppress(InputError):
                    subject = Subject.parse(record.caller)
                    found.append(
                        (subject, mode, until, f"{record.operation}: {record.detail.get('title')}", record.id)
                    )
        return found

    def _step(self) -> tuple[_Stretch, tuple[Record, ...]]:
        """Look at the next page and make durable what it shows; raises Unavailable, and goes on with the same then."""
        if self._pending is None:
            self._configure()
            page, position = self._read(self._position)
            judged = self._engine.take(page, wall=self._p.clock.now(), now=self._p.monotonic())
            self._pending = _Stretch(position > self._position, position, judged)
            self._counted += len(page)
            self._found += len(judged)
        stretch, now = self._pending, self._p.monotonic()
        records: tuple[Record, ...] = ()
        if stretch.judged:
            events = [self._event(judged) for judged in stretch.judged]
            records = self._p.store.commit(CONSUMER, events, stretch.position, at=self._p.clock.now())
            self._moved_at, self._moved_to = now, stretch.position
        elif stretch.position > self._moved_to and now - self._moved_at >= _MOVE_SECONDS:
            # With nothing to tell, a commit a second is enough: what is looked at again is counted once.
            self._p.consumers.move(CONSUMER, stretch.position, at=self._p.clock.now())
            self._moved_at, self._moved_to = now, stretch.position
        self._position, self._pending = stretch.position, None
        self._tell_notices()
        if now - self._saved_at >= SAVE_SECONDS:
            self._save()
        return stretch, records

    def _tell_notices(self) -> None:
        if self._notices:
            self._p.store.append(list(self._notices))
            self._notices.clear()

    def _save(self) -> None:
        self._saved_at = self._p.monotonic()
        if self._p.states is not None and self._detectors:
            states = {detector.name: detector.state() for detector in self._detectors}
            self._p.states.save(states, self._p.clock.now())

    def _restore(self) -> None:
        if self._p.states is not None:
            for detector in self._detectors:
                detector.restore(self._p.states.load(detector.name))

    def _read(self, after: int) -> tuple[list[tuple[int, Record]], int]:
        """Return the records behind a place, and the place of the last one, readable or not."""
        found = []
        lines = self._p.lines.read(after, limit=PAGE, max_bytes=PAGE_BYTES)
        for number, line in lines:
            try:
                found.append((number, decode_record(line)))
            except InputError:
                _log.warning("a record that is none to this release", extra={"n": number})
        revealed = self._p.reveal([record for _, record in found])
        return [(number, record) for (number, _), record in zip(found, revealed, strict=True)], (
            lines[-1][0] if lines else after
        )

    def _configure(self) -> None:
        snapshot = self._p.snapshot()
        if snapshot.hash == self._hash:
            return
        detectors = None
        if snapshot.detection.detectors != self._engine.detection.detectors:
            self._save()
            detectors = self._detectors = tuple(self._p.detectors(snapshot))
            self._restore()
        self._engine.configure(snapshot, detectors)
        self._hash = snapshot.hash

    def _event(self, judged: Judged) -> Event:
        return finding_event(judged, at=self._p.clock.now(), snapshot=self._hash)

    # -- acting

    async def _block(
        self, subject: Subject, mode: BlockMode, until: datetime, title: str, finding: str
    ) -> None:
        responder = self._p.responder
        if responder is None:
            return
        reason = "".join(c if c.isprintable() else "\ufffd" for c in title)[:_MAX_REASON]
        try:
            await responder.block(subject, mode=mode, until=until, reason=reason, by=BY, finding=finding)
        except EveryhopError as error:
            _log.error("a block failed", extra={"subject": str(subject), "reason": error.message})
            await self._call(partial(self._failed, subject, error, finding))

    def _failed(self, subject: Subject, error: EveryhopError, finding: str) -> None:
        """Record that a block failed; one that is forbidden is not tried again with the next five hundred calls."""
        if not isinstance(error, Conflict | InputError):
            self._engine.release(subject, now=self._p.monotonic())
        detail: dict[str, Scalar] = {
            "title": f"a block failed: {error.message}"[:_MAX_REASON],
            "severity": "high",
            "severity_id": 4,
            "is_alert": True,
            "finding": finding,
            "code": error.code,
            "evidence": finding,
        }
        self._notices.append(
            Event(
                kind=Kind.FINDING, action="block-failed", time=self._p.clock.now(), caller=str(subject),
                reason=Answer.FAILED.value, snapshot=self._hash, detail=detail,
            )
        )  # fmt: skip

    # -- what people ask

    async def status(self) -> dict[str, Any]:
        """Return how detection is: whether it works here, how far, by what."""

        def collect() -> dict[str, Any]:
            known = self._p.consumers.get(CONSUMER)
            engine = self._engine
            return {
                "leading": self._leader.is_leading,
                "position": self._position if self._leader.is_leading else (known.position if known else 0),
                "head": self._p.lines.head(),
                "mode": engine.detection.response.value,
                "counted": self._counted,
                "findings": self._found,
                "untold": engine.unseen,
                "known_subjects": engine.breaker.known,
                "evicted": getattr(self._p.windows, "evicted", 0),
                "degraded": bool(getattr(self._p.windows, "is_degraded", False)),
                "detectors": [detector.name for detector in self._detectors],
            }

        return await self._call(collect)

    def limits_of(self, subject: Subject) -> Limits:
        """Return what the policy in force says of a subject."""
        snapshot = self._p.snapshot()
        owner = snapshot.service_of(subject.value) if subject.kind is SubjectKind.IDENTITY else None
        return snapshot.detection.limits_of(CLASSES[subject.kind], None if owner is None else owner.name)

    def detectors_for(self, snapshot: Snapshot) -> Sequence[Detector]:
        """Return detectors that have seen nothing yet, as a policy wishes for."""
        return self._p.detectors(snapshot)

    async def look(self, subject: Subject) -> Look:
        """Return the counter of a subject."""
        return await self._call(lambda: self._engine.look(subject, now=self._p.monotonic()))

    async def _call(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._p.pool, call)


def finding_event(judged: Judged, *, at: datetime, snapshot: str | None) -> Event:
    """Return a finding as an event of the log.  Its ``caller`` is the subject, ``operation`` the detector, ``reason`` the answer."""
    finding = judged.finding
    detail = finding.to_record_detail()
    if finding.subject.kind in {SubjectKind.USER, SubjectKind.API_KEY}:
        name = "user" if finding.subject.kind is SubjectKind.USER else "api_key"
        detail[name] = finding.subject.value
    if finding.operation is not None:
        detail["operation"] = finding.operation[:200]
    if judged.mode is not None and judged.block_for is not None:
        detail["block_seconds"] = int(judged.block_for.total_seconds())
        detail["until"] = rfc3339(at + judged.block_for)
    return Event(
        kind=Kind.FINDING,
        action=finding.detector,
        time=at,
        caller=str(finding.subject),
        target=finding.target,
        reason=judged.answer.value,
        snapshot=snapshot,
        detail=detail,
    )
