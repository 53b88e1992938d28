# SPDX-License-Identifier: Apache-2.0
"""A log in a real database with a key in real files, for those who sign, attack and verify it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from tests.support.identity import NOW, FakeClock
from tests.support.ledger import record

from everyhop.auditlog.checkpointing import Checkpointer
from everyhop.auditlog.verifying import verify_log
from everyhop.providers.log_keys import FileLogSigner
from everyhop.storage import open_storage
from everyhop.storage.log_source import SqlLogSource
from everyhop.tlog import Frontier, leaf_hash

DOMAIN = "shop.example"


class SealedLog:
    """One state directory: ``everyhop.db`` and ``keys/log``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "everyhop.db"
        self.keys = root / "keys"
        self.keys.mkdir(mode=0o700, exist_ok=True)
        self.clock = FakeClock(NOW)
        self.storage = open_storage(self.path)
        self.signer = FileLogSigner.create(self.keys, DOMAIN)

    @property
    def checkpointer(self) -> Checkpointer:
        return Checkpointer(self.storage.log_tree, self.signer, self.clock)

    def append(self, count: int, *, producer: str = "agent") -> None:
        first = self.storage.records.last_seq(producer) + 1
        for start in range(first, first + count, 1000):
            end = min(start + 1000, first + count)
            self.storage.records.append([record(seq, producer=producer) for seq in range(start, end)])

    def sign(self) -> str:
        """Sign the head and return the note."""
        self.clock.advance(timedelta(seconds=1))
        stored = self.checkpointer.step()
        assert stored is not None
        return stored.note

    def execute(self, *statements: str) -> None:
        """Do to the database what somebody does who has the file and no regard for us."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    def reseal(self) -> None:
        """Recompute everything that is in the database from its lines: what an administrator without the key can do."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            rows = connection.execute("SELECT n, line FROM records ORDER BY n").fetchall()
            leaves = [leaf_hash(line) for _, line in rows]
            connection.execute("DELETE FROM log_tiles")
            connection.executemany(
                "UPDATE records SET leaf = ? WHERE n = ?",
                [(leaf, n) for leaf, (n, _) in zip(leaves, rows, strict=True)],
            )
            hashes, level = leaves, 0
            while len(hashes) >= 256:
                roots = []
                for n in range(len(hashes) // 256):
                    part = hashes[n * 256 : n * 256 + 256]
                    tree = Frontier()
                    tree.extend(part)
                    roots.append(tree.root())
                    connection.execute(
                        "INSERT INTO log_tiles VALUES (?, ?, ?, ?)", (level, n, b"".join(part), roots[-1])
                    )
                hashes, level = roots, level + 1
            whole = Frontier()
            whole.extend(leaves)
            connection.execute("UPDATE log_head SET size = ?, frontier = ?", (whole.size, whole.to_bytes()))

    def source(self) -> SqlLogSource:
        return SqlLogSource(self.storage.database, self.signer.origin)

    def verify(self, *against: str, **kwargs):
        notes = [(f"outside-{i}", note.encode()) for i, note in enumerate(against)]
        return verify_log(self.source(), trusted=self.signer.verifiers, against=notes, **kwargs)

    def snapshot(self, place: Path) -> None:
        """Copy the database as a backup does."""
        self.storage.close()
        shutil.copy(self.path, place)
        self.reopen()

    def restore(self, place: Path) -> None:
        """Put a backup in the place of the database."""
        self.storage.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        shutil.copy(place, self.path)
        self.path.chmod(0o600)
        self.reopen()

    def reopen(self) -> None:
        self.storage.close()
        self.storage = open_storage(self.path)

    def close(self) -> None:
        self.storage.close()
