# SPDX-License-Identifier: Apache-2.0
"""Claim: reports on recorded traffic need bounded memory and little time, whatever callers send.

A log of decisions (one in a hundred would be decided otherwise in shadow, one in ten is of a path that its caller made up)
is added up as ``policy suggest`` and ``log shadow`` ask the server to.  The peer, in the same run, reads the same rows with
the bare sqlite3 module and does nothing with them.  The sums are checked.  Peak memory is that of Python's own allocations.
"""

import argparse
import platform
import sqlite3
import sys
import tempfile
import time
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

from everyhop.auditlog import Kind, Point, Record, RecordFilter, Tally
from everyhop.storage import open_storage

MAX_MIB = 64


class Entropy:
    """No randomness is needed here."""

    def token_bytes(self, count):
        """Return zeros."""
        return bytes(count)

    def fraction(self):
        """Return a constant."""
        return 0.5


def record(number, now):
    """Return one decision; of every tenth the caller made the path up."""
    made_up = number % 10 == 0
    return Record(
        id=f"{number:024x}",
        seq=number,
        producer="agent-1/sidecar-1",
        time=now,
        kind=Kind.DECISION,
        point=Point.INGRESS,
        caller=f"spiffe://bench.example/service/s{number % 50}",
        target=f"s{number % 7}",
        operation=None if made_up else f"o{number % 20}",
        method="GET",
        path=f"/{number}",
        decision="deny" if made_up else "allow",
        reason="unknown-operation" if made_up else "allowed",
        snapshot="a" * 64,
        detail={"would": "deny", "would_reason": "no-rule"} if number % 100 == 1 else {},
    )


def tally(storage, *, only_shadow):
    """Add everything up as the server does."""
    found = Tally(only_shadow=only_shadow)
    holding = b'"would":"' if only_shadow else None
    for page in storage.records.scan(RecordFilter(kind=Kind.DECISION), holding=holding):
        found.take(page)
    return found


def main():
    """Measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=50_000)
    count = parser.parse_args().records
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "log.db"
        storage = open_storage(path, entropy=Entropy())
        now = datetime.now(UTC)
        for first in range(1, count + 1, 5000):
            storage.records.append([record(n, now) for n in range(first, min(first + 5000, count + 1))])
        began = time.perf_counter()
        with sqlite3.connect(path) as peer:
            rows = sum(1 for _ in peer.execute("SELECT n, line FROM records ORDER BY n"))
        bare = time.perf_counter() - began
        began = time.perf_counter()
        every = tally(storage, only_shadow=False)
        whole = time.perf_counter() - began
        began = time.perf_counter()
        shadow = tally(storage, only_shadow=True)
        part = time.perf_counter() - began
        tracemalloc.start()
        tally(storage, only_shadow=False)
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        storage.close()
    wanted = len(range(1, count + 1, 100))
    right = rows == every.counted == sum(g.count for g in every.groups()) and shadow.counted == wanted
    print(f"{platform.python_version()}, {count} records, {len(every.groups())} groups")
    print(f"all     {whole:6.2f} s  {count / whole:10.0f} records/s  {whole / bare:5.1f}x the bare read")
    print(f"shadow  {part:6.2f} s  {count / part:10.0f} records/s")
    print(f"peak    {peak:6.1f} MiB (bar: {MAX_MIB})")
    return 0 if right and peak <= MAX_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
