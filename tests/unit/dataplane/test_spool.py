# SPDX-License-Identifier: Apache-2.0
import contextlib
import json
import random

import pytest

from everyhop.auditlog.gaps import Gap, gap_of
from everyhop.core.errors import Unavailable
from everyhop.dataplane import spool as module
from everyhop.dataplane.spool import Delivery, SpoolReader


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
    """Keeps batches whole or not at all, as the real one does, and fails when told to."""

    def __init__(self):
        self.records = {}
        self.ids = set()
        self.heads = {}
        self.chain_is_whole = True
        self.calls = []
        self.fail = lambda _: False
        self.lose_answer = lambda _: False

    async def send(self, records, previous):
        self.calls.append(len(records))
        if self.fail(len(self.calls)):
            raise Unavailable("down")
        producer, first = records[0].producer, records[0].seq
        assert [(r.producer, r.seq) for r in records] == [(producer, first + i) for i in range(len(records))]
        held = max((seq for name, seq in self.records if name == producer), default=0)
        if first > held:
            if previous != self.heads.get(producer, b""):
                return Delivery(held=held, head=self.heads.get(producer, b""))
            taken = tuple(r.id for r in records if r.id in self.ids)
            if taken:
                return Delivery(held=held, head=self.heads.get(producer, b""), conflicts=taken)
            self.chain_is_whole &= previous == self.heads.get(producer, b"")
            self.records.update({(r.producer, r.seq): r for r in records})
            self.ids.update(r.id for r in records)
            self.heads[producer] = b"%d" % records[-1].seq
            held = records[-1].seq
        if self.lose_answer(len(self.calls)):
            raise Unavailable("the answer was lost")
        return Delivery(held=held, head=self.heads[producer])

    def paths(self):
        return [self.records[key].path for key in sorted(self.records) if self.records[key].path]

    def gaps(self):
        found = (gap_of(self.records[key]) for key in sorted(self.records))
        return [gap for gap in found if gap is not None]


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
    assert server.chain_is_whole


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
    assert server.gaps() == [Gap(6, 6, None, "spool-truncated")]


async def test_a_replaced_file_is_read_from_its_start(tmp_path, server, log):
    log.write(5)
    spool = reader(tmp_path)
    await spool.forward(server.send)
    (tmp_path / "access.log").rename(tmp_path / "elsewhere")
    log.write(3)
    assert await spool.forward(server.send) == 3
    assert server.paths() == log.expected()
    assert server.gaps() == [Gap(6, 6, None, "spool-truncated")]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"inode": "x"}', b'{"other": 1}'])
async def test_one_damaged_cursor_loses_and_doubles_nothing(tmp_path, server, log, damage):
    log.write(5)
    await reader(tmp_path).forward(server.send)
    log.write(2)
    await reader(tmp_path).forward(server.send)
    (tmp_path / "cursor.json").write_bytes(damage)
    log.write(1)
    await reader(tmp_path).forward(server.send)
    assert server.paths() == log.expected()
    assert server.gaps() == []
    assert server.chain_is_whole


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"inode": "x"}'])
async def test_two_damaged_cursors_lose_nothing_and_say_that_there_may_be_doubles(
    tmp_path, server, log, damage
):
    log.write(5)
    await reader(tmp_path).forward(server.send)
    for name in ("cursor.json", "cursor.before.json"):
        (tmp_path / name).write_bytes(damage)
    log.write(1)
    await reader(tmp_path).forward(server.send)
    again = reader(tmp_path)
    log.write(1)
    await again.forward(server.send)
    ours = {key: record for key, record in server.records.items() if key[0] == again.producer}
    assert again.producer.startswith("i1~")
    assert [seq for _, seq in sorted(ours)] == list(range(1, 9))
    assert gap_of(ours[again.producer, 1]) == Gap(1, 1, None, "cursor-damaged")
    assert [ours[key].path for key in sorted(ours)][1:] == log.expected()
    assert len({record.id for record in server.records.values()}) == len(server.records)


async def test_a_cursor_of_an_older_release_goes_on(tmp_path, server, log):
    log.write(5)
    size = (tmp_path / "access.log").stat()
    (tmp_path / "cursor.json").write_text(
        json.dumps({"inode": size.st_ino, "offset": size.st_size, "seq": 6})
    )
    log.write(1)
    assert await reader(tmp_path).forward(server.send) == 1
    assert sorted(server.records) == [("i1", 6)]


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
