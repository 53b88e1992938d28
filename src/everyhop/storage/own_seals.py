# SPDX-License-Identifier: Apache-2.0
"""The server's own records, sealed in the transaction that stores them.

What is signed is what this process has made, remembered from before it was stored: whoever can write the database
cannot have a record signed by putting it there.  Until the server has its SVID, the hashes wait in memory.  Producers'
names are of one process, so that nobody else's records lie between.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from everyhop.auditlog.sealing import MAX_SEALED, seal_digest, seal_records
from everyhop.storage.log_seals import insert_seal, last_seal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    import sqlalchemy as sa

    from everyhop.auditlog.sealing import Seal, SealKey
    from everyhop.storage.database import Recorded

MAX_PENDING: Final = 50_000


class OwnSeals:
    """Seals for the producers whose names begin with one of ``prefixes`` and a dash.  Safe to share between threads."""

    def __init__(self, prefixes: Iterable[str], now: Callable[[], datetime]) -> None:
        self._prefixes = frozenset(prefixes)
        self._now = now
        self._lock = threading.Lock()
        self._key: SealKey | None = None
        self._pending: dict[str, dict[int, bytes]] = {}

    def use(self, key: SealKey) -> None:
        """Sign with this key from now on."""
        self._key = key

    def seal(self, connection: sa.Connection, rows: Iterable[Recorded]) -> None:
        """Sign those of ``rows`` that are ours, and those before them that still wait; call it before the commit.

        A transaction that is rolled back leaves hashes behind; the next record of that number takes their place.
        """
        now = self._now()
        with self._lock:
            touched: dict[str, int] = {}
            for row in rows:
                prefix, dash, _ = row.producer.partition("-")
                if dash and prefix in self._prefixes:
                    self._pending.setdefault(row.producer, {})[row.seq] = row.leaf
                    touched[row.producer] = max(row.seq, touched.get(row.producer, 0))
            key = self._key
            if key is None or key.expires_at <= now:
                self._forget_too_many()
                return
            for producer, last in sorted(touched.items()):
                self._seal_producer(connection, producer, last, key, now)

    def _seal_producer(
        self, connection: sa.Connection, producer: str, last: int, key: SealKey, now: datetime
    ) -> None:
        """Seal everything of ours behind the last seal that is stored, up to ``last``.

        A number between that is not ours was put there by somebody else, and stays without a seal.
        """
        before: Seal | None = last_seal(connection, producer)
        pending = self._pending[producer]
        sealed = 0 if before is None else before.last
        previous = b"" if before is None else seal_digest(before)
        for number in [n for n in pending if n <= sealed]:
            del pending[number]
        run: list[int] = []
        for number in sorted(n for n in pending if n <= last):
            if run and (number != run[-1] + 1 or len(run) == MAX_SEALED):
                previous = self._insert(connection, producer, run, previous, key, now)
                run = []
            run.append(number)
        if run:
            self._insert(connection, producer, run, previous, key, now)

    def _insert(
        self,
        connection: sa.Connection,
        producer: str,
        run: list[int],
        previous: bytes,
        key: SealKey,
        now: datetime,
    ) -> bytes:
        leaves = [self._pending[producer][number] for number in run]
        seal = seal_records(producer, run[0], leaves, previous=previous, now=now, key=key)
        insert_seal(connection, seal, key.chain, now=now)
        return seal_digest(seal)

    def _forget_too_many(self) -> None:
        """Keep memory bounded; what is forgotten stays unsealed, and the report says so."""
        if sum(map(len, self._pending.values())) > MAX_PENDING:
            self._pending.clear()
