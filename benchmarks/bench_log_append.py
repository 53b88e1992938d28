# SPDX-License-Identifier: Apache-2.0
"""Claim: a sealed append costs at most three times the engine's bare insert, and 10,000 records a second are sealed.

Records are appended durably at batches of 1, 10, 100 and 500 to SQLite (WAL, synchronous FULL) and PostgreSQL
(synchronous_commit on): numbered without gaps, repeated ones left out, hashed into the tree, with its tiles and seven
indexes. Peers, in the same run on the same disk, taking turns batch by batch: the bare insert of the same lines into
a table without any index (executemany, or COPY), and a plain hash chain, which also locks and updates a head row but
has no tree, no index and no look-up. Then 50 threads append at once, sharing commits. Both ends are counted, every
batch is delivered a second time and must change nothing, and the tree is compared with a recomputation.

Bar: at batches of 500 on SQLite at least 10,000 records a second with a p99 of at most 100 ms, and at batches of 100 at
least a third of the bare insert on each engine.
"""

import argparse
import contextlib
import itertools
import platform
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.ledger import naive_root
from tests.support.postgresql import PostgresServer, absent

from everyhop.auditlog import Kind, Point, Record, encode_record
from everyhop.storage import open_storage

BATCHES = (1, 10, 100, 500)
BAR_RATE, BAR_P99, BAR_RATIO = 10_000.0, 0.100, 1 / 3
THREADS = 50
WARM_UP = 5
_numbers = itertools.count(1)


def make(count, producer="agent-1/sidecar-1"):
    """Return records as an agent sends them, decoded."""
    now = datetime.now(UTC)
    return [
        Record(
            id=f"{number:024x}",
            seq=number,
            producer=producer,
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
        for number in itertools.islice(_numbers, count)
    ]


class SqlitePeers:
    """The bare insert and the hash chain on sqlite3 itself."""

    def __init__(self, directory):
        self._directory = directory

    def _open(self, name):
        connection = sqlite3.connect(self._directory / name, isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE lines (line BLOB)")
        connection.execute("CREATE TABLE head (one INTEGER PRIMARY KEY, size INTEGER, hash BLOB)")
        connection.execute("INSERT INTO head VALUES (1, 0, x'')")
        return connection

    def bare(self):
        connection = self._open("bare.db")

        def append(batch):
            lines = [(encode_record(record),) for record in batch]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO lines VALUES (?)", lines)
            connection.execute("COMMIT")

        return append, connection

    def chain(self):
        connection = self._open("chain.db")

        def append(batch):
            lines = [(encode_record(record),) for record in batch]
            connection.execute("BEGIN IMMEDIATE")
            size, last = connection.execute("SELECT size, hash FROM head").fetchone()
            for (line,) in lines:
                last = sha256(last + line).digest()
            connection.executemany("INSERT INTO lines VALUES (?)", lines)
            connection.execute("UPDATE head SET size = ?, hash = ?", (size + len(lines), last))
            connection.execute("COMMIT")

        return append, connection


class PostgresPeers:
    """The same on psycopg itself, with COPY."""

    def __init__(self, server):
        self._server = server

    def _open(self):
        import psycopg

        connection = psycopg.connect(self._server.url(self._server.new_database()))
        connection.execute("CREATE TABLE lines (line bytea)")
        connection.execute("CREATE TABLE head (one int PRIMARY KEY, size bigint, hash bytea)")
        connection.execute("INSERT INTO head VALUES (1, 0, '')")
        connection.commit()
        return connection

    def _copy(self, connection, lines):
        with connection.cursor().copy("COPY lines FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["bytea"])
            for line in lines:
                copy.write_row((line,))

    def bare(self):
        connection = self._open()

        def append(batch):
            self._copy(connection, [encode_record(record) for record in batch])
            connection.commit()

        return append, connection

    def chain(self):
        connection = self._open()

        def append(batch):
            lines = [encode_record(record) for record in batch]
            size, last = connection.execute("SELECT size, hash FROM head FOR UPDATE").fetchone()
            for line in lines:
                last = sha256(last + line).digest()
            self._copy(connection, lines)
            connection.execute("UPDATE head SET size = %s, hash = %s", (size + len(lines), last))
            connection.commit()

        return append, connection


def take_turns(systems, size, seconds):
    """Give every system the same batches, one after the other; return the seconds of each batch by system."""
    durations = {name: [] for name in systems}
    end, turn = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or turn <= 2 * WARM_UP:
        turn += 1
        batch = make(size)
        for name, append in systems.items():
            began = time.perf_counter()
            append(batch)
            if turn > WARM_UP:
                durations[name].append(time.perf_counter() - began)
    return durations


def quantiles(durations):
    found = sorted(durations)
    return statistics.median(found), found[min(len(found) - 1, int(len(found) * 0.99))]


def report(engine, size, durations):
    """Print one line a system; return rate and p99 of ours and its ratio to the bare insert, by medians."""
    bare = statistics.median(durations["bare insert"])
    rates = {}
    for name, found in durations.items():
        median, p99 = quantiles(found)
        rates[name] = size * len(found) / sum(found), p99, bare / median
        print(
            f"  {engine:<10} {size:>5} {name:<12} {rates[name][0]:>9,.0f} records/s   median {median * 1e3:7.2f} ms"
            f"   p99 {p99 * 1e3:7.2f} ms   {rates[name][2]:.2f} of the bare insert"
        )
    return rates["everyhop"]


def concurrent(storage, size, seconds):
    """Let 50 threads append; return records a second, and the quantiles of what each of them waited."""
    waits, stop = [], time.perf_counter() + seconds

    def work(name):
        seq = 1
        while time.perf_counter() < stop:
            batch = [
                Record(
                    id=f"{name}-{n}",
                    seq=n,
                    producer=name,
                    time=datetime.now(UTC),
                    kind=Kind.DECISION,
                    point=Point.INGRESS,
                )
                for n in range(seq, seq + size)
            ]
            began = time.perf_counter()
            assert storage.records.append(batch).stored == size
            waits.append(time.perf_counter() - began)
            seq += size

    threads = [threading.Thread(target=work, args=(f"t{size}-{number}",)) for number in range(THREADS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(waits) * size / (time.perf_counter() - began), *quantiles(waits)


def check(storage):
    """Compare the tree with a recomputation."""
    size, frontier = storage.log_tree.head()
    lines = [line for page in storage.log_tree.lines(0, size) for line in page]
    assert storage.records.count() == size == len(lines)
    assert frontier.root() == naive_root(lines)


def measure(engine, storage, peers, seconds):
    """Measure one engine; tell whether it meets its bar."""
    is_met = True
    with contextlib.ExitStack() as stack:
        bare, chain = peers.bare(), peers.chain()
        for _, connection in (bare, chain):
            stack.callback(connection.close)
        kept = []
        systems = {
            "everyhop": lambda batch: kept.append((batch, storage.records.append(batch))),
            "bare insert": bare[0],
            "hash chain": chain[0],
        }
        for size in BATCHES:
            rate, p99, ratio = report(engine, size, take_turns(systems, size, seconds))
            if size == 100:
                is_met = is_met and ratio >= BAR_RATIO
            if size == 500 and engine == "sqlite":
                is_met = is_met and rate >= BAR_RATE and p99 <= BAR_P99
        assert all(result.stored == len(batch) for batch, result in kept)
        for batch, _ in kept[:20] + kept[-20:]:
            assert storage.records.append(batch).duplicates == len(batch)
        for size in (1, 10):
            rate, median, p99 = concurrent(storage, size, seconds)
            print(
                f"  {engine:<10} {size:>5} {THREADS} threads   {rate:>9,.0f} records/s   median {median * 1e3:7.2f} ms"
                f"   p99 {p99 * 1e3:7.2f} ms"
            )
    check(storage)
    return is_met


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each size of a batch")
    options = parser.parse_args(argv)
    print(
        f"  {platform.machine()}, CPython {platform.python_version()}, SQLite {sqlite3.sqlite_version};"
        f" {WARM_UP} batches as warm-up"
    )
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        with contextlib.closing(open_storage(place / "everyhop.db")) as storage:
            is_met = measure("sqlite", storage, SqlitePeers(place), options.seconds)
    if why := absent():
        print(f"  without PostgreSQL: {why}")
    else:
        server = PostgresServer(durable=True)
        try:
            with contextlib.closing(open_storage(server.url(server.new_database()))) as storage:
                is_met = measure("postgresql", storage, PostgresPeers(server), options.seconds) and is_met
        finally:
            server.close()
    print(f"  bar {'met' if is_met else 'MISSED'}")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
