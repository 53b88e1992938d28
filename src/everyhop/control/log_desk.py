# SPDX-License-Identifier: Apache-2.0
"""What is asked of the audit log, and what comes into it from agents: persons are pseudonyms inside, and real outside."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from everyhop.auditlog import Event, Kind, Order, RecordFilter, Report, Tally
from everyhop.auditlog.personal import PersonKind
from everyhop.control.bounded import within
from everyhop.control.sealed_records import SealedRecords
from everyhop.core.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from concurrent.futures import Executor
    from datetime import datetime, timedelta

    from everyhop.auditlog import Page, Record, RecordStore, SealStore
    from everyhop.auditlog.model import Scalar
    from everyhop.auditlog.personal import Wish
    from everyhop.auditlog.sealing import SealedResult
    from everyhop.control.messages import RecordBatch
    from everyhop.control.ports import SnapshotStore
    from everyhop.control.pseudonymity import Pseudonymity
    from everyhop.core.clock import Clock
    from everyhop.spiffe.bundle import Bundle

T = TypeVar("T")
_log = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 5.0
FOLLOW_PAGE: Final = 500
FOLLOW_SECONDS: Final = 0.25  # how long records of another server stay unseen by who follows the log
_WOULD: Final = b'"would":"'  # in the line of every record that a policy in shadow would decide otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPorts:
    """What the log's desk stands on."""

    records: RecordStore
    seals: SealStore
    snapshots: SnapshotStore
    pseudonymity: Pseudonymity
    clock: Clock
    pool: Executor
    effects: Executor
    keep: timedelta


class LogDesk:
    """Takes records in, searches and follows them.  Used from one event loop."""

    def __init__(
        self, ports: LogPorts, *, bundle: Callable[[], Bundle], snapshot_hash: Callable[[], str]
    ) -> None:
        """``bundle`` is the one in force, ``snapshot_hash`` that of the policy in force; both may raise Unavailable."""
        self._p = ports
        self._records = ports.records
        self._names = ports.pseudonymity
        self._clock = ports.clock
        self._snapshot_hash = snapshot_hash
        self._grown = asyncio.Event()
        self._sealed = SealedRecords(seals=ports.seals, log=ports.records, bundle=bundle, clock=ports.clock)
        self.followers: list[Callable[[], None]] = []
        """What is called when the log has grown."""

    @property
    def told_lost(self) -> Mapping[str, tuple[int, int]]:
        """Return how many records agents have told lost since the start, by reason, and how often without a number."""
        return self._sealed.told_lost

    async def _work(self, call: Callable[..., T], /, *args: object, **kwargs: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._p.pool, partial(call, *args, **kwargs))

    async def take(self, batch: RecordBatch) -> SealedResult:
        """Store a batch of an agent durably, or tell how far its producer is held.

        Raises SealError, and Conflict when a pseudonym in it is nobody's (any more).
        """

        def take() -> SealedResult:
            self._names.check(batch.records)
            return self._sealed.take(batch)

        result = await within(self._p.effects, take)
        self._wake()
        return result

    def _wake(self) -> None:
        """Let those who follow the log look at once."""
        self._grown.set()
        self._grown = asyncio.Event()
        for wake in self.followers:
            wake()

    async def pseudonyms(self, wanted: list[Wish]) -> list[str]:
        """Return pseudonyms of persons, in the order given."""
        return await self._work(self._names.names_of, wanted)

    async def forget(self, person: Wish, *, reason: str, by: str) -> str:
        """Forget a person, record it, and return what was their pseudonym; raises NotFound."""
        kind, value = person
        return await self._work(self._names.forget, kind, value, reason=reason, by=by, at=self._clock.now())

    async def query(
        self,
        wanted: RecordFilter,
        *,
        order: Order,
        cursor: int | None,
        limit: int,
        as_stored: bool = False,
    ) -> Page:
        """Return one page of records, with persons in place of their pseudonyms unless ``as_stored``.

        A user or address that is looked for may be given either way.
        """

        def ask() -> Page:
            asked = self._as_stored(wanted)
            page = self._records.query(asked, order=order, cursor=cursor, limit=limit)
            return page if as_stored else replace(page, records=self._names.reveal(page.records))

        return await self._work(ask)

    async def newest_position(self) -> int:
        """Return where the newest record stands, 0 in an empty log."""
        page = await self._work(self._records.query, RecordFilter(), order=Order.NEWEST, limit=1)
        return page.first or 0

    async def follow(
        self,
        wanted: RecordFilter,
        position: int,
        *,
        as_stored: bool = False,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> AsyncIterator[tuple[int, list[tuple[int, Record]]]]:
        """Yield how far the log was read and what of it matches, with positions; at least every so many seconds."""
        names = self._names
        wanted = await self._work(self._as_stored, wanted)
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            grown = self._grown  # looked for before the page, so that nothing comes between unnoticed
            page = await self._work(
                self._records.query, RecordFilter(), order=Order.OLDEST, cursor=position, limit=FOLLOW_PAGE
            )
            if page.last is not None:
                position = page.last
                found = [
                    (n, r) for n, r in zip(page.positions, page.records, strict=True) if wanted.matches(r)
                ]
                if found and not as_stored:
                    records = await self._work(names.reveal, [record for _, record in found])
                    found = [(n, record) for (n, _), record in zip(found, records, strict=True)]
                yield position, found
                due = loop.time() + heartbeat_seconds
                continue
            if loop.time() >= due:
                yield position, []
                due = loop.time() + heartbeat_seconds
            with suppress(TimeoutError):
                await asyncio.wait_for(grown.wait(), FOLLOW_SECONDS)

    async def note_read(self, *, by: str, detail: dict[str, Scalar]) -> None:
        """Record that the log was read.  A log that cannot be written is still read: that is when it is needed."""
        event = Event(
            kind=Kind.LOG, action="read", time=self._clock.now(), caller=by, decision="allow", detail=detail
        )
        try:
            await self._work(self._records.note, event)
        except Unavailable as error:
            _log.warning("a read of the log is not recorded", extra={"by": by, "reason": error.message})
        self._wake()

    def _as_stored(self, wanted: RecordFilter) -> RecordFilter:
        """Return a filter with pseudonyms for the persons that it names."""
        names = self._names
        return replace(
            wanted,
            user=None if wanted.user is None else names.known(PersonKind.USER, wanted.user),
            address=None if wanted.address is None else names.known(PersonKind.ADDRESS, wanted.address),
        )

    async def decision(self, decision_id: str) -> list[Record]:
        """Return the records of one decision, the one that decided first; raises NotFound.

        A sidecar and the application behind it record one call under one id: the first refusal decided.  What
        another service says of the id is its own word, and stands last.
        """
        found: list[Record] = await self._work(self._records.of_decision, decision_id)
        if not found:
            raise NotFound(
                f"no decision {decision_id[:80]} is recorded",
                hint="records arrive within a second of the call",
            )
        found = list(await self._work(self._names.reveal, found))
        target = found[0].target
        return sorted(found, key=lambda record: (record.target != target, record.decision != "deny"))

    async def tally(self, since: datetime, *, only_shadow: bool) -> Report:
        """Return the decisions since a time, added up; with ``only_shadow`` those that a policy in shadow would change."""
        snapshot = self._snapshot_hash()

        def add_up() -> Report:
            tally = Tally(only_shadow=only_shadow)
            wanted = RecordFilter(kind=Kind.DECISION, since=since)
            for page in self._records.scan(wanted, holding=_WOULD if only_shadow else None):
                tally.take(page)
            # Of each producer the last record stays when older ones go, so the oldest one says nothing about the others.
            oldest, kept = (
                self._records.first_time(Kind.DECISION),
                self._clock.now() - self._p.keep,
            )
            return Report(
                since=since,
                groups=tally.groups(),
                counted=tally.counted,
                left_out=tally.left_out,
                records_from=None if oldest is None else max(oldest, kept),
                policy_from=self._p.snapshots.in_force_since(snapshot),
                snapshot=snapshot,
            )

        return await self._work(add_up)
