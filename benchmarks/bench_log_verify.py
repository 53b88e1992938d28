# SPDX-License-Identifier: Apache-2.0
"""Claim: verifying the whole audit log takes at most 15 times as long as a bare hash chain over the same rows.

A sealed log in SQLite is verified as ``everyhop log verify`` does: every line against its leaf and against its columns,
every leaf against the tree, the tree against the signed checkpoint.  The first peer, in the same run, reads the same rows
with the bare sqlite3 module and recomputes a plain SHA-256 chain: the least that any tamper-evident log costs, which
proves less (no columns, no proof of one record, nothing against who recomputes it).  Then the log is exported as tiles,
verified by us and, where Go and golang.org/x/mod are, by the independent verifier of tests/peers/log_verifier.
All have to find it intact.
"""

import argparse
import os
import platform
import sqlite3
import sys
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support import log_verifier

from everyhop.auditlog import Kind, Point, Record
from everyhop.auditlog.checkpointing import Checkpointer
from everyhop.auditlog.verifying import verify_log
from everyhop.providers.log_keys import FileLogSigner
from everyhop.providers.log_sources import DirectoryFiles, TileSource
from everyhop.runtime.tiles_export import export_tiles
from everyhop.storage import open_storage
from everyhop.storage.log_source import SqlLogSource, open_for_verifying

LARGEST_RATIO = 15.0
PER = 1_000_000


class Clock:
    """The time."""

    def now(self):
        """Return it."""
        return datetime.now(UTC)


def record(number, now):
    """Return one decision as a sidecar writes it."""
    return Record(
        id=f"{number:024x}",
        seq=number,
        producer="agent-1/sidecar-1",
        time=now,
        kind=Kind.DECISION,
        point=Point.INGRESS,
        caller=f"spiffe://bench.example/service/s{number % 50}",
        target=f"s{number % 7}",
        operation=f"o{number % 20}",
        method="GET",
        path=f"/orders/{number}",
        decision="allow",
        rule=f"allow[{number % 9}]",
        reason="allowed",
        snapshot="a" * 64,
        status=200,
        latency_ms=1.25,
        instance="0123456789ab",
    )


def fill(path, keys, count):
    """Make a signed log and return its keys."""
    storage = open_storage(path)
    now = datetime.now(UTC)
    for first in range(1, count + 1, 5000):
        storage.records.append([record(n, now) for n in range(first, min(first + 5000, count + 1))])
    signer = FileLogSigner.create(keys, "bench.example")
    Checkpointer(storage.log_tree, signer, Clock()).step()
    export_tiles(storage.log_tree, path.parent / "tiles", signer.verifiers)
    storage.close()
    return signer.verifiers


def chain(path):
    """Recompute a plain hash chain; return how many rows it has."""
    link, count = bytes(32), 0
    with closing(sqlite3.connect(path)) as peer:
        for (line,) in peer.execute("SELECT line FROM records ORDER BY n"):
            link = sha256(link + line).digest()
            count += 1
    return count


def from_database(path, keys):
    """Verify as the command does."""
    with closing(open_for_verifying(path)) as database:
        return verify_log(SqlLogSource(database, keys[0].name), trusted=keys)


def timed(call, *arguments):
    """Return CPU seconds (children included) and result, the better of two runs; the first one warms up."""
    best, result = float("inf"), None
    for _ in range(2):
        began = spent()
        result = call(*arguments)
        best = min(best, spent() - began)
    return best, result


def spent():
    """Return the CPU seconds of this process and its children: a busy machine spoils the time on the wall."""
    return sum(os.times()[:4])


def main():
    """Measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=50_000)
    count = parser.parse_args().records
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "keys").mkdir(mode=0o700)
        path, tiles = root / "log.db", root / "tiles"
        keys = fill(path, root / "keys", count)
        bare, rows = timed(chain, path)
        ours, verdict = timed(from_database, path, keys)
        files, shown = timed(lambda: verify_log(TileSource(DirectoryFiles(tiles)), trusted=keys))
        right = rows == count and verdict.outcome == shown.outcome == "intact" and verdict.signed == count
        print(
            f"{platform.python_version()} on {platform.machine()}, {count} records, CPU time, better of two runs"
        )
        for name, seconds in (("hash chain", bare), ("database", ours), ("tiles", files)):
            print(
                f"{name:<11} {seconds:6.2f} s  {PER / count * seconds:6.1f} s/million  {seconds / bare:5.1f}x the chain"
            )
        absent = log_verifier.why_absent()
        if absent is None:
            program = log_verifier.build(root)
            go, (code, _) = timed(log_verifier.run, program, tiles, str(keys[0]))
            right = right and code == 0
            print(
                f"{'tiles by Go':<11} {go:6.2f} s  {PER / count * go:6.1f} s/million  ours takes {files / go:.1f}x as long"
            )
        else:
            print(f"tiles by Go: left out, {absent}")
    print(f"bar: at most {LARGEST_RATIO:.0f}x the chain, from the database: {ours / bare:.1f}x")
    return 0 if right and ours / bare <= LARGEST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
