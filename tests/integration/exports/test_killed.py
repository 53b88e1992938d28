# SPDX-License-Identifier: Apache-2.0
"""A server that is killed between the delivery and the cursor: everything arrives, doubled at most at that place."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.support.exported import record
from tests.support.identity import TestEntropy

from everyhop.storage import open_storage

ROOT = Path(__file__).parents[3]
BATCH = 20
TOTAL = 400
KILLS = 4

_SERVER = """
    import asyncio, os, signal, sys
    from concurrent.futures import ThreadPoolExecutor
    from datetime import UTC, datetime, timedelta
    from pathlib import Path
    from everyhop.control.exporting import Export, ExportPorts, Exporter
    from everyhop.exports import Format, JsonlSettings
    from everyhop.exports.formats import renderer
    from everyhop.exports.jsonl import JsonlSink
    from everyhop.storage import open_storage
    from tests.support.identity import TestEntropy

    class Clock:
        def now(self):
            return datetime.now(UTC)

    class Killing:
        def __init__(self, consumers, moves):
            self._consumers, self._left = consumers, moves

        def __getattr__(self, name):
            return getattr(self._consumers, name)

        def move(self, name, position, **more):
            self._left -= 1
            if self._left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return self._consumers.move(name, position, **more)

    storage = open_storage(Path(sys.argv[1]), entropy=TestEntropy())
    settings = JsonlSettings(name="f", format=Format.RECORD, path=Path(sys.argv[2]), batch=int(sys.argv[4]))
    ports = ExportPorts(
        lines=storage.log_lines, records=storage.records, leases=storage.leases, clock=Clock(),
        consumers=Killing(storage.consumers, int(sys.argv[3])), entropy=TestEntropy(), pool=ThreadPoolExecutor(1),
    )
    export = Export(
        settings=settings, open=lambda: JsonlSink(settings, renderer(settings.format, origin=None), Clock())
    )
    asyncio.run(Exporter(export, ports).run())
"""


def run_until_killed(database, output, moves):
    """Run a server that is killed instead of its next but ``moves`` move of the cursor."""
    arguments = [str(database), str(output), str(moves), str(BATCH)]
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_SERVER), *arguments],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        check=False,
        timeout=60,
    )
    assert process.returncode == -signal.SIGKILL


def test_killed_between_delivery_and_cursor(tmp_path):
    database, output = tmp_path / "everyhop.db", tmp_path / "out.jsonl"
    with contextlib.closing(open_storage(database, entropy=TestEntropy())) as storage:
        storage.records.append([record(n) for n in range(1, TOTAL + 1)])
        positions = [0]
        for kill in range(KILLS):
            run_until_killed(database, output, kill % 3)
            positions.append(storage.consumers.position("export:f"))
    assert positions == [BATCH * sum(n % 3 for n in range(kill)) for kill in range(KILLS + 1)]
    seen = [json.loads(line)["seq"] for line in output.read_bytes().splitlines()]
    delivered = positions[-1] + BATCH  # the last batch is delivered, and its cursor did not move
    assert set(seen) == set(range(1, delivered + 1))
    first = list(dict.fromkeys(seen))
    assert first == sorted(first)  # in order
    assert len(seen) == positions[-1] + KILLS * BATCH  # doubled only where it was killed
