# SPDX-License-Identifier: Apache-2.0
"""Claim: an export to a file keeps up with thousands of records a second, durably, at tens of microseconds of CPU each.

The exporter brings records from SQLite to a file (fsync, then the cursor, per batch of 500), as the sealed line, OCSF and CEF.  The
peer, in the same run, is the least that could do it: the same lines in the same batches, written and fsynced by a loop
without a database, a form or a cursor.  Both files have to hold the same lines where the form is the sealed line.
"""

import argparse
import asyncio
import contextlib
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.exported import record
from tests.support.identity import TestEntropy

from everyhop.control.exporting import Export, Exporter, ExportPorts
from everyhop.exports import Format, JsonlSettings
from everyhop.exports.formats import renderer
from everyhop.exports.jsonl import JsonlSink
from everyhop.storage import open_storage

BATCH = 500


class Clock:
    """The time."""

    def now(self):
        """Return it."""
        return datetime.now(UTC)


def plain(path, lines):
    """Write and fsync in batches; return seconds."""
    begun = time.perf_counter()
    with path.open("wb") as opened:
        for start in range(0, len(lines), BATCH):
            opened.write(b"".join(line + b"\n" for line in lines[start : start + BATCH]))
            opened.flush()
            os.fsync(opened.fileno())
    return time.perf_counter() - begun


async def exported(storage, path, form, total, pool):
    """Export everything once; return seconds, and seconds of CPU."""
    settings = JsonlSettings(name=form.value, format=form, path=path, batch=BATCH, max_bytes=2**40)
    ports = ExportPorts(
        lines=storage.log_lines,
        records=storage.records,
        consumers=storage.consumers,
        leases=storage.leases,
        clock=Clock(),
        entropy=TestEntropy(),
        pool=pool,
    )
    export = Export(settings=settings, open=lambda: JsonlSink(settings, renderer(form, origin=None), Clock()))
    begun, cpu = time.perf_counter(), time.process_time()
    task = asyncio.create_task(Exporter(export, ports).run())
    while storage.consumers.position(f"export:{form.value}") < total:  # noqa: ASYNC110  # no event tells it
        await asyncio.sleep(0.05)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return seconds, cpu


def main():
    """Print records a second and the ratio to the peer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    total = parser.parse_args().records
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {total} records, batches of {BATCH}"
    )
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(1) as pool:
        directory = Path(name)
        with contextlib.closing(open_storage(directory / "everyhop.db", entropy=TestEntropy())) as storage:
            for start in range(1, total + 1, 5000):
                storage.records.append([record(n) for n in range(start, min(start + 5000, total + 1))])
            lines = [
                line
                for n in range(0, total, 1000)
                for _, line in storage.log_lines.read(n, limit=1000, max_bytes=10**9)
            ]
            peer = min(plain(directory / "peer.jsonl", lines) for _ in range(3))
            print(f"plain loop  {total / peer:10,.0f} records/s")
            for form in Format:
                seconds, cpu = asyncio.run(
                    exported(storage, directory / f"{form.value}.jsonl", form, total, pool)
                )
                print(
                    f"{form.value:10}  {total / seconds:10,.0f} records/s  {peer / seconds:.2f}x the plain loop"
                    f", {cpu / total * 1e6:.0f} us of CPU each"
                )
            if (directory / "record.jsonl").read_bytes() != (directory / "peer.jsonl").read_bytes():
                sys.exit("the files differ")


if __name__ == "__main__":
    main()
