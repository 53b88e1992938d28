# SPDX-License-Identifier: Apache-2.0
"""Claim: taking credentials and persons out of a record costs less than storing it durably, and secrets cost linear time.

The records are those of ordinary calls, one in ten for a person and one in fifty with a credential in its path.  For each: what
producers do before they sign (redaction and size), pseudonyms that are remembered, the OCSF event.  The peer, in the same run,
inserts the same lines into SQLite (WAL, FULL), 500 to a commit, with the bare sqlite3 module.  Processor time of this process,
medians of rounds after one to warm up; results are compared with what was asked for.
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

from everyhop.auditlog import Kind, Point, Record, encode_record
from everyhop.auditlog.ocsf import encode_event, event_of
from everyhop.auditlog.personal import disguise
from everyhop.auditlog.preparing import prepared
from everyhop.auditlog.redaction import redact_text

BAR = 1.0
SECRET = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
HOSTILE = ("eyJ" * 30_000, "password=" * 12_000, "aA0-" * 25_000, "cookie:" * 15_000)


def records(count):
    now = datetime.now(UTC)
    return [
        Record(
            id=f"{n:024x}",
            seq=n,
            producer="sidecar-1",
            time=now,
            kind=Kind.DECISION,
            point=Point.INGRESS,
            caller=f"spiffe://bench.example/service/s{n % 50}",
            target=f"s{n % 7}",
            operation=f"o{n % 20}",
            method="GET",
            path=f"/reset/{SECRET}" if n % 50 == 1 else f"/orders/3f0c9c1e-1111-4222-8333-{n:012x}/items",
            decision="allow",
            rule="allow[3]",
            reason="allowed",
            snapshot="ab" * 32,
            status=200,
            latency_ms=1.25,
            instance="sidecar-1",
            detail={"detail": "via_upstream"} | ({"user": f"u{n % 97}"} if n % 10 == 0 else {}),
        )
        for n in range(1, count + 1)
    ]


def per_record(work, batch, rounds):
    """Return the median microseconds of processor time for one record, and the results of the last round."""
    spent, results = [], []
    for _ in range(rounds + 1):
        begun = time.process_time()
        results = [work(record) for record in batch]
        spent.append((time.process_time() - begun) / len(batch) * 1e6)
    return statistics.median(spent[1:]), results


def bare_inserts(lines, rounds):
    """Return the median microseconds of time that goes by for one line, in commits of 500."""
    spent = []
    with tempfile.TemporaryDirectory() as directory:
        for number in range(rounds + 1):
            base = sqlite3.connect(Path(directory) / f"{number}.db", isolation_level=None)
            base.execute("PRAGMA journal_mode = WAL")
            base.execute("PRAGMA synchronous = FULL")
            base.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, line BLOB)")
            begun = time.perf_counter()
            for start in range(0, len(lines), 500):
                base.execute("BEGIN IMMEDIATE")
                base.executemany(
                    "INSERT INTO t (line) VALUES (?)", [(x,) for x in lines[start : start + 500]]
                )
                base.execute("COMMIT")
            spent.append((time.perf_counter() - begun) / len(lines) * 1e6)
            base.close()
    return statistics.median(spent[1:])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    batch = records(options.records)
    print(
        f"{platform.machine()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {len(batch)} records"
    )

    names = {f"u{n}": f"~user.{n:0>26}" for n in range(97)}
    ready, clean = per_record(prepared, batch, options.rounds)
    assert not any(SECRET in str(record.path) for record in clean)
    hidden, told = per_record(lambda r: disguise(r, lambda _, value: names.get(value)), clean, options.rounds)
    assert sum(str(record.detail.get("user")).startswith("~") for record in told) == len(batch) // 10
    event, lines = per_record(lambda r: encode_event(event_of(r, index=r.seq - 1)), told, options.rounds)
    assert all(line.decode().isprintable() for line in lines)
    bare = bare_inserts([encode_record(record) for record in told], options.rounds)

    ratio = (ready + hidden) / bare
    print(f"  redaction and size, before signing   {ready:8.2f} us a record")
    print(f"  pseudonyms that are remembered       {hidden:8.2f} us")
    print(f"  OCSF event, as a line                {event:8.2f} us")
    print(f"  peer: bare durable insert            {bare:8.2f} us, time that goes by")
    print(f"  what sealing costs more than that    {ratio:8.2f} of it   (bar: {BAR})")
    growth = 0.0
    for text in HOSTILE:
        half, whole = (min(_seconds(t) for _ in range(3)) for t in (text[: len(text) // 2], text))
        growth = max(growth, whole / max(half, 1e-4))
    print(f"  hostile text twice as long takes     {growth:8.2f} times as long   (bar: 3)")
    return 0 if ratio <= BAR and growth <= 3 else 1


def _seconds(text):
    begun = time.process_time()
    redact_text(text, is_path=True)
    return time.process_time() - begun


if __name__ == "__main__":
    sys.exit(main())
