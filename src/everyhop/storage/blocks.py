# SPDX-License-Identifier: Apache-2.0
"""Who is blocked, in SQL; each change in one transaction with its record.

Every change begins with the row of ``block_state``, so two servers on one database take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from everyhop.anomaly.blocks_codec import MAX_BLOCKS
from everyhop.anomaly.model import Block, BlockMode, Blocks, Subject
from everyhop.auditlog.append import append_events
from everyhop.auditlog.model import Event
from everyhop.core.clock import Entropy
from everyhop.core.errors import Conflict, NotFound
from everyhop.storage.database import Database
from everyhop.storage.records import SqlRecordWriter
from everyhop.storage.schema import block_state, blocks, read_moments, to_micros, write_moments

_MOMENTS: Final = ("since", "until")


class SqlBlockStore:
    """The ``BlockStore`` port on a database.  ``producer`` names this server in the audit log."""

    def __init__(
        self,
        database: Database,
        *,
        entropy: Entropy,
        producer: str = "server",
        limit: int = MAX_BLOCKS,
    ) -> None:
        self._database = database
        self._entropy = entropy
        self._producer = producer
        self._limit = limit

    def sequence(self) -> int:
        """Return the number of the present blocks, cheaply."""
        with self._database.reading() as connection:
            return _sequence(connection)

    def load(self) -> Blocks:
        """Return all blocks with their number, as one moment saw them."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(blocks)).mappings().all()
            return Blocks.build(map(_block, rows), sequence=_sequence(connection))

    def put(self, wanted: Block, told: Callable[[Block], Event]) -> tuple[Block, int]:
        """Block a subject and record it; return what is in force now, and its number.

        What is in force is never weakened (:meth:`everyhop.anomaly.model.Block.joined`).  Raises Conflict when there
        are too many.
        """
        with self._database.writing() as connection:
            sequence = _advance(connection)
            held = _find(connection, wanted.subject)
            goes_on = held is not None and held.holds(wanted.since)
            block = held.joined(wanted) if held is not None and goes_on else wanted
            if held is None and _count(connection) >= self._limit:
                raise Conflict(
                    f"{self._limit} subjects are blocked already", hint="lift some: everyhop blocks"
                )
            connection.execute(sa.delete(blocks).where(blocks.c.subject == str(block.subject)))
            connection.execute(sa.insert(blocks).values(_columns(block)))
            self._append(connection, [told(block)])
            return block, sequence

    def lift(self, subject: Subject, told: Callable[[Block], Event]) -> tuple[Block, int]:
        """Lift a block and record it; return it and the new number.  Raises NotFound."""
        with self._database.writing() as connection:
            sequence = _advance(connection)
            held = _find(connection, subject)
            if held is None:
                raise NotFound(f"{subject} is not blocked", hint="who is: everyhop blocks")
            connection.execute(sa.delete(blocks).where(blocks.c.subject == str(subject)))
            self._append(connection, [told(held)])
            return held, sequence

    def expire(self, now: datetime, told: Callable[[Block], Event]) -> Sequence[Block]:
        """Remove the blocks whose time is over and record each end; return them."""
        over = blocks.c.until <= to_micros(now)
        with self._database.reading() as connection:  # mostly there is none, and then nobody waits for a lock
            if (
                connection.execute(sa.select(sa.func.count()).select_from(blocks).where(over)).scalar_one()
                == 0
            ):
                return ()
        with self._database.writing() as connection:
            _advance(connection)
            rows = connection.execute(sa.select(blocks).where(over).order_by(blocks.c.until)).mappings().all()
            ended = [_block(row) for row in rows]
            connection.execute(sa.delete(blocks).where(over))
            self._append(connection, [told(block) for block in ended])
            return ended

    def _append(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        append_events(SqlRecordWriter(connection), events, producer=self._producer, entropy=self._entropy)


def _sequence(connection: sa.Connection) -> int:
    return int(connection.execute(sa.select(block_state.c.sequence)).scalar() or 0)


def _advance(connection: sa.Connection) -> int:
    """Let the number grow by one, which makes every other change wait; return it."""
    grown = connection.execute(sa.update(block_state).values(sequence=block_state.c.sequence + 1))
    if grown.rowcount == 0:
        connection.execute(sa.insert(block_state).values(one=1, sequence=1))
    return _sequence(connection)


def _find(connection: sa.Connection, subject: Subject) -> Block | None:
    statement = sa.select(blocks).where(blocks.c.subject == str(subject))
    row = connection.execute(statement).mappings().one_or_none()
    return None if row is None else _block(row)


def _count(connection: sa.Connection) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(blocks)).scalar_one())


def _block(row: sa.RowMapping) -> Block:
    return Block(
        subject=Subject.parse(row["subject"]),
        mode=BlockMode(row["mode"]),
        reason=row["reason"],
        by=row["by"],
        finding=row["finding"],
        **read_moments(row, _MOMENTS),
    )


def _columns(block: Block) -> dict[str, Any]:
    return {
        "subject": str(block.subject),
        "mode": block.mode.value,
        "reason": block.reason,
        "by": block.by,
        "finding": block.finding,
        **write_moments(block, _MOMENTS),
    }
