# SPDX-License-Identifier: Apache-2.0
"""Claim: the log takes at least 10,000 decision records a second, durably, with a p99 of at most 100 ms a batch.

Batches of 500 records, as an agent forwards them, are decoded from JSON lines and committed to SQLite (WAL,
synchronous FULL) one after the other by one thread.  The peer, in the same run on the same disk, is the bare sqlite3
module putting the same lines into a table without any index, same pragmas.  Both are counted afterwards, and a second
delivery of every batch must change nothing.
"""

import argparse
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from everyhop.auditlog import Kind, Point, Record, decode_records, encode_records
from everyhop.storage import open_storage

BAR_RATE, BAR_P99 = 10_000.0, 0.100
SIZE = 500


def lines(first):
    """Return one batch as it arrives."""
    now = datetime.now(UTC)
    return encode_records(
        Record(
            id=f"{number:024x}",
            seq=number,
            producer="agent-1/sidecar-1",
            time=now,
            kind=Kind.DECISION,
            point=Point.INGRESS,
            caller=f"spiffe://bench.example/service/s{number % 50}",
            target=f"s{number % 7}",
            operation="read",
            method="GET",
            path=f"/orders/{number}",
            decision="deny" if number % 10 == 0 else "allow",
            rule=f"allow[{number % 20}]",
            reason="allowed",
            snapshot="a" * 64,
            status=200,
            latency_ms=1.25,
            instance="s1-1",
        )
        for number in range(first, first + SIZE)
    )


def timed(call, batches):
    durations = []
    for batch in batches:
        began = time.perf_counter()
        call(batch)
        durations.append(time.perf_counter() - began)
    return durations


def peer(path):
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE lines (line BLOB)")

    def append(batch):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO lines VALUES (?)", [(line,) for line in batch.splitlines()])
        connection.execute("COMMIT")

    return append, connection


def report(name, durations):
    rate = SIZE * len(durations) / sum(durations)
    p99 = statistics.quantiles(durations, n=100)[98]
    median = statistics.median(durations)
    print(
        f"  {name:<14} {rate:>9,.0f} records/s   a batch: median {median * 1e3:6.1f} ms, p99 {p99 * 1e3:6.1f} ms"
    )
    return rate, p99


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=200)
    options = parser.parse_args(argv)
    print(
        f"  {platform.machine()}, CPython {platform.python_version()}, SQLite {sqlite3.sqlite_version}; batches of {SIZE}, 10 as warm-up"
    )
    batches = [lines(1 + SIZE * n) for n in range(options.batches + 10)]
    with tempfile.TemporaryDirectory() as directory:
        storage = open_storage(Path(directory) / "everyhop.db")
        bare, connection = peer(Path(directory) / "peer.db")
        ours = timed(lambda b: storage.records.append(decode_records(b)), batches)[10:]
        theirs = timed(bare, batches)[10:]
        again = [storage.records.append(decode_records(b)) for b in batches[:20]]
        assert all((r.stored, r.duplicates, r.conflicts) == (0, SIZE, ()) for r in again)
        counted = connection.execute("SELECT count(*) FROM lines").fetchone()[0]
        assert storage.records.count() == counted == SIZE * len(batches)
        storage.close()
        connection.close()
    rate, p99 = report("everyhop", ours)
    bare_rate, _ = report("bare sqlite3", theirs)
    print(f"  {rate / bare_rate:.2f} of the bare insert of the same lines")
    met = rate >= BAR_RATE and p99 <= BAR_P99
    print(
        f"  bar {'met' if met else 'MISSED'}: at least {BAR_RATE:,.0f} records/s, p99 at most {BAR_P99 * 1e3:.0f} ms"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
