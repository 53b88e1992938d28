# SPDX-License-Identifier: Apache-2.0
"""What workloads decided by themselves, kept on the node until the server has it.

A workload is believed in one thing only: that it says so.  Which service it speaks for is attested, and the record is
marked ``sdk``; its id begins with the decision's and ends with a place in this node's spool, so that no workload can
take the place of another's record, or of a sidecar's.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec.structs import replace

from everyhop.auditlog import Kind, Point, Record, clip, decode_record, encode_record
from everyhop.auditlog.gaps import Gap, GapReason, gap_of, gap_record
from everyhop.auditlog.preparing import prepared
from everyhop.auditlog.trace import joined
from everyhop.control.app_events import EventClaim, event_record_of
from everyhop.core.errors import EveryhopError, InputError
from everyhop.dataplane.spool import DEFAULT_LIMIT, LOG, SpoolReader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from everyhop.agent import WorkloadService
    from everyhop.core.clock import Clock, Entropy
    from everyhop.wire.peers import PeerInfo

C = TypeVar("C", "Claim", EventClaim)
_log = logging.getLogger(__name__)

MAX_BATCH: Final = 200
RATE_PER_SECOND: Final = 1000
BURST: Final = 5000
_SUFFIX_BYTES: Final = 4
_LATE: Final = timedelta(hours=1)
_EARLY: Final = timedelta(seconds=5)
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_CODE: Final = re.compile(r"[A-Z][A-Z_]{1,40}", re.ASCII)
_REASON: Final = re.compile(r"[a-z][a-z-]{0,40}", re.ASCII)
_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DIRECTORY: Final = re.compile(r"(.+)@([0-9a-f]{8})")
_LAST_STATUS: Final = 599
_TRACE_LENGTH: Final = 49


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One decision as a workload tells it; nothing in it is checked yet.

    ``time`` is in microseconds, ``trace`` two ids with a dash between them.
    """

    id: str
    time: int
    allowed: bool
    caller: str = ""
    operation: str = ""
    method: str = ""
    path: str = ""
    rule: str = ""
    reason: str = ""
    code: str = ""
    status: int = 0
    user: str = ""
    snapshot: str = ""
    detail: str = ""
    trace: str = ""


@dataclass(slots=True)
class _Allowance:
    """A token bucket: how many records a service may still hand in now."""

    left: float = BURST
    since: datetime = field(default_factory=lambda: datetime.min.replace(tzinfo=UTC))

    def take(self, wanted: int, now: datetime) -> int:
        grown = max(0.0, (now - self.since).total_seconds()) * RATE_PER_SECOND
        self.left, self.since = min(BURST, self.left + grown), now
        taken = min(wanted, int(self.left))
        self.left -= taken
        return taken


class ApplicationDecisions:
    """Takes batches and spools them, one directory a service.  Used from one event loop."""

    def __init__(
        self,
        workloads: WorkloadService,
        directory: Path,
        *,
        clock: Clock,
        entropy: Entropy,
        limit: int = DEFAULT_LIMIT,
    ) -> None:
        """Go on where an agent before has stopped: what lies in ``directory`` is forwarded.

        ``limit`` is how many bytes of one service may wait.
        """
        self._limit = limit
        self._lost: dict[str, int] = {}
        self._workloads = workloads
        self._directory = directory
        self._clock = clock
        self._entropy = entropy
        self._allowances: dict[tuple[str, bool], _Allowance] = {}
        self._producers: dict[str, str] = {}
        self._spools: dict[str, SpoolReader] = {}
        directory.mkdir(mode=0o700, exist_ok=True)
        for path in sorted(directory.iterdir()):
            match = _DIRECTORY.fullmatch(path.name)
            if match is not None and path.is_dir():
                self._open(match[1], path.name)

    @property
    def spools(self) -> list[SpoolReader]:
        """Return what is to be forwarded, in no particular order."""
        return list(self._spools.values())

    async def take(
        self, peer: PeerInfo, claims: Sequence[Claim], *, dropped: int = 0, spiffe_id: str = ""
    ) -> tuple[int, int]:
        """Keep what a peer decided; return how many were taken, and how many were beyond its rate or room.

        Raises InputError for a batch that is too long or a decision without a proper id (nothing of such a batch is
        kept), AccessDenied for a peer without an identity, or with another than ``spiffe_id``.
        """
        return await self._take(peer, claims, record_of, dropped=dropped, spiffe_id=spiffe_id)

    async def take_events(
        self,
        peer: PeerInfo,
        claims: Sequence[EventClaim],
        *,
        dropped: int = 0,
        spiffe_id: str = "",
        durable: bool = False,
    ) -> tuple[int, int]:
        """Keep what a peer says that somebody did in it, as :meth:`take`; with ``durable`` it is on the disk then."""
        return await self._take(
            peer, claims, _event_record, dropped=dropped, spiffe_id=spiffe_id, durable=durable
        )

    async def _take(
        self,
        peer: PeerInfo,
        claims: Sequence[C],
        record: Callable[[C, str, int, datetime], Record],
        *,
        dropped: int,
        spiffe_id: str,
        durable: bool = False,
    ) -> tuple[int, int]:
        if len(claims) > MAX_BATCH:
            raise InputError(f"a batch has at most {MAX_BATCH} entries")
        if any(not _ID.fullmatch(claim.id) for claim in claims):
            raise InputError("an id is 1 to 64 letters, digits and dashes")
        service = await self._workloads.service_of(peer, spiffe_id)
        now = self._clock.now()
        # Of its own for each, so that no number of events crowds out what was refused.
        lane = (service.name, record is _event_record)
        allowance = self._allowances.setdefault(lane, _Allowance(since=now))
        taken = allowance.take(len(claims), now)
        producer = self._producers.get(service.name) or self._new(service.name)
        records = [record(claim, service.name, peer.pid, now) for claim in claims[:taken]]
        lost = dropped + len(claims) - taken + self._lost.pop(producer, 0)
        if lost:
            _log.warning(
                "records of an application were lost", extra={"service": service.name, "count": lost}
            )
            records.append(_loss(service.name, lost, now))
        try:
            descriptor = self._append(producer, records)
            try:
                if durable:
                    await asyncio.to_thread(_sync, descriptor, self._directory / producer)
            finally:
                os.close(descriptor)
        except OSError as error:
            # The disk is full: the workload goes on, and what is lost is told with the next batch that fits.
            _log.error(
                "records of an application cannot be kept",
                extra={"service": service.name, "reason": str(error)},
            )
            self._lost[producer] = lost + taken
            return 0, len(claims)
        return taken, len(claims) - taken

    # -- the files

    def _new(self, service: str) -> str:
        producer = f"{service}@{self._entropy.token_bytes(_SUFFIX_BYTES).hex()}"
        (self._directory / producer).mkdir(mode=0o700)
        self._open(service, producer)
        return producer

    def _open(self, service: str, producer: str) -> None:
        self._producers[service] = producer
        self._spools[producer] = SpoolReader(
            self._directory / producer, instance=producer, reopen=_nothing, parse=numbered, limit=self._limit
        )

    def _append(self, producer: str, records: Sequence[Record]) -> int:
        """Write lines, and return the open file; opened each time, since the reader puts a long one aside."""
        data = b"".join(encode_record(record) + b"\n" for record in records)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._directory / producer / LOG, flags, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if os.write(descriptor, data) != len(data):
                os.ftruncate(descriptor, size)  # all of a batch or nothing; nobody else writes here
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def record_of(claim: Claim, service: str, pid: int, now: datetime) -> Record:
    """Return the record of a claim, still without its place in the spool.

    Texts are cut, and characters that are not printable are replaced; what has not the form of a code, a reason or a
    snapshot is left out; a time that cannot be is now.
    """
    detail = {
        "decision": claim.id,
        "code": claim.code if _CODE.fullmatch(claim.code) else None,
        "user": _plain(claim.user, 256),
        "detail": _plain(claim.detail, 512),
        "pid": pid,
    }
    found = Record(
        id=claim.id,
        seq=1,
        producer=service,
        time=_moment(claim.time, now),
        kind=Kind.DECISION,
        point=Point.SDK,
        caller=_plain(claim.caller, 2048),
        target=service,
        operation=_plain(claim.operation, 128),
        method=_plain(claim.method, 32),
        path=_plain(claim.path, 1024),
        decision="allow" if claim.allowed else "deny",
        rule=_plain(claim.rule, 256),
        reason=claim.reason if _REASON.fullmatch(claim.reason) else None,
        snapshot=claim.snapshot if _HASH.fullmatch(claim.snapshot) else None,
        status=claim.status if claim.status <= _LAST_STATUS else None,
        trace=_trace(claim.trace),
        detail={name: value for name, value in detail.items() if value is not None},
    )
    return prepared(found)


def _sync(descriptor: int, directory: Path) -> None:
    """Bring a file of a spool to the disk, its name included."""
    os.fsync(descriptor)
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _event_record(claim: EventClaim, service: str, pid: int, now: datetime) -> Record:
    moment = _moment(claim.time, now)
    return event_record_of(claim, service, pid, moment=moment, trace=_trace(claim.trace))


def numbered(line: bytes, *, instance: str, seq: int) -> Record:
    """Return a spooled record with its place: ``DECISION.SPOOL-NUMBER`` is its id; never raises on any bytes."""
    suffix = f"{instance.rpartition('@')[2]}-{seq}"
    try:
        record = decode_record(line)
        if gap_of(record) is not None:
            record = replace(record, detail={**record.detail, "from": seq, "to": seq})
        return replace(record, id=f"{record.id}.{suffix}", producer=instance, seq=seq)
    except EveryhopError:
        return Record(
            id=f"unreadable.{suffix}",
            seq=seq,
            producer=instance,
            time=datetime.now(UTC),
            kind=Kind.LIFECYCLE,
            point=Point.SDK,
            reason="unreadable-line",
            detail={"bytes": len(line), "start": clip(repr(line[:200]), 400)},
        )


def _loss(service: str, count: int, now: datetime) -> Record:
    gap = Gap(1, 1, min(count, 2**53), GapReason.RATE.value)
    record = gap_record(gap, producer=service, record_id="gap", now=now, target=service)
    return replace(record, point=Point.SDK)


def _trace(text: str) -> str | None:
    return joined(text[:32], text[33:]) if len(text) == _TRACE_LENGTH and text[32] == "-" else None


def _moment(micros: int, now: datetime) -> datetime:
    earliest, latest = now - _LATE, now + _EARLY
    if earliest.timestamp() <= micros / 1_000_000 <= latest.timestamp():
        return datetime.fromtimestamp(micros / 1_000_000, UTC)
    return now


def _plain(text: str, limit: int) -> str | None:
    if not text:
        return None
    cut = clip(text, limit)
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in cut)


def _nothing() -> None:
    """Nothing has to be reopened: the file is opened for each batch."""
