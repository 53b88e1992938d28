# SPDX-License-Identifier: Apache-2.0
"""Producers' signatures in SQL, saved in the transaction of the records that they are about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import sqlalchemy as sa

from everyhop.auditlog.sealing import Seal
from everyhop.core.errors import Conflict, NotFound
from everyhop.storage.database import Database
from everyhop.storage.dialect import upsert
from everyhop.storage.schema import from_micros, log_certificates, log_seals, to_micros

_PAGE: Final = 1000


class SqlSealWriter:
    """Saves seals on an open write transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def save(self, seal: Seal) -> None:
        """Keep a seal, and its certificate when that is new.

        The same place again is a repeated delivery: the seal that reaches further stands, the first one of two that
        reach equally far.  Raises Conflict when the certificate is neither here
        nor with the seal, or when another one is kept under its thumbprint.
        """
        moment = to_micros(seal.signed_at)
        self._save_chain(seal, moment)
        values = {
            "last": seal.last,
            "certificate": seal.certificate,
            "signed_at": moment,
            "signature": seal.signature,
        }
        statement = upsert(log_seals).values(producer=seal.producer, first=seal.first, **values)
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=["producer", "first"],
                set_={name: statement.excluded[name] for name in values},
                where=log_seals.c.last < statement.excluded.last,
            )
        )

    def _save_chain(self, seal: Seal, moment: int) -> None:
        name = log_certificates.c.thumbprint == seal.certificate
        chain = self._connection.execute(sa.select(log_certificates.c.chain).where(name)).scalar()
        if chain is None and seal.chain is None:
            raise Conflict("the certificate of a seal is neither known nor sent with it")
        if chain is None:
            self._connection.execute(
                sa.insert(log_certificates).values(
                    thumbprint=seal.certificate, chain=seal.chain, first_seen=moment
                )
            )
        elif seal.chain not in {None, chain}:
            raise Conflict("there is another chain for the certificate of a seal")


class SqlSealStore:
    """The ``SealStore`` port on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def certificates(self) -> Iterator[tuple[str, bytes]]:
        """Yield every certificate."""
        with self._database.reading() as connection:
            rows = connection.execute(
                sa.select(log_certificates).order_by(log_certificates.c.thumbprint)
            ).all()
        yield from ((row.thumbprint, row.chain) for row in rows)

    def chain(self, thumbprint: str) -> bytes:
        """Return a chain."""
        statement = sa.select(log_certificates.c.chain).where(log_certificates.c.thumbprint == thumbprint)
        with self._database.reading() as connection:
            chain: bytes | None = connection.execute(statement).scalar()
        if chain is None:
            raise NotFound(f"there is no certificate {thumbprint[:80]}")
        return chain

    def seals(self, producer: str | None = None) -> Iterator[Seal]:
        """Yield seals, page by page."""
        place = sa.tuple_(log_seals.c.producer, log_seals.c.first)
        statement = sa.select(log_seals).order_by(log_seals.c.producer, log_seals.c.first).limit(_PAGE)
        if producer is not None:
            statement = statement.where(log_seals.c.producer == producer)
        last = ("", 0)
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(statement.where(place > last)).all()
            if not rows:
                return
            for row in rows:
                yield Seal(
                    producer=row.producer,
                    first=row.first,
                    last=row.last,
                    certificate=row.certificate,
                    signed_at=from_micros(row.signed_at),
                    signature=row.signature,
                )
            last = (rows[-1].producer, rows[-1].first)

    def producers(self) -> list[str]:
        """Return every producer that ever sealed."""
        statement = sa.select(log_seals.c.producer).distinct().order_by(log_seals.c.producer)
        with self._database.reading() as connection:
            return list(connection.execute(statement).scalars())
