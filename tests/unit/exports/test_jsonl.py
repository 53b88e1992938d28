# SPDX-License-Identifier: Apache-2.0
"""Lines in a file: never half, never under another's nose, put aside by size and age."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from tests.support.exported import item
from tests.support.identity import NOW

from everyhop.core.errors import Unavailable
from everyhop.exports import Format, JsonlSettings
from everyhop.exports.formats import renderer
from everyhop.exports.jsonl import JsonlSink, LineFile


class Clock:
    def __init__(self):
        self.moment = NOW

    def now(self):
        return self.moment


@pytest.fixture
def clock():
    return Clock()


def settings(tmp_path, **changes):
    values = {
        "name": "file",
        "format": Format.RECORD,
        "path": tmp_path / "log.jsonl",
        "period": timedelta(days=1),
    }
    return JsonlSettings(**(values | changes))


def opened(tmp_path, clock, **changes):
    return LineFile(settings(tmp_path, **changes), clock)


def set_age(path, clock):
    os.utime(path, (clock.moment.timestamp(), clock.moment.timestamp()))


def test_a_directory_that_is_not_there(tmp_path, clock):
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "missing", clock).append([b"x"])


def test_what_is_no_file_of_ours_alone(tmp_path, clock):
    path = tmp_path / "log.jsonl"
    path.symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic"):
        opened(tmp_path, clock).append([b"x"])
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises((Unavailable, OSError)):
        opened(tmp_path, clock).append([b"x"])
    path.unlink()
    path.touch(mode=0o644)
    path.chmod(0o644)
    with pytest.raises(Unavailable, match="others may open"):
        opened(tmp_path, clock).append([b"x"])


def test_two_processes_do_not_write_one_file(tmp_path, clock):
    first = opened(tmp_path, clock)
    first.append([b"one"])
    with pytest.raises(Unavailable, match="another process"):
        opened(tmp_path, clock).append([b"two"])
    first.close()
    opened(tmp_path, clock).append([b"two"])


def test_the_file_is_ours_alone_and_holds_what_was_given(tmp_path, clock):
    file = opened(tmp_path, clock)
    file.append([b"one", b"two"])
    file.append([b"three"])
    path = tmp_path / "log.jsonl"
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert file.told() == []


@pytest.mark.parametrize("half", [b"ha", b"x" * 200_000])
def test_a_half_line_is_cut_and_told(tmp_path, clock, half):
    path = tmp_path / "log.jsonl"
    path.touch(mode=0o600)
    path.write_bytes(b"whole\n" + half)
    file = opened(tmp_path, clock)
    file.append([b"next"])
    assert path.read_bytes() == b"whole\nnext\n"
    (told,) = file.told()
    assert (told.reason, told.detail["bytes"]) == ("half-line-cut", len(half))


def test_a_file_of_nothing_but_a_half_line(tmp_path, clock):
    path = tmp_path / "log.jsonl"
    path.touch(mode=0o600)
    path.write_bytes(b"half")
    opened(tmp_path, clock).append([b"next"])
    assert path.read_bytes() == b"next\n"


@pytest.mark.parametrize("act", ["rename", "unlink"])
def test_a_file_that_somebody_took_is_opened_anew_and_told(tmp_path, clock, act):
    path = tmp_path / "log.jsonl"
    file = opened(tmp_path, clock)
    file.append([b"one"])
    if act == "rename":
        path.rename(tmp_path / "taken")
    else:
        path.unlink()
    file.append([b"two"])
    assert path.read_bytes() == b"two\n"
    assert [told.reason for told in file.told()] == ["file-gone"]
    if act == "rename":
        assert (tmp_path / "taken").read_bytes() == b"one\n"


def test_a_file_deleted_while_it_is_written_takes_nothing_with_it(tmp_path, clock, monkeypatch):
    file = opened(tmp_path, clock)
    file.append([b"one"])
    real = os.fsync

    def deleting(descriptor):
        (tmp_path / "log.jsonl").unlink(missing_ok=True)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", deleting)
    with pytest.raises(Unavailable, match="deleted"):
        file.append([b"two"])
    monkeypatch.setattr(os, "fsync", real)
    file.append([b"two"])
    assert (tmp_path / "log.jsonl").read_bytes() == b"two\n"


def test_a_full_disk_leaves_no_half_batch(tmp_path, clock, monkeypatch):
    file = opened(tmp_path, clock)
    file.append([b"one"])
    real = os.write

    def short(descriptor, data):
        if len(data) <= 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[:5])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(OSError, match="No space"):
        file.append([b"two", b"three"])
    monkeypatch.undo()
    assert (tmp_path / "log.jsonl").read_bytes() == b"one\n"


def test_a_full_file_is_put_aside(tmp_path, clock):
    file = opened(tmp_path, clock, max_bytes=8)
    for line in (b"one", b"two", b"three", b"four", b"five"):
        file.append([line])
    aside = sorted(p.name for p in tmp_path.iterdir() if p.name != "log.jsonl")
    assert len(aside) == 2
    assert (tmp_path / aside[0]).read_bytes() == b"one\ntwo\n"
    assert (tmp_path / aside[1]).read_bytes() == b"three\nfour\n"
    assert (tmp_path / "log.jsonl").read_bytes() == b"five\n"


def test_a_file_of_yesterday_is_put_aside_also_after_a_restart(tmp_path, clock):
    file = opened(tmp_path, clock)
    file.append([b"one"])
    set_age(tmp_path / "log.jsonl", clock)
    file.append([b"two"])
    file.close()
    set_age(tmp_path / "log.jsonl", clock)
    clock.moment += timedelta(days=1)
    opened(tmp_path, clock).append([b"three"])
    (aside,) = [p for p in tmp_path.iterdir() if p.name != "log.jsonl"]
    assert aside.read_bytes() == b"one\ntwo\n"


def test_as_many_are_kept_as_is_said_and_others_files_are_left_alone(tmp_path, clock):
    stranger = tmp_path / "log.jsonl.bak"
    stranger.touch()
    file = opened(tmp_path, clock, max_bytes=1, keep=2)
    for n in range(6):
        clock.moment += timedelta(seconds=1)
        file.append([b"%d" % n])
    aside = sorted(p for p in tmp_path.iterdir() if p.name not in {"log.jsonl", stranger.name})
    assert [p.read_bytes() for p in aside] == [b"3\n", b"4\n"]
    assert stranger.exists()


async def test_the_sink_confirms_what_is_on_the_disk(tmp_path, clock):
    sink = JsonlSink(settings(tmp_path), renderer(Format.RECORD, origin=None), clock)
    assert await sink.settle() == 0
    assert await sink.send([item(1), item(2)]) == 2
    assert await sink.close() == 2
    assert await sink.settle() == 0
    lines = (tmp_path / "log.jsonl").read_bytes().splitlines()
    assert lines == [item(1).line, item(2).line]


async def test_a_disk_that_hangs_piles_nothing_up(tmp_path, clock):
    sink = JsonlSink(settings(tmp_path), renderer(Format.RECORD, origin=None), clock)
    release = threading.Event()
    real = sink._file.append

    def hanging(lines):
        release.wait(20)
        real(lines)

    sink._file.append = hanging
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sink.send([item(1)]), 0.05)
    with pytest.raises(Unavailable, match="disk"):
        await sink.send([item(1)])
    assert await sink.close() == 0
    release.set()
    sink._file.append = real
    await asyncio.wait_for(asyncio.wrap_future(sink._last), 10)
    assert await sink.send([item(1), item(2)]) == 2
    lines = (tmp_path / "log.jsonl").read_bytes().splitlines()
    assert lines == [item(1).line, item(1).line, item(2).line]


_WRITER = """
    import sys
    from datetime import UTC, datetime
    from pathlib import Path
    from everyhop.exports import Format, JsonlSettings
    from everyhop.exports.jsonl import LineFile

    class Clock:
        def now(self):
            return datetime.now(UTC)

    file = LineFile(JsonlSettings(name="f", format=Format.RECORD, path=Path(sys.argv[1])), Clock())
    n = int(sys.argv[2])
    while True:
        file.append([b'{"n":%d,"fill":"%s"}' % (k, b"x" * 3000) for k in range(n, n + 20)])
        n += 20
        print(n, flush=True)
"""


def test_a_writer_that_is_killed_leaves_whole_lines_and_all_that_it_confirmed(tmp_path, clock):
    path = tmp_path / "log.jsonl"
    confirmed = 0
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_WRITER), str(path), str(confirmed)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")},
        )
        try:
            for _ in range(5):
                confirmed = int(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
    LineFile(settings(tmp_path), clock).append([b'{"n":-1}'])
    seen = [msgspec.json.decode(line)["n"] for line in path.read_bytes().splitlines()]
    assert seen.pop() == -1
    assert set(range(confirmed)) <= set(seen)
