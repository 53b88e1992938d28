# SPDX-License-Identifier: Apache-2.0
"""Exports: at least once, in order, from a cursor that never goes back; receivers that fail in every way."""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from tests.support.exported import BrokenLines, FakeSink, record
from tests.support.identity import TestEntropy

from everyhop.auditlog import Kind, RecordFilter
from everyhop.control.exporting import Export, Exporter, ExportPorts, Exports, State, shown, state_of
from everyhop.core.errors import NotFound, Unavailable
from everyhop.exports import Format, JsonlSettings, Only, RefusedError, Told
from everyhop.storage import open_storage

LONGEST = timedelta(minutes=5)


class Clock:
    def now(self):
        return datetime.now(UTC)


class World:
    """One database, a receiver, and time that passes when somebody waits."""

    def __init__(self, path, pool):
        self.storage = open_storage(path / "everyhop.db", entropy=TestEntropy())
        self.pool = pool
        self.waited = []
        self.sink = FakeSink()

    async def sleep(self, seconds):
        self.waited.append(seconds)
        await asyncio.sleep(0.001)

    def ports(self, **changes):
        storage = self.storage
        values = {
            "lines": storage.log_lines,
            "records": storage.records,
            "consumers": storage.consumers,
            "leases": storage.leases,
            "clock": Clock(),
            "entropy": TestEntropy(),
            "pool": self.pool,
            "sleep": self.sleep,
        }
        return ExportPorts(**(values | changes))

    def export(self, **changes):
        values = {
            "name": "siem",
            "format": Format.RECORD,
            "path": Path("/nowhere"),
            "timeout": timedelta(seconds=5),
            "longest_pause": LONGEST,
            "batch": 10,
        }
        return Export(settings=JsonlSettings(**(values | changes)), open=lambda: self.sink)

    def exporter(self, *, ports=None, **changes):
        return Exporter(self.export(**changes), ports or self.ports())

    def append(self, first, last, **fields):
        self.storage.records.append([record(n, **fields) for n in range(first, last + 1)])

    @property
    def cursor(self):
        return self.storage.consumers.position("export:siem")

    @property
    def state(self):
        return state_of(self.storage.consumers.get("export:siem"))

    def noted(self):
        found = self.storage.records.query(RecordFilter(kind=Kind.LOG)).records
        return [r for r in found if r.operation == "export"]

    async def until(self, holds):
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110  # the database has no event to wait for
                await asyncio.sleep(0.005)

    @contextlib.asynccontextmanager
    async def running(self, one):
        task = asyncio.create_task(one.run())
        try:
            yield task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def world(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        made = World(tmp_path, pool)
        yield made
        made.storage.close()


async def test_a_receiver_that_is_down_loses_nothing_and_doubles_nothing(world):
    world.append(1, 25)
    world.sink.errors = [Unavailable("down")] * 12
    async with world.running(world.exporter()):
        await world.until(lambda: world.cursor == 25)
    assert world.sink.received == list(range(1, 26))
    assert world.state.error is None


async def test_pauses_grow_with_jitter_up_to_the_longest(world):
    world.append(1, 1)
    world.sink.errors = [Unavailable("down")] * 14
    async with world.running(world.exporter()):
        await world.until(lambda: world.cursor == 1)
    pauses = world.waited[:14]
    for n, pause in enumerate(pauses):
        most = min(LONGEST.total_seconds(), 0.5 * 2**n)
        assert most / 2 <= pause <= most


async def test_the_cursor_waits_for_the_receivers_word(world):
    world.append(1, 10)
    world.sink.lag = 3
    async with world.running(world.exporter()):
        await world.until(lambda: world.cursor == 7)
        assert world.sink.received == list(range(1, 11))
        world.sink.lag = 0
        await world.until(lambda: world.cursor == 10)


async def test_what_was_not_confirmed_is_sent_again_after_a_loss(world):
    world.append(1, 10)
    world.sink.lag = 3
    async with world.running(world.exporter()):
        await world.until(lambda: world.cursor == 7)
        world.sink.errors = [Unavailable("broke")]
        world.append(11, 12)
        await world.until(lambda: 12 in world.sink.received)
    assert world.sink.received == [*range(1, 11), 8, 9, 10, 11, 12]


async def test_a_stopped_server_goes_on_where_the_cursor_stood(world):
    world.append(1, 10)
    world.sink.lag = 4
    async with world.running(world.exporter()):
        await world.until(lambda: world.cursor == 6)
    world.sink = FakeSink()
    async with world.running(world.exporter()):
        await world.until(lambda: world.cursor == 10)
    assert world.sink.received == [7, 8, 9, 10]


async def test_one_that_hangs_is_given_up_and_tried_again(world):
    world.append(1, 3)
    world.sink.is_hanging = True
    async with world.running(world.exporter(timeout=timedelta(milliseconds=50))):
        await world.until(lambda: world.state.error is not None)
        assert "in time" in world.state.error
        assert world.state.since is not None
        world.sink.is_hanging = False
        await world.until(lambda: world.cursor == 3)
        await world.until(lambda: world.state.error is None)


async def test_one_that_hangs_holds_up_nobody(world):
    world.append(1, 20)
    slow, quick = FakeSink(), FakeSink()
    slow.is_hanging = True
    exports = Exports(
        [
            Export(settings=world.export(name="slow").settings, open=lambda: slow),
            Export(settings=world.export(name="quick").settings, open=lambda: quick),
        ],
        world.ports(),
        holder="a",
    )
    async with world.running(exports):
        await world.until(lambda: world.storage.consumers.position("export:quick") == 20)
        assert quick.received == list(range(1, 21))
        status = await exports.status()
    assert status["quick"]["behind"] == 0
    assert status["slow"]["behind"] == 20


async def test_of_two_servers_one_exports(world):
    world.append(1, 20)
    sinks = [FakeSink(), FakeSink()]
    servers = [
        Exports(
            [Export(settings=world.export().settings, open=lambda s=sink: s)], world.ports(), holder=str(n)
        )
        for n, sink in enumerate(sinks)
    ]
    async with world.running(servers[0]), world.running(servers[1]):
        await world.until(lambda: world.cursor == 20)
        world.append(21, 30)
        await world.until(lambda: world.cursor == 30)
    received = [sink.received for sink in sinks]
    assert sorted(received, key=len) == [[], list(range(1, 31))]


async def test_410_switches_off_loudly_until_the_owner_switches_on(world):
    world.append(1, 3)
    world.sink.errors = [RefusedError("the receiver answers with status 410", is_final=True)]
    exports = Exports([world.export(longest_pause=timedelta(seconds=1))], world.ports(), holder="a")
    async with world.running(exports):
        await world.until(lambda: world.state.disabled)
        status = (await exports.status())["siem"]
        assert status["disabled"]
        assert status["position"] == 0
        assert "410" in status["last_error"]
        (noted,) = world.noted()
        assert (noted.reason, noted.detail["name"]) == ("disabled", "siem")
        calls = len(world.sink.calls)
        world.append(4, 5)
        await world.until(lambda: len(world.waited) > 5)
        assert len(world.sink.calls) == calls
        with pytest.raises(NotFound):
            await exports.release("other", "uid 0")
        await exports.release("siem", "uid 0")
        await world.until(lambda: world.cursor >= 5)
    assert world.sink.received[:3] == [1, 2, 3]


async def test_what_is_switched_off_stays_off_at_the_next_start(world):
    world.append(1, 3)
    world.storage.consumers.say(
        "export:siem", msgspec.json.encode(State(error="410", disabled=True)).decode(), at=datetime.now(UTC)
    )
    async with world.running(world.exporter()):
        await world.until(lambda: len(world.waited) > 3)
    assert world.sink.calls == []


async def test_what_is_too_large_together_is_sent_in_parts(world):
    world.append(1, 8)
    too_large = RefusedError("the receiver answers with status 413", too_large=True)
    world.sink.errors = [too_large, too_large, None]
    async with world.running(world.exporter(batch=8)):
        await world.until(lambda: world.cursor == 8)
    assert [len(call) for call in world.sink.calls] == [8, 4, 2, 4, 2]
    assert world.sink.received == list(range(1, 9))


async def test_one_that_is_too_large_alone_stops_the_rest_and_says_so(world):
    world.append(1, 2)
    world.sink.errors = [RefusedError("status 413", too_large=True)] * 6
    async with world.running(world.exporter(batch=1)):
        await world.until(lambda: world.state.error == "status 413")
        await world.until(lambda: world.cursor == 2)


async def test_the_receivers_wish_to_wait_is_granted(world):
    world.append(1, 1)
    world.sink.errors = [RefusedError("status 429", after=timedelta(seconds=77))]
    async with world.running(world.exporter()):
        await world.until(lambda: world.cursor == 1)
    assert world.waited[0] == 77


async def test_a_receiver_that_refuses_for_good_is_asked_rarely(world):
    world.append(1, 1)
    world.sink.errors = [RefusedError("status 401", is_patient=True)]
    async with world.running(world.exporter()):
        await world.until(lambda: world.cursor == 1)
    assert LONGEST.total_seconds() / 2 <= world.waited[0] <= LONGEST.total_seconds()


async def test_a_database_that_is_down_is_waited_for(world):
    world.append(1, 4)
    ports = world.ports(lines=BrokenLines(world.storage.log_lines, 3))
    async with world.running(world.exporter(ports=ports)):
        await world.until(lambda: world.cursor == 4)
    assert world.sink.received == [1, 2, 3, 4]


async def test_only_what_is_wanted_goes_and_the_cursor_passes_the_rest(world):
    world.append(1, 12)
    async with world.running(world.exporter(only=Only(denied=True), batch=4)):
        await world.until(lambda: world.cursor == 12)
    assert world.sink.received == [5, 10]


async def test_the_cursor_does_not_pass_the_unconfirmed_with_the_unwanted(world):
    world.append(1, 12)
    world.sink.lag = 1
    async with world.running(world.exporter(only=Only(denied=True), batch=4)):
        await world.until(lambda: world.cursor == 5)
        await world.until(lambda: len(world.waited) > 3)
        assert world.cursor == 5
        world.sink.lag = 0
        await world.until(lambda: world.cursor == 12)


async def test_kinds_are_kept_apart(world):
    world.append(1, 3)
    world.append(4, 5, kind=Kind.FINDING, decision=None)
    async with world.running(world.exporter(only=Only(kinds=frozenset({Kind.FINDING})))):
        await world.until(lambda: world.cursor == 5)
    assert world.sink.received == [4, 5]


async def test_records_that_the_retention_took_are_told_once(world):
    world.append(1, 258)
    world.storage.records.prune(keep_rows=2, now=datetime.now(UTC))
    world.sink.errors = [Unavailable("down")] * 3
    async with world.running(world.exporter(only=Only(kinds=frozenset({Kind.DECISION})))):
        await world.until(lambda: world.cursor >= 259)
    assert world.sink.received == [257, 258]
    (noted,) = world.noted()
    assert noted.reason == "pruned"
    assert (noted.detail["from"], noted.detail["to"], noted.detail["count"]) == (
        1,
        259,
        256,
    )  # what the retention says of itself as well


async def test_what_a_receiver_tells_becomes_a_record(world):
    world.append(1, 1)
    world.sink.tells = [Told(reason="file-gone", detail={"path": "/x"})]
    async with world.running(world.exporter(only=Only(kinds=frozenset({Kind.DECISION})))):
        await world.until(world.noted)
    (noted,) = world.noted()
    assert (noted.kind, noted.operation, noted.reason) == (Kind.LOG, "export", "file-gone")
    assert noted.detail["path"] == "/x"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"error": 1}'])
def test_a_state_that_cannot_be_read_is_none(world, text):
    world.storage.consumers.say("export:siem", text, at=datetime.now(UTC))
    assert world.state == State()


def test_the_status_of_one_that_never_ran():
    assert shown(None, 7) == {
        "position": 0,
        "behind": 7,
        "last_error": None,
        "since": None,
        "disabled": False,
    }
