# SPDX-License-Identifier: Apache-2.0
import contextlib
import json
import random

import pytest

from everyhop.core.errors import Unavailable
from everyhop.dataplane import spool as module
from everyhop.dataplane.spool import SpoolReader


def line(number):
    return (
        json.dumps(
            {
                "kind": "in",
                "time": "2026-11-22T00:07:03.1Z",
                "path": f"/{number}",
                "status": 200,
                "type": "DownstreamEnd",
            }
        ).encode()
        + b"\n"
    )


class Server:
    """Keeps records once per (producer, seq), and fails when told to."""

    def __init__(self):
        self.records = {}
        self.calls = []
        self.fail = lambda _: False
        self.lose_answer = lambda _: False

    async def send(self, records):
        self.calls.append(len(records))
        if self.fail(len(self.calls)):
            raise Unavailable("down")
        for record in records:
            key = record.producer, record.seq
            assert self.records.setdefault(key, record) == record  # the same number is always the same record
        if self.lose_answer(len(self.calls)):
            raise Unavailable("the answer was lost")

    def paths(self):
        return [self.records[key].path for key in sorted(self.records)]


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def log(tmp_path):
    class Log:
        count = 0

        def write(self, number=1):
            with (tmp_path / "access.log").open("ab") as file:
                for _ in range(number):
                    file.write(line(self.count))
                    self.count += 1

        def expected(self):
            return [f"/{n}" for n in range(self.count)]

    return Log()


def reader(tmp_path, **options):
    return SpoolReader(tmp_path, instance="i1", **options)


async def test_nothing_there_yet(tmp_path, server):
    spool = reader(tmp_path)
    assert await spool.forward(server.send) == 0
    assert spool.pending() == 0


async def test_lines_arrive_in_order_with_numbers_from_1(tmp_path, server, log):
    log.write(3)
    spool = reader(tmp_path)
    assert spool.pending() == 3
    assert await spool.forward(server.send) == 3
    assert sorted(server.records) == [("i1", 1), ("i1", 2), ("i1", 3)]
    assert server.paths() == log.expected()
    assert spool.pending() == 0
    log.write(2)
    assert spool.pending() == 2
    assert await spool.forward(server.send) == 2
    assert server.paths() == log.expected()


async def test_batches_are_bounded(tmp_path, server, log):
    log.write(1201)
    assert await reader(tmp_path).forward(server.send) == 1201
    assert server.calls == [500, 500, 201]


async def test_a_half_written_line_waits(tmp_path, server, log):
    log.write(1)
    whole = line(1)
    with (tmp_path / "access.log").open("ab") as file:
        file.write(whole[:10])
        file.flush()
        spool = reader(tmp_path)
        assert await spool.forward(server.send) == 1
        assert spool.pending() == 0
        file.write(whole[10:])
    assert await spool.forward(server.send) == 1
    assert server.paths() == ["/0", "/1"]


async def test_while_the_server_is_down_nothing_moves(tmp_path, server, log):
    log.write(700)
    spool = reader(tmp_path)
    server.fail = lambda call: call >= 2
    with pytest.raises(Unavailable):
        await spool.forward(server.send)
    assert spool.pending() == 200
    log.write(1)
    assert spool.pending() == 201
    server.fail = lambda _: False
    assert await spool.forward(server.send) == 201
    assert server.paths() == log.expected()


async def test_a_lost_answer_and_a_restart_lose_and_double_nothing(tmp_path, server, log):
    log.write(600)
    server.lose_answer = lambda call: call in {1, 3}
    for _ in range(4):
        try:
            await reader(tmp_path).forward(server.send)
        except Unavailable:
            continue
    assert server.paths() == log.expected()
    assert len(server.records) == 600


@pytest.mark.parametrize("seed", range(12))
async def test_any_order_of_writes_failures_restarts_and_rotations(tmp_path, server, log, seed):
    chance = random.Random(seed)
    opened = []

    def make():
        return reader(tmp_path, reopen=lambda: opened.append(1), max_file_bytes=4000)

    spool = make()
    for _ in range(60):
        step = chance.choice(("write", "write", "forward", "forward", "fail", "lose", "restart"))
        server.fail = (lambda _: True) if step == "fail" else (lambda _: False)
        server.lose_answer = (lambda _: True) if step == "lose" else (lambda _: False)
        if step == "write":
            log.write(chance.randrange(1, 20))
        elif step == "restart":
            spool = make()
        else:
            with contextlib.suppress(Unavailable):
                await spool.forward(server.send)
    server.fail = server.lose_answer = lambda _: False
    await make().forward(server.send)
    await make().forward(server.send)
    assert server.paths() == log.expected()
    assert spool.pending() == 0 or make().pending() == 0
    assert opened


async def test_rotation_waits_for_envoy_and_for_the_server(tmp_path, server, log):
    opened = []
    spool = reader(tmp_path, reopen=lambda: opened.append(1), max_file_bytes=1000)
    writer = (tmp_path / "access.log").open("ab")
    for _ in range(20):
        writer.write(line(log.count))
        log.count += 1
    writer.flush()
    await spool.forward(server.send)
    assert opened == [1]
    assert (tmp_path / "access.log.1").exists()
    assert not (tmp_path / "access.log").exists()
    writer.write(line(log.count))  # Envoy still holds the old file
    writer.close()
    log.count += 1
    assert spool.pending() == 1
    assert await spool.forward(server.send) == 1
    log.write(2)  # and now the new one
    server.fail = lambda _: True
    assert spool.pending() == 2
    with pytest.raises(Unavailable):
        await spool.forward(server.send)
    server.fail = lambda _: False
    assert await reader(tmp_path).forward(server.send) == 2
    assert not (tmp_path / "access.log.1").exists()
    assert server.paths() == log.expected()
    assert len(opened) == 1


async def test_a_truncated_file_is_read_from_its_start(tmp_path, server, log):
    log.write(5)
    spool = reader(tmp_path)
    await spool.forward(server.send)
    (tmp_path / "access.log").write_bytes(b"")
    log.write(2)
    assert await spool.forward(server.send) == 2
    assert server.paths() == log.expected()


async def test_a_replaced_file_is_read_from_its_start(tmp_path, server, log):
    log.write(5)
    spool = reader(tmp_path)
    await spool.forward(server.send)
    (tmp_path / "access.log").rename(tmp_path / "elsewhere")
    log.write(3)
    assert spool.pending() == 3
    assert await spool.forward(server.send) == 3
    assert server.paths() == log.expected()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"inode": "x"}', b'{"other": 1}'])
async def test_a_damaged_cursor_sends_again_what_was_sent(tmp_path, server, log, damage):
    log.write(5)
    await reader(tmp_path).forward(server.send)
    (tmp_path / "cursor.json").write_bytes(damage)
    assert await reader(tmp_path).forward(server.send) == 5
    assert server.paths() == log.expected()


async def test_a_line_without_end_does_not_stop_the_rest(tmp_path, server, log, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 1000)
    (tmp_path / "access.log").write_bytes(b"x" * 2500 + b"\n" + line(0))
    spool = reader(tmp_path)
    await spool.forward(server.send)
    reasons = [server.records[key].reason for key in sorted(server.records)]
    assert reasons[:3] == ["unreadable-line"] * 3
    assert server.paths()[-1] == "/0"
    assert len(reasons) == 4


async def test_an_empty_line_is_a_record_too(tmp_path, server):
    (tmp_path / "access.log").write_bytes(b"\n" + line(0))
    assert await reader(tmp_path).forward(server.send) == 2
