# SPDX-License-Identifier: Apache-2.0
"""Seals and the certificates of those who made them, beside the records that they are over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from everyhop.auditlog.append import append_records
from everyhop.auditlog.sealing import Seal, SealedResult, SealError, Stored, seal_digest, signer_of
from everyhop.storage.append import SqlRecordWriter, last_seq
from everyhop.storage.database import Database
from everyhop.storage.schema import from_micros, log_certificates, log_pruned, log_seals, records, to_micros
from everyhop.x509.certificates import split_certificates

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from everyhop.auditlog.model import Record

_PAGE: Final = 1000
_CHUNK: Final = 400


class SqlSealStore:
    """The ``SealStore`` port on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(
        self, batch: Sequence[Record], seal: Seal, chain: Sequence[bytes], *, now: datetime
    ) -> SealedResult:
        """Store a sealed batch, or nothing of it where a part of it is held or an id is taken."""
        with self._database.writing() as connection:
            held = last_seq(connection, seal.producer)
            before = last_seal(connection, seal.producer)
            if before is not None and not _is_same_signer(connection, before.certificate, chain):
                raise SealError("owner", f"{seal.producer} is sealed by somebody else")
            if seal.first <= held:
                return SealedResult(held=held, head=_digest(before), duplicates=len(batch))
            if seal.previous != _digest(before):
                # What it goes on from is not what is here: an answer was lost, or a backup was restored.
                return SealedResult(held=held, head=_digest(before))
            taken = _taken(connection, batch)
            if taken:
                return SealedResult(held=held, head=_digest(before), conflicts=taken)
            stored = append_records(SqlRecordWriter(connection), batch).stored
            if stored != len(batch):
                raise SealError("numbers", f"{len(batch) - stored} records of {seal.producer} did not fit")
            insert_seal(connection, seal, chain, now=now)
            return SealedResult(held=seal.last, head=seal_digest(seal), stored=len(batch))

    def is_sealing(self, producer: str) -> bool:
        """Tell whether a producer has sealed anything."""
        with self._database.reading() as connection:
            return last_seal(connection, producer) is not None

    @contextmanager
    def reading(self) -> Iterator[SealReading]:
        """Open one consistent state for :func:`~everyhop.auditlog.completeness.check_completeness`."""
        with self._database.reading() as connection:
            yield SealReading(connection)


class SealReading:
    """Lines, seals and certificates of one moment, streamed in the order of producer and number."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection.execution_options(yield_per=_PAGE)

    def lines(self) -> Iterator[Stored]:
        """Yield every line with the place that its row names."""
        columns = (records.c.producer, records.c.seq, records.c.line)
        for row in self._connection.execute(
            sa.select(*columns).order_by(self._by_bytes(records.c.producer), records.c.seq)
        ):
            yield Stored(row.producer, row.seq, bytes(row.line))

    def seals(self) -> Iterator[Seal]:
        """Yield every seal."""
        statement = sa.select(log_seals).order_by(self._by_bytes(log_seals.c.producer), log_seals.c.first)
        for row in self._connection.execute(statement).mappings():
            yield _seal(row)

    def certificates(self) -> Mapping[str, bytes]:
        """Return the chains (DER, leaf first, joined) of those who ever sealed, by the SHA-256 of the leaf in hex."""
        rows = self._connection.execute(sa.select(log_certificates.c.thumbprint, log_certificates.c.chain))
        return {row.thumbprint: bytes(row.chain) for row in rows}

    def pruned(self) -> dict[str, list[tuple[int, int]]]:
        """Return by producer the numbers (first and last of each range) whose records were removed for their age."""
        found: dict[str, list[tuple[int, int]]] = {}
        table = log_pruned.c
        statement = sa.select(table.producer, table.first, table.last).order_by(table.producer, table.first)
        for row in self._connection.execute(statement):
            found.setdefault(row.producer, []).append((row.first, row.last))
        return found

    def _by_bytes(self, column: sa.Column[str]) -> sa.ColumnElement[str]:
        """Order texts as Python does, whatever the language of the database is."""
        return column.collate("C") if self._connection.dialect.name == "postgresql" else column.expression


def last_seal(connection: sa.Connection, producer: str) -> Seal | None:
    """Return the last seal of a producer."""
    statement = (
        sa.select(log_seals)
        .where(log_seals.c.producer == producer)
        .order_by(log_seals.c.first.desc())
        .limit(1)
    )
    row = connection.execute(statement).mappings().first()
    return None if row is None else _seal(row)


def insert_seal(connection: sa.Connection, seal: Seal, chain: Sequence[bytes], *, now: datetime) -> None:
    """Store a seal in the transaction of its records."""
    known = sa.select(log_certificates.c.thumbprint).where(log_certificates.c.thumbprint == seal.certificate)
    if connection.execute(known).first() is None:
        connection.execute(
            sa.insert(log_certificates).values(
                thumbprint=seal.certificate, chain=b"".join(chain), first_seen=to_micros(now)
            )
        )
    connection.execute(
        sa.insert(log_seals).values(
            producer=seal.producer,
            first=seal.first,
            last=seal.last,
            digest=seal.digest,
            previous=seal.previous,
            certificate=seal.certificate,
            signed_at=to_micros(seal.time),
            signature=seal.signature,
            marks=seal.marks,
        )
    )


def _seal(row: sa.RowMapping) -> Seal:
    return Seal(
        producer=row["producer"],
        first=row["first"],
        last=row["last"],
        digest=bytes(row["digest"]),
        previous=bytes(row["previous"]),
        time=from_micros(row["signed_at"]),
        certificate=row["certificate"],
        signature=bytes(row["signature"]),
        marks=bytes(row["marks"]),
    )


def _digest(seal: Seal | None) -> bytes:
    return b"" if seal is None else seal_digest(seal)


def _is_same_signer(connection: sa.Connection, thumbprint: str, chain: Sequence[bytes]) -> bool:
    """Tell whether the one who sealed before has the identity that ``chain`` proves."""
    known = connection.execute(
        sa.select(log_certificates.c.chain).where(log_certificates.c.thumbprint == thumbprint)
    ).scalar()
    return known is not None and signer_of(split_certificates(bytes(known))[0]) == signer_of(chain[0])


def _taken(connection: sa.Connection, batch: Sequence[Record]) -> tuple[str, ...]:
    """Return the ids of a batch that other records have, in the log or earlier in the batch."""
    ids = [record.id for record in batch]
    stored: set[str] = set()
    for start in range(0, len(ids), _CHUNK):
        some = ids[start : start + _CHUNK]
        stored.update(connection.execute(sa.select(records.c.id).where(records.c.id.in_(some))).scalars())
    taken = list[str]()
    for record_id in ids:
        if record_id in stored:
            taken.append(record_id)
        stored.add(record_id)
    return tuple(dict.fromkeys(taken))
