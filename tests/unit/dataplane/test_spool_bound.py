# SPDX-License-Identifier: Apache-2.0
"""The bound of a spool, and agents that end between any two steps."""

import asyncio
import contextlib
import json
import random
from pathlib import Path

import pytest
from tests.support.identity import NOW

from everyhop.auditlog.gaps import GapReason, gap_of
from everyhop.core.errors import Unavailable
from everyhop.dataplane import spool as module, spool_cursor
from everyhop.dataplane.gap_lines import append_gap
from everyhop.dataplane.spool import Delivery, SpoolReader


class Envoy:
    """Writes lines of equal length; takes up a new file when it is asked to."""

    def __init__(self, directory):
        self.directory = directory
        self.count = 0
        self._file = None

    def write(self, number):
        if self._file is None:
            self._file = (self.directory / "access.log").open("ab")
        for _ in range(number):
            fields = {"kind": "in", "time": "2026-11-22T00:07:03.1Z", "path": f"/{self.count:06}"}
            self._file.write(json.dumps({**fields, "status": 200, "type": "DownstreamEnd"}).encode() + b"\n")
            self.count += 1
        self._file.flush()

    def close(self):
        if self._file is not None:
            self._file.close()

    def reopen(self):
        if self._file is not None:
            self._file.close()
        self._file = (self.directory / "access.log").open("ab")


class Server:
    """Stores batches whole; what it holds is what it says."""

    def __init__(self):
        self.records = {}
        self.head = b""
        self.is_away = False
        self.answers_are_lost = False

    async def send(self, records, previous):
        if self.is_away:
            raise Unavailable("away")
        held = max(self.records, default=0)
        if records[0].seq > held:
            if previous != self.head:
                return Delivery(held=held, head=self.head)
            self.head = b"%d" % records[-1].seq
            assert [r.seq for r in records] == list(range(records[0].seq, records[0].seq + len(records)))
            self.records.update({r.seq: r for r in records})
        if self.answers_are_lost:
            raise Unavailable("lost")
        return Delivery(held=max(self.records), head=self.head)

    def account(self):
        """Return the numbers that are accounted for, how many gaps say are lost, and the paths."""
        numbers, lost = set(self.records), 0
        for record in self.records.values():
            gap = gap_of(record)
            if gap is not None:
                numbers.update(range(gap.first, gap.last + 1))
                lost += gap.count or 0
        return numbers, lost, [r.path for _, r in sorted(self.records.items()) if r.path]


LIMIT = 16_000


@pytest.fixture
def envoy(tmp_path):
    with contextlib.closing(Envoy(tmp_path)) as made:
        yield made


def make(tmp_path, envoy, limit=LIMIT):
    return SpoolReader(tmp_path, instance="i1", reopen=envoy.reopen, limit=limit)


def size_of(tmp_path: Path) -> int:
    return sum(path.stat().st_size for path in tmp_path.glob("access.log*"))


async def test_a_server_that_is_away_for_long_costs_the_oldest_and_one_record_tells_how_many(tmp_path, envoy):
    server = Server()
    spool = make(tmp_path, envoy)
    server.is_away = True
    for _ in range(100):
        envoy.write(10)
        spool.tend()
        assert size_of(tmp_path) <= LIMIT + LIMIT // 8 + 1000
    waiting = spool.pending()
    server.is_away = False
    await spool.forward(server.send)
    numbers, lost, paths = server.account()
    assert numbers == set(range(1, 1001))
    assert paths == [f"/{n:06}" for n in range(lost, 1000)]
    assert lost > 700
    assert len([1 for r in server.records.values() if gap_of(r)]) == 1
    assert waiting == len(server.records)
    assert spool.pending() == 0


async def test_what_fits_is_kept(tmp_path, envoy):
    server = Server()
    spool = make(tmp_path, envoy)
    while size_of(tmp_path) < LIMIT * 0.8:
        envoy.write(1)
        spool.tend()
    await spool.forward(server.send)
    assert server.account()[1:] == (0, [f"/{n:06}" for n in range(envoy.count)])


async def test_a_batch_that_arrives_after_it_was_given_up_is_no_loss(tmp_path, envoy):
    server = Server()
    spool = make(tmp_path, envoy)
    envoy.write(5)
    await spool.forward(server.send)
    envoy.write(40)

    async def freezes(records, previous):
        late.append((records, previous))
        raise Unavailable("no answer")

    late = []
    with pytest.raises(Unavailable):
        await spool.forward(freezes)
    for _ in range(60):
        envoy.write(10)
        spool.tend()
    await server.send(*late[0])  # it goes on with what lay in its socket
    await spool.forward(server.send)
    numbers, lost, paths = server.account()
    assert numbers == set(range(1, envoy.count + 1))
    assert lost + len(paths) == envoy.count
    assert paths[:45] == [f"/{n:06}" for n in range(45)]


async def test_a_gap_that_may_have_been_told_does_not_grow(tmp_path, envoy):
    server = Server()
    spool = make(tmp_path, envoy)
    for _ in range(60):
        envoy.write(10)
        spool.tend()
    server.answers_are_lost = True  # the server has the gap, and the agent does not know
    with pytest.raises(Unavailable):
        await spool.forward(server.send)
    server.answers_are_lost = False
    for is_restarted in (False, True):
        spool = make(tmp_path, envoy) if is_restarted else spool
        for _ in range(60):
            envoy.write(10)
            spool.tend()
    await spool.forward(server.send)
    numbers, lost, paths = server.account()
    assert numbers == set(range(1, envoy.count + 1))
    assert lost + len(paths) == envoy.count


async def test_nothing_is_given_up_while_a_batch_is_under_way(tmp_path, envoy):
    server = Server()
    spool = make(tmp_path, envoy)
    envoy.write(100)
    spool.tend()

    async def slowly(records, previous):
        for _ in range(60 if not server.records else 0):
            envoy.write(10)
            spool.tend()
        return await server.send(records, previous)

    await spool.forward(slowly)
    numbers, lost, paths = server.account()
    assert numbers == set(range(1, envoy.count + 1))
    assert lost + len(paths) == envoy.count


def test_what_was_not_sent_is_put_on_the_disk_once(tmp_path, envoy, monkeypatch):
    spool = make(tmp_path, envoy)
    synced = []
    monkeypatch.setattr(module.os, "fdatasync", synced.append)
    assert spool.sync() == 0
    envoy.write(3)
    assert (spool.sync(), spool.sync()) == (1, 0)
    envoy.write(1)
    assert spool.sync() == 1
    asyncio.run(spool.forward(Server().send))
    assert spool.sync() == 0
    envoy.write(100)
    spool.tend()
    envoy.write(1)
    assert spool.sync() == 2
    assert len(synced) == 4


async def test_a_disk_that_is_full_stops_no_forwarding(tmp_path, envoy, monkeypatch):
    server = Server()
    spool = make(tmp_path, envoy, limit=10**6)
    envoy.write(700)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "store_cursor", full)
    assert await spool.forward(server.send) == 700
    assert spool.pending() == 0
    monkeypatch.undo()
    spool.tend()  # there is room again
    assert make(tmp_path, envoy).pending() == 0


async def test_a_gap_written_into_the_log_stands_among_its_lines(tmp_path, envoy):
    server = Server()
    envoy.write(2)
    with (tmp_path / "access.log").open("ab") as torn:
        torn.write(b'{"kind":"in","ti')
    append_gap(tmp_path / "access.log", GapReason.PROXY_KILLED, now=NOW)
    envoy.write(1)
    await make(tmp_path, envoy).forward(server.send)
    assert [record.reason for _, record in sorted(server.records.items())][2:4] == [
        "unreadable-line",
        "proxy-killed",
    ]
    gap = gap_of(server.records[4])
    assert (gap.first, gap.last, gap.count) == (4, 4, None)
    assert server.account()[2] == ["/000000", "/000001", "/000002"]


class Killed(BaseException):
    """The agent ended here."""


class Executioner:
    """Ends the agent at the n-th step, before or after it is done."""

    def __init__(self, monkeypatch, at):
        self.left = at
        for owner, name in (
            (module, "store_cursor"),
            (Path, "replace"),
            (Path, "unlink"),
            (Path, "rename"),
            (spool_cursor.os, "open"),
        ):
            monkeypatch.setattr(owner, name, self.deadly(getattr(owner, name)))

    def step(self):
        self.left -= 1
        if self.left == 0:
            raise Killed

    def deadly(self, call):
        def done(*args, **kwargs):
            self.step()
            result = call(*args, **kwargs)
            self.step()
            return result

        return done

    async def send(self, server, records, previous):
        self.step()
        delivery = await server.send(records, previous)
        self.step()
        return delivery


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("at", [*range(1, 24), 30, 40, 55])
async def test_an_agent_that_ends_between_any_two_steps_loses_and_doubles_nothing(
    tmp_path, envoy, monkeypatch, at, seed
):
    """Lines are written, the server comes and goes, the bound is hit; the agent dies once, anywhere."""
    chance = random.Random(seed * 1000 + at)
    server = Server()
    with monkeypatch.context() as patched:
        executioner = Executioner(patched, at)
        spool = make(tmp_path, envoy)
        for _ in range(15):
            envoy.write(chance.randrange(1, 30))
            server.is_away = chance.random() < 0.7
            try:
                await spool.forward(lambda records, previous: executioner.send(server, records, previous))
                spool.tend()
            except Unavailable:
                try:
                    spool.tend()
                except Killed:
                    break
            except Killed:
                break
    server.is_away = False
    spool = make(tmp_path, envoy)
    for _ in range(3):
        envoy.write(chance.randrange(1, 30))
        await spool.forward(server.send)
    await make(tmp_path, envoy).forward(server.send)
    numbers, lost, paths = server.account()
    assert numbers == set(range(1, envoy.count + 1))
    assert len(paths) == len(set(paths))
    assert lost + len(paths) == envoy.count
    assert all(record.reason != "spool-truncated" for record in server.records.values())
    assert spool.pending() == 0
