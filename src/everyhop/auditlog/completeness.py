# SPDX-License-Identifier: Apache-2.0
"""Completeness: which numbers of which producers are missing, what explains that, and what nobody has signed.

Integrity says that what is in the log was not changed since; this says what the log may never have held, and which
records were not made by the producer that they name.  Lines and seals are read once, in the order of producer and
number, and only what is notable is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from everyhop.auditlog.codec import decode_record
from everyhop.auditlog.gaps import gap_of
from everyhop.auditlog.model import Record
from everyhop.auditlog.sealing import (
    MARK_BYTES,
    Seal,
    Stored,
    check_signature,
    digest_of,
    seal_digest,
)
from everyhop.auditlog.signers import Signers
from everyhop.core.clock import rfc3339
from everyhop.core.errors import EveryhopError
from everyhop.tlog.merkle import leaf_hash

MAX_SHOWN: Final = 1000


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers ``first`` to ``last`` of a producer."""

    producer: str
    first: int
    last: int
    why: str | None = None

    @property
    def count(self) -> int:
        """Return how many numbers these are."""
        return self.last - self.first + 1

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        told: dict[str, object] = {"producer": self.producer, "from": self.first, "to": self.last}
        return told if self.why is None else told | {"why": self.why}


@dataclass(slots=True)
class Ranges:
    """Ranges of one sort: all of them counted, the first 1,000 kept."""

    shown: list[Range] = field(default_factory=list)
    total: int = 0
    records: int = 0

    def add(self, found: Range) -> None:
        """Count one more; one that goes on where the last one ended is the same."""
        self.records += found.count
        last = self.shown[-1] if self.shown and self.total <= MAX_SHOWN else None
        if last is not None and (last.producer, last.last + 1, last.why) == (
            found.producer,
            found.first,
            found.why,
        ):
            self.shown[-1] = Range(last.producer, last.first, found.last, last.why)
            return
        self.total += 1
        if len(self.shown) < MAX_SHOWN:
            self.shown.append(found)

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {"ranges": self.total, "records": self.records, "shown": [one.to_dict() for one in self.shown]}


@dataclass(slots=True)
class Producer:
    """What was found of one producer."""

    name: str
    first: int
    last: int
    records: int = 0
    sealed: int = 0
    last_time: datetime | None = None
    signer: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "producer": self.name,
            "first": self.first,
            "last": self.last,
            "records": self.records,
            "sealed": self.sealed,
            "signer": self.signer,
            "last_time": None if self.last_time is None else rfc3339(self.last_time),
        }


@dataclass(slots=True)
class Completeness:
    """What is known of the log's completeness.

    ``missing`` are numbers that are not there and that no gap record explains; ``lost`` what gap records say (by
    reason: how many, and how often nobody knows how many); ``altered`` records that are not what their producer
    signed; ``refused`` seals that do not hold; ``unsealed`` records that a producer which seals has not sealed;
    ``never_sealed`` those of producers without any seal (an older release); ``before`` numbers that went with old
    records.
    """

    records: int = 0
    seals: int = 0
    producers: dict[str, Producer] = field(default_factory=dict)
    producers_total: int = 0
    missing: Ranges = field(default_factory=Ranges)
    explained: Ranges = field(default_factory=Ranges)
    altered: Ranges = field(default_factory=Ranges)
    refused: Ranges = field(default_factory=Ranges)
    unsealed: Ranges = field(default_factory=Ranges)
    never_sealed: Ranges = field(default_factory=Ranges)
    before: Ranges = field(default_factory=Ranges)
    lost: Counter[str] = field(default_factory=Counter)
    lost_unknown: Counter[str] = field(default_factory=Counter)

    @property
    def is_complete(self) -> bool:
        """Tell whether every number is there or explained, and all that producers signed is as they signed it."""
        return not (self.missing.total or self.is_contradicted)

    @property
    def is_contradicted(self) -> bool:
        """Tell whether something is there that its producer did not write so."""
        return bool(self.altered.total or self.refused.total or self.unsealed.total)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``log verify -o json`` prints them."""
        return {
            "complete": self.is_complete,
            "records": self.records,
            "seals": self.seals,
            "producers": [one.to_dict() for one in self.producers.values()],
            "producers_total": self.producers_total,
            "missing": self.missing.to_dict(),
            "explained": self.explained.to_dict(),
            "lost": {
                reason: {"records": self.lost[reason], "times_unknown": self.lost_unknown[reason]}
                for reason in sorted(self.lost.keys() | self.lost_unknown.keys())
            },
            "altered": self.altered.to_dict(),
            "refused_seals": self.refused.to_dict(),
            "unsealed": self.unsealed.to_dict(),
            "never_sealed": self.never_sealed.to_dict(),
            "before_what_is_kept": self.before.to_dict(),
        }

    def sentences(self) -> list[str]:
        """Return what an operator reads, one sentence a line."""
        said = [
            f"{self.records} records of {self.producers_total} producers, {self.seals} seals: "
            + ("complete" if self.is_complete else "NOT complete")
        ]
        for title, found in (
            ("missing", self.missing),
            ("not what its producer signed", self.altered),
            ("seal refused", self.refused),
            ("signed by nobody", self.unsealed),
        ):
            for one in found.shown[:20]:
                tail = "" if one.why is None else f": {one.why}"
                numbers = str(one.first) if one.first == one.last else f"{one.first} to {one.last}"
                said.append(f"{title}: {one.producer} {numbers}{tail}")
            if found.total > 20:  # noqa: PLR2004  # what fits on a screen
                said.append(f"{title}: {found.total - 20} ranges more")
        for reason in sorted(self.lost.keys() | self.lost_unknown.keys()):
            unknown = self.lost_unknown[reason]
            tail = f", and {unknown} times an unknown number" if unknown else ""
            said.append(f"told lost ({reason}): {self.lost[reason]} records{tail}")
        if self.never_sealed.records:
            said.append(f"of producers that never sealed: {self.never_sealed.records} records")
        return said


def check_completeness(
    lines: Iterable[Stored],
    seals: Iterable[Seal],
    certificates: Mapping[str, bytes],
    authorities: Sequence[bytes],
    *,
    pruned: Mapping[str, Sequence[tuple[int, int]]] | None = None,
) -> Completeness:
    """Return what is missing, lost or invented.

    ``lines`` and ``seals`` come in the order of producer and number, as ``SqlSealStore`` yields them;
    ``certificates`` are chains (DER, leaf first, joined) by the SHA-256 of the leaf in hex; ``authorities`` the
    CA certificates (DER) that were ever trusted, from a place that whoever may write the database cannot reach.
    ``pruned`` are by producer the ranges of numbers whose records were removed for their age, in their order.
    Never raises for what is in the log: what cannot be read is reported.
    """
    found = Completeness()
    signers = Signers(certificates, authorities)
    waiting = _Peekable(seals)
    producer: _Reading | None = None
    for stored in lines:
        if producer is None or producer.name != stored.producer:
            if producer is not None:
                producer.end(waiting)
            _orphans(found, waiting, stored.producer, pruned)
            gone = () if pruned is None else pruned.get(stored.producer, ())
            producer = _Reading(found, signers, stored.producer, gone)
        producer.take(stored, waiting)
    if producer is not None:
        producer.end(waiting)
    _orphans(found, waiting, None, pruned)
    return found


class _Peekable:
    """Seals, with a look at the next one."""

    def __init__(self, seals: Iterable[Seal]) -> None:
        self._seals: Iterator[Seal] = iter(seals)
        self.next: Seal | None = next(self._seals, None)

    def take(self) -> Seal:
        seal = self.next
        assert seal is not None  # noqa: S101  # whoever takes has looked
        self.next = next(self._seals, None)
        return seal


def _orphans(
    found: Completeness,
    seals: _Peekable,
    until: str | None,
    pruned: Mapping[str, Sequence[tuple[int, int]]] | None,
) -> None:
    """Report the records of producers of which only seals are left."""
    while seals.next is not None and (until is None or seals.next.producer < until):
        seal = seals.take()
        found.seals += 1
        gone = () if pruned is None else pruned.get(seal.producer, ())
        _absent(found, Range(seal.producer, seal.first, seal.last, "only its seal is left"), gone)


def _absent(found: Completeness, hole: Range, gone: Sequence[tuple[int, int]]) -> None:
    """Report numbers that are not there: those that went for their age, and those that are missing."""
    first = hole.first
    for start, end in gone:
        if end < first:
            continue
        if start > hole.last:
            break
        if start > first:
            found.missing.add(Range(hole.producer, first, start - 1, hole.why))
        found.before.add(Range(hole.producer, max(first, start), min(end, hole.last)))
        first = end + 1
    if first <= hole.last:
        found.missing.add(Range(hole.producer, first, hole.last, hole.why))


class _Reading:
    """One producer while its lines pass by."""

    def __init__(
        self, found: Completeness, signers: Signers, name: str, gone: Sequence[tuple[int, int]]
    ) -> None:
        self.name = name
        self._found = found
        self._signers = signers
        self._gone = gone
        self._expected = 1
        self._producer: Producer | None = None
        self._seal: Seal | None = None
        self._leaves: list[bytes] = []
        self._previous: Seal | None = None
        self._sealed_up_to = 0
        self._first_sealed: int | None = None
        self._loose = Ranges()

    def take(self, stored: Stored, seals: _Peekable) -> None:
        record = self._read(stored)
        self._note(stored.seq, record)
        self._holes(stored.seq, record)
        self._expected = stored.seq + 1
        self._advance(stored.seq, seals)
        leaf = b"" if record is None else leaf_hash(stored.line)
        if self._seal is None or not self._seal.first <= stored.seq <= self._seal.last:
            self._loose.add(Range(self.name, stored.seq, stored.seq))
            return
        assert self._producer is not None  # noqa: S101  # noted above
        self._producer.sealed += 1
        start = (stored.seq - self._seal.first) * MARK_BYTES
        if leaf[:MARK_BYTES] != self._seal.marks[start : start + MARK_BYTES]:
            self._found.altered.add(Range(self.name, stored.seq, stored.seq))
        self._leaves.append(leaf)

    def end(self, seals: _Peekable) -> None:
        self._advance(None, seals)
        for loose in self._loose.shown:
            is_before = self._first_sealed is None or loose.last < self._first_sealed
            (self._found.never_sealed if is_before else self._found.unsealed).add(loose)
        # Beyond what is kept one by one, the count still holds.
        self._found.unsealed.records += self._loose.records - sum(one.count for one in self._loose.shown)

    def _read(self, stored: Stored) -> Record | None:
        """Return the record of a line that stands where its row says."""
        try:
            record = decode_record(stored.line)
        except EveryhopError:
            return None
        return record if (record.producer, record.seq) == (stored.producer, stored.seq) else None

    def _note(self, seq: int, record: Record | None) -> None:
        self._found.records += 1
        if self._producer is None:
            self._producer = Producer(self.name, seq, seq)
            self._found.producers_total += 1
            if len(self._found.producers) < MAX_SHOWN:
                self._found.producers[self.name] = self._producer
        self._producer.last = seq
        self._producer.records += 1
        if record is None:
            self._found.altered.add(Range(self.name, seq, seq, "it stands in another's place"))
        else:
            self._producer.last_time = record.time

    def _holes(self, seq: int, record: Record | None) -> None:
        """Report the numbers between the last line and this one."""
        gap = None if record is None else gap_of(record)
        if gap is not None:
            if gap.count is None:
                self._found.lost_unknown[gap.reason] += 1
            else:
                # The producer may have counted some that arrived, when it did not hear the answer.
                here = gap.last - max(gap.first, self._expected) + 1
                self._found.lost[gap.reason] += gap.count if gap.first == gap.last else min(gap.count, here)
        first, last = self._expected, seq - 1
        if first > last:
            return
        if gap is not None and gap.first <= last:
            self._found.explained.add(Range(self.name, max(first, gap.first), last, gap.reason))
            last = gap.first - 1
        if first > last:
            return
        _absent(self._found, Range(self.name, first, last), self._gone)

    def _advance(self, seq: int | None, seals: _Peekable) -> None:
        """Finish the seals that end before ``seq`` (all, for None), and take the one that covers it."""
        while True:
            if self._seal is not None and (seq is None or self._seal.last < seq):
                self._finish(self._seal)
                self._seal = None
            following = seals.next
            if self._seal is not None or following is None or following.producer != self.name:
                return
            if seq is not None and following.first > seq:
                return
            self._seal, self._leaves = seals.take(), []
            if self._first_sealed is None:
                self._first_sealed = self._seal.first

    def _finish(self, seal: Seal) -> None:
        """Check a seal whose records have all passed by."""
        self._found.seals += 1
        why = self._trouble(seal)
        if why is not None:
            self._found.refused.add(Range(self.name, seal.first, seal.last, why))
        if seal.last >= self._expected:
            _absent(
                self._found, Range(self.name, self._expected, seal.last, "signed, and not there"), self._gone
            )
        self._expected = max(self._expected, seal.last + 1)
        self._previous, self._sealed_up_to = seal, max(self._sealed_up_to, seal.last)

    def _trouble(self, seal: Seal) -> str | None:
        """Say what is wrong with a seal, None when nothing is."""
        try:
            signer = self._signers.at(seal.certificate, seal.time)
            check_signature(seal, self._signers.leaf(seal.certificate))
        except EveryhopError as error:
            return error.message
        assert self._producer is not None  # noqa: S101  # a line has passed by
        if self._producer.signer not in {None, signer}:
            return f"signed by {signer}, those before by {self._producer.signer}"
        self._producer.signer = signer
        if seal.first <= self._sealed_up_to:
            return "it is over records that another seal is over"
        if self._previous is not None and seal.previous != seal_digest(self._previous):
            return "it follows another seal than the one before it: one is missing between"
        if self._previous is None and seal.previous and not self._gone:
            return "it follows a seal that is missing"
        is_whole = len(self._leaves) == seal.last - seal.first + 1
        if is_whole and digest_of(self._leaves) != seal.digest:
            return "the records are not those that were signed"
        return None
