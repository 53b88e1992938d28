# SPDX-License-Identifier: Apache-2.0
"""Processes that append to one log, are killed, and begin again; and the check of what is left behind.

A writer says on its pipe what was confirmed to it, and only that.  After an error it sends the same batch again, as an
agent does, since it cannot know whether it was recorded.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tests.support.ledger import naive_node, naive_root, record

from everyhop.auditlog import decode_record
from everyhop.core.errors import Unavailable
from everyhop.storage import Storage, open_storage
from everyhop.storage.schema import log_tiles, records
from everyhop.tlog.merkle import leaf_hash

_fork = multiprocessing.get_context("fork")  # starting Python twenty times would take longer than the test
_PATIENCE_SECONDS = 60.0


class Writer:
    """One process that appends batches under one producer, from ``first`` on; ``last`` None means until it is killed."""

    def __init__(
        self, place: Path | str, producer: str, *, first: int = 1, last: int | None = None, batch: int = 10
    ) -> None:
        self.producer = producer
        self._receiver, sender = _fork.Pipe(duplex=False)
        self._process = _fork.Process(
            target=_write, args=(sender, place, producer, first, last, batch), daemon=True
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the child uses none of our threads
            self._process.start()
        sender.close()
        self.confirmed = first - 1

    def wait_confirmed(self, batches: int) -> None:
        """Wait until so many further batches are confirmed, or the writer is done."""
        for _ in range(batches):
            if not self._receive():
                return

    def kill(self) -> int:
        """Kill it with SIGKILL; return the highest number that was confirmed."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        return self._end()

    def finish(self) -> int:
        """Wait until it has written everything; return the highest number that was confirmed."""
        confirmed = self._end()
        assert self._process.exitcode == 0
        return confirmed

    def _receive(self) -> bool:
        assert self._receiver.poll(_PATIENCE_SECONDS), f"{self.producer} is stuck"
        try:
            self.confirmed = self._receiver.recv()
        except EOFError:
            return False
        return True

    def _end(self) -> int:
        while self._receive():  # what was confirmed before it died is confirmed
            pass
        self._process.join(_PATIENCE_SECONDS)
        self._receiver.close()
        return self.confirmed


def check_log(storage: Storage, confirmed: dict[str, int]) -> int:
    """Assert that nothing confirmed is missing and that the tree is that of the records; return the size."""
    size, frontier = storage.log_tree.head()
    lines = [line for page in storage.log_tree.lines(0, size) for line in page]
    assert None not in lines
    with storage.database.reading() as connection:
        rows = connection.execute(sa.select(records.c.n, records.c.leaf).order_by(records.c.n)).all()
        tiles = connection.execute(sa.select(log_tiles)).all()
    leaves = [leaf_hash(line) for line in lines]
    assert [(row.n, row.leaf) for row in rows] == list(enumerate(leaves, 1))
    assert (frontier.size, frontier.root()) == (size, naive_root(lines))
    assert {(t.n, t.hashes, t.root) for t in tiles if t.level == 0} == {
        (n, b"".join(tile := leaves[n * 256 : n * 256 + 256]), naive_node(tile)) for n in range(size // 256)
    }
    found: dict[str, list[int]] = {}
    for line in lines:
        told = decode_record(line)
        found.setdefault(told.producer, []).append(told.seq)
    for producer, last in confirmed.items():
        numbers = found.get(producer, [])
        assert numbers == list(range(1, len(numbers) + 1)), f"{producer} has gaps or repeats"
        assert len(numbers) >= last, f"{producer} lost {last - len(numbers)} confirmed records"
    return size


def _write(
    sender: Connection, place: Path | str, producer: str, first: int, last: int | None, batch: int
) -> None:
    with contextlib.closing(open_storage(place)) as storage:
        while last is None or first <= last:
            behind = first + batch if last is None else min(first + batch, last + 1)
            _append(storage, [record(n, producer=producer, path=f"/{n}" * 50) for n in range(first, behind)])
            sender.send(behind - 1)
            first = behind
    sender.close()


def _append(storage: Storage, batch: list[Any]) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            result = storage.records.append(batch)
        except Unavailable as error:
            if not error.retry or time.monotonic() > end:
                raise
            time.sleep(0.02)  # an agent waits as well; there is nothing to be woken by
            continue
        assert not result.conflicts
        assert result.stored + result.duplicates == len(batch)
        return
