# SPDX-License-Identifier: Apache-2.0
"""The single append path: every record, whoever made it, is inserted by a ``RecordWriter``.

It runs inside a transaction that the caller holds, so a change of state and its record are written together or
not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.auditlog.codec import MAX_BATCH_RECORDS
from everyhop.auditlog.model import MAX_NAME, MAX_TEXT, Event, Point, Record, clip
from everyhop.auditlog.preparing import prepared
from everyhop.core.clock import Entropy
from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from everyhop.auditlog.ports import RecordWriter

ID_BYTES: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendResult:
    """What became of a batch.

    ``stored`` counts new records, ``duplicates`` those that were there already (a repeated delivery, harmless).
    ``conflicts`` holds the ids of records whose place (producer, seq) or id is taken by something else: never
    harmless, and to be reported, but no reason to stop the spool.
    """

    stored: int
    duplicates: int
    conflicts: tuple[str, ...] = ()


def append_records(writer: RecordWriter, records: Sequence[Record]) -> AppendResult:
    """Append records in the order given, without credentials and within their bounds; repeating a call changes nothing.

    Raises InputError for more than 20,000 records in one call.
    """
    check_batch(records)
    if not records:
        return AppendResult(stored=0, duplicates=0)
    return writer.insert([prepared(record) for record in records])


def check_batch(records: Sequence[Record]) -> None:
    """Raise InputError for more than 20,000 records."""
    if len(records) > MAX_BATCH_RECORDS:
        raise InputError(f"a batch has at most {MAX_BATCH_RECORDS} records")


def append_event(writer: RecordWriter, event: Event, *, producer: str, entropy: Entropy) -> Record:
    """Number an event of this process, append it, and return the record."""
    (record,) = append_events(writer, (event,), producer=producer, entropy=entropy)
    return record


def append_events(
    writer: RecordWriter, events: Sequence[Event], *, producer: str, entropy: Entropy
) -> tuple[Record, ...]:
    """Number events of this process in their order, append them at once, and return the records.

    Raises InputError for more than 20,000 events in one call.
    """
    if not events:
        return ()
    first = writer.next_seq(producer)
    records = tuple(
        _record(event, seq, producer, entropy.token_bytes(ID_BYTES).hex())
        for seq, event in enumerate(events, first)
    )
    append_records(writer, records)
    return records


def _record(event: Event, seq: int, producer: str, record_id: str) -> Record:
    return Record(
        id=record_id,
        seq=seq,
        producer=producer,
        time=event.time,
        kind=event.kind,
        point=Point.CONTROL,
        caller=_clipped(event.caller),
        target=_clipped(event.target),
        operation=clip(event.action),
        decision=event.decision,
        rule=_clipped(event.rule),
        reason=_clipped(event.reason),
        snapshot=None if event.snapshot is None else clip(event.snapshot, MAX_NAME),
        detail={
            clip(name, MAX_NAME): clip(value, MAX_TEXT) if isinstance(value, str) else value
            for name, value in event.detail.items()
        },
    )


def _clipped(text: str | None) -> str | None:
    return None if text is None else clip(text)
