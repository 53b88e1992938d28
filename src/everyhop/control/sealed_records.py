# SPDX-License-Identifier: Apache-2.0
"""Batches of agents: what their seals must prove before a record is stored, and what is done with those that do not.

An agent signs for the producers of its own node and for no other agent's; the server's own producers are nobody's
else.  A batch that does not fit is refused as a whole, and the refusal is recorded, once for each that differs.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from everyhop.auditlog import Event, Kind
from everyhop.auditlog.gaps import gap_of
from everyhop.auditlog.sealing import (
    SealedResult,
    SealError,
    agent_path,
    check_records,
    check_signature,
    marks_of,
)
from everyhop.core.errors import EveryhopError
from everyhop.spiffe.x509_svid import validate_x509_svid
from everyhop.x509.thumbprint import sha256_fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from everyhop.auditlog import AppendResult, Record, SealStore
    from everyhop.auditlog.sealing import Seal
    from everyhop.control.messages import RecordBatch
    from everyhop.core.clock import Clock
    from everyhop.spiffe import SpiffeId
    from everyhop.spiffe.bundle import Bundle

_log = logging.getLogger(__name__)

OWN_PRODUCERS: Final = ("server", "authzen")
"""Beginnings of the names of the server's own producers, up to a dash."""

_EARLY: Final = timedelta(minutes=1)
_KNOWN_CHAINS: Final = 256
_KNOWN_REFUSALS: Final = 1024


class Log(Protocol):
    """The log as unsealed batches and refusals reach it."""

    def append(self, records: Sequence[Record]) -> AppendResult:
        """Append in one transaction."""

    def note(self, event: Event) -> Record:
        """Append an event of this process."""


class SealedRecords:
    """Takes batches of agents.  Blocking; safe to share between threads."""

    def __init__(self, *, seals: SealStore, log: Log, bundle: Callable[[], Bundle], clock: Clock) -> None:
        """``bundle`` returns the trust bundle in force, or raises Unavailable."""
        self._seals = seals
        self._log = log
        self._bundle = bundle
        self._clock = clock
        self._chains: OrderedDict[tuple[str, int | None], tuple[SpiffeId, datetime]] = OrderedDict()
        self.told_lost: dict[str, tuple[int, int]] = {}
        """By reason: how many records, and how often an unknown number."""
        self._refused: OrderedDict[tuple[object, ...], None] = OrderedDict()

    def take(self, batch: RecordBatch) -> SealedResult:
        """Store a batch durably, or tell how far its producer is held.

        Raises SealError for one that does not fit, after that is recorded; what the store raises.
        """
        try:
            for record in batch.records:
                _check_owner(record.producer)
            if batch.seal is None:
                return self._take_unsealed(batch)
            return self._take_sealed(batch, batch.seal)
        except SealError as refusal:
            self._note(batch, refusal)
            raise

    def _take_unsealed(self, batch: RecordBatch) -> SealedResult:
        """Take records of an agent that does not seal yet; a producer that has begun to must go on."""
        for producer in sorted({record.producer for record in batch.records}):
            if self._seals.is_sealing(producer):
                raise SealError("missing", f"{producer} seals its records, and these have no seal")
        result = self._log.append(batch.records)
        return SealedResult(
            held=0,
            head=b"",
            stored=result.stored,
            duplicates=result.duplicates,
            conflicts=result.conflicts,
        )

    def _take_sealed(self, batch: RecordBatch, seal: Seal) -> SealedResult:
        now = self._clock.now()
        if not batch.chain:
            raise SealError("certificate", "a seal comes with the certificate of its signer")
        if seal.time > now + _EARLY:
            raise SealError("time", "a seal from the future")
        signer = self._signer(batch.chain, now)
        if signer.path != agent_path(batch.agent):
            raise SealError("signer", f"{signer} does not sign for the agent {batch.agent[:128]!r}")
        check_signature(seal, batch.chain[0])
        leaves = check_records(seal, batch.records)
        result = self._store(batch, seal, leaves, now)
        if result.stored:
            self._note_gaps(batch.records)
        return result

    def _store(self, batch: RecordBatch, seal: Seal, leaves: Sequence[bytes], now: datetime) -> SealedResult:
        marked = msgspec.structs.replace(seal, marks=marks_of(leaves))
        return self._seals.append(batch.records, marked, batch.chain, now=now)

    def _note_gaps(self, records: Sequence[Record]) -> None:
        """Remember for the status what producers told lost since this process began."""
        for record in records:
            gap = gap_of(record)
            if gap is not None:
                count, unknown = self.told_lost.get(gap.reason, (0, 0))
                is_unknown = gap.count is None
                self.told_lost[gap.reason] = (count + (gap.count or 0), unknown + is_unknown)

    def _signer(self, chain: Sequence[bytes], now: datetime) -> SpiffeId:
        """Return whose chain it is; one that was believed is not checked again until the bundle changes."""
        bundle = self._bundle()
        key = (sha256_fingerprint(b"".join(chain)), bundle.sequence)
        known = self._chains.get(key)
        if known is not None and now < known[1]:
            return known[0]
        try:
            svid = validate_x509_svid(chain, bundle, now)
        except EveryhopError as error:
            raise SealError(
                "certificate", f"the signer's certificate is not believed: {error.message}"
            ) from error
        self._chains[key] = (svid.spiffe_id, svid.not_after)
        while len(self._chains) > _KNOWN_CHAINS:
            with suppress(KeyError):  # another thread was quicker
                self._chains.popitem(last=False)
        return svid.spiffe_id

    def _note(self, batch: RecordBatch, refusal: SealError) -> None:
        first = batch.records[0] if batch.records else None
        place = (None, None) if first is None else (first.producer, first.seq)
        key = (batch.agent[:128], *place, refusal.reason)
        if key in self._refused:
            return
        _log.error("a batch of records was refused", extra={"agent": batch.agent, "reason": refusal.message})
        self._log.note(
            Event(
                kind=Kind.LOG,
                action="refuse",
                time=self._clock.now(),
                decision="deny",
                reason=f"seal-{refusal.reason}",
                detail={
                    "agent": batch.agent,
                    "producer": place[0],
                    "from": place[1],
                    "count": len(batch.records),
                    "why": refusal.message,
                },
            )
        )
        self._refused[key] = None
        if len(self._refused) > _KNOWN_REFUSALS:
            self._refused.popitem(last=False)


def _check_owner(producer: str) -> None:
    if producer.partition("-")[0] in OWN_PRODUCERS:
        raise SealError("owner", f"{producer} is a producer of the server's own")
