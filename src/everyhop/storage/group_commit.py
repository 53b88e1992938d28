# SPDX-License-Identifier: Apache-2.0
"""Batches of several callers in one transaction: a commit costs the same for one record as for five hundred.

Whoever comes while another one commits waits for his turn, and then takes along everybody who came meanwhile; nobody
waits for company that may not come.  Nobody is answered before his own records are on the disk, and an error that one
batch causes is that batch's alone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from everyhop.auditlog.append import AppendResult
from everyhop.auditlog.model import Record
from everyhop.core.errors import Unavailable
from everyhop.storage.append import SqlRecordWriter
from everyhop.storage.database import WRITE_WAIT_SECONDS, Database

MAX_GROUP: Final = 512  # records in one transaction, unless a single batch has more


class _Batch:
    """The records of one caller, and what became of them."""

    __slots__ = ("called", "error", "records", "result")

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.called = threading.Event()  # it is done, or its caller's turn to lead
        self.result: AppendResult | None = None
        self.error: Exception | None = None

    @property
    def is_done(self) -> bool:
        return self.result is not None or self.error is not None


class GroupCommit:
    """Appends batches of records, several to a transaction.  Blocking; safe to share between threads.

    One caller leads: he commits for all who wait.  When he is done he calls the first of those who came meanwhile to
    lead.  (A lock that all of them wait for would let in whoever comes next, and he would commit for himself alone.)
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._waiting: deque[_Batch] = deque()
        self._is_led = False

    def append(self, records: Sequence[Record]) -> AppendResult:
        """Make a batch durable.

        Raises Unavailable when the database does not answer within two seconds; the batch may then be recorded all the
        same, and is to be sent again.  Raises InputError when a record is too large, and then none of them is kept.
        """
        batch = _Batch(records)
        with self._lock:
            self._waiting.append(batch)
            must_wait, self._is_led = self._is_led, True
        if must_wait and not batch.called.wait(WRITE_WAIT_SECONDS) and self._withdraw(batch):
            raise Unavailable("the database does not answer: others wait for it as well")
        if not batch.is_done:
            self._lead(batch)
        if isinstance(batch.error, Unavailable):
            # Of its own for each: several threads raise it.
            raise Unavailable(
                batch.error.message, hint=batch.error.hint, retry=batch.error.retry
            ) from batch.error
        if batch.error is not None:
            raise batch.error
        assert batch.result is not None  # noqa: S101  # is_done
        return batch.result

    def _withdraw(self, batch: _Batch) -> bool:
        """Give up waiting; False when the call came at the last moment."""
        with self._lock:
            if batch.called.is_set():
                return False
            if batch in self._waiting:
                self._waiting.remove(batch)
            return True

    def _lead(self, batch: _Batch) -> None:
        """Commit for everybody until the own batch is done, and pass the lead on."""
        try:
            while not batch.is_done:
                self._commit(self._take())
        finally:
            with self._lock:
                self._is_led = bool(self._waiting)
                if self._waiting:
                    self._waiting[0].called.set()

    def _take(self) -> list[_Batch]:
        """Take those who wait, in their order, as many as belong into one transaction."""
        taken: list[_Batch] = []
        count = 0
        with self._lock:
            while self._waiting and (not taken or count + len(self._waiting[0].records) <= MAX_GROUP):
                taken.append(self._waiting.popleft())
                count += len(taken[-1].records)
        return taken

    def _commit(self, group: Sequence[_Batch]) -> None:
        try:
            results = self._write(group)
        except Exception as error:  # noqa: BLE001  # it is raised to whoever caused it
            if len(group) > 1 and not isinstance(error, Unavailable):
                for batch in group:
                    self._commit([batch])
                return
            for batch in group:
                batch.error = error
                batch.called.set()
            return
        for batch, result in zip(group, results, strict=True):
            batch.result = result
            batch.called.set()

    def _write(self, group: Sequence[_Batch]) -> list[AppendResult]:
        with self._database.writing() as connection:
            return SqlRecordWriter(connection).insert_each([batch.records for batch in group])
