# SPDX-License-Identifier: Apache-2.0
"""Many processes that append at once, as replicas of a server do, and a disk that fills."""

import contextlib
import os
import subprocess

import pytest
from tests.support.ledger import record
from tests.support.ledger_writers import Writer, check_log

from everyhop.auditlog import RecordFilter
from everyhop.core.errors import Unavailable
from everyhop.storage import open_storage


@pytest.mark.parametrize(
    ("count", "each"),
    [pytest.param(4, 250, id="short"), pytest.param(16, 1000, marks=pytest.mark.long, id="sixteen")],
)
def test_many_processes_append_at_once(place, count, each):
    writers = [Writer(place, f"w{number}", last=each, batch=50) for number in range(count)]
    confirmed = {writer.producer: writer.finish() for writer in writers}
    assert set(confirmed.values()) == {each}
    with contextlib.closing(open_storage(place)) as storage:
        assert check_log(storage, confirmed) == count * each


def test_two_replicas_that_append_the_same_records(place):
    """An agent whose answer was lost asks the other replica: each record is there once, whoever took it."""
    writers = [Writer(place, "agent", last=400, batch=size) for size in (7, 30)]
    confirmed = {writer.producer: writer.finish() for writer in writers}
    with contextlib.closing(open_storage(place)) as storage:
        assert check_log(storage, confirmed) == 400


@pytest.fixture
def small_disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs to be root to mount a small file system")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.root
def test_a_disk_that_is_full_is_named_and_the_log_goes_on_when_there_is_room(small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1024 * 1024))
    with contextlib.closing(open_storage(small_disk / "everyhop.db")) as storage:
        confirmed, refused = 0, None
        while refused is None:
            batch = [record(n, path="/x" * 500) for n in range(confirmed + 1, confirmed + 51)]
            try:
                storage.records.append(batch)
                confirmed += 50
            except Unavailable as error:
                refused = error
        assert "disk is full" in refused.message
        assert refused.retry
        assert confirmed > 0
        # Nobody can write, and everybody can read.
        for _ in range(3):
            with pytest.raises(Unavailable, match="disk is full"):
                storage.records.append(batch)
        assert storage.records.query(RecordFilter(), limit=1).records[0].seq == confirmed
        ballast.unlink()
        assert storage.records.append(batch).stored == 50
        check_log(storage, {"agent": confirmed + 50})
    with contextlib.closing(open_storage(small_disk / "everyhop.db")) as storage:
        check_log(storage, {"agent": confirmed + 50})
