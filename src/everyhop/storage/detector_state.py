# SPDX-License-Identifier: Apache-2.0
"""What detectors have learned, by detector and key, so that a restart begins with the baselines of before."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from everyhop.storage.database import Database
from everyhop.storage.schema import detector_state, to_micros

_CHUNK: Final = 200  # rows of a statement; SQLite allows 999 parameters in older builds


class SqlDetectorStates:
    """The memory of detectors on a database.  Safe to share between threads, but one engine writes at a time.

    What was saved last is remembered here, so that a save writes what differs: a detector gives its whole state each time.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._saved: dict[str, dict[str, bytes]] = {}

    def load(self, detector: str) -> dict[str, bytes]:
        """Return the state of a detector by key, the entry that was moved longest ago first."""
        statement = (
            sa.select(detector_state.c.key, detector_state.c.value)
            .where(detector_state.c.detector == detector)
            .order_by(detector_state.c.moved_at, detector_state.c.key)
        )
        with self._database.reading() as connection:
            found = {row.key: bytes(row.value) for row in connection.execute(statement)}
        self._saved[detector] = dict(found)
        return found

    def save(self, states: Mapping[str, Mapping[str, bytes]], at: datetime) -> int:
        """Store the states of detectors, by name, in one transaction; keys that are not there any more go.

        Returns how many entries were written or deleted; with none the database is not touched.
        """
        changes = {name: self._changes(name, state) for name, state in states.items()}
        count = sum(len(put) + len(gone) for put, gone in changes.values())
        if count:
            with self._database.writing() as connection:
                for name, (put, gone) in changes.items():
                    _write(connection, name, put, gone, to_micros(at))
            self._saved.update({name: dict(state) for name, state in states.items()})
        return count

    def forget(self, detector: str) -> None:
        """Delete all that a detector has learned: it begins anew."""
        with self._database.writing() as connection:
            connection.execute(sa.delete(detector_state).where(detector_state.c.detector == detector))
        self._saved.pop(detector, None)

    def _changes(self, name: str, state: Mapping[str, bytes]) -> tuple[dict[str, bytes], list[str]]:
        if name not in self._saved:
            self.load(name)
        saved = self._saved[name]
        return (
            {key: value for key, value in state.items() if saved.get(key) != value},
            [key for key in saved if key not in state],
        )


def _write(connection: sa.Connection, name: str, put: Mapping[str, bytes], gone: list[str], at: int) -> None:
    touched = [*put, *gone]
    for start in range(0, len(touched), _CHUNK):
        part = touched[start : start + _CHUNK]
        connection.execute(
            sa.delete(detector_state).where(detector_state.c.detector == name, detector_state.c.key.in_(part))
        )
    rows = [{"detector": name, "key": key, "value": value, "moved_at": at} for key, value in put.items()]
    if rows:
        connection.execute(sa.insert(detector_state), rows)
