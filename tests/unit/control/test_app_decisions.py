# SPDX-License-Identifier: Apache-2.0
"""What workloads say of their decisions: hostile batches, floods, a full disk, restarts."""

import json
from datetime import timedelta
from types import SimpleNamespace

import pytest
from tests.support.workloads import FakeClock, FixedEntropy

from everyhop.auditlog import Kind, Point
from everyhop.control import app_decisions
from everyhop.control.app_decisions import BURST, MAX_BATCH, ApplicationDecisions, Claim, numbered, record_of
from everyhop.core.errors import AccessDenied, InputError
from everyhop.dataplane.spool import Delivery

PEER = SimpleNamespace(pid=4711)
ID = "5f0c9c1e-1111-4222-8333-444444444444"


class Workloads:
    """Attests: whoever asks is ``orders``."""

    name = "orders"

    async def service_of(self, peer, spiffe_id=""):
        assert peer is PEER
        if spiffe_id and not spiffe_id.endswith(f"/{self.name}"):
            raise AccessDenied("not yours")
        return SimpleNamespace(name=self.name)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def workloads():
    return Workloads()


@pytest.fixture
def make(tmp_path, clock, workloads):
    entropy = FixedEntropy()
    return lambda: ApplicationDecisions(workloads, tmp_path / "decisions", clock=clock, entropy=entropy)


def claim(clock, **changed):
    micros = int(clock.now().timestamp() * 1_000_000)
    return Claim(**{"id": ID, "time": micros, "allowed": False, "code": "ACCESS_DENIED", **changed})


async def forwarded(decisions):
    found = []

    async def send(records, previous):
        found.extend(records)
        return Delivery(held=records[-1].seq)

    for spool in decisions.spools:
        await spool.forward(send)
    return found


# -- refused


async def test_a_batch_that_is_too_long_keeps_nothing(make, clock):
    decisions = make()
    with pytest.raises(InputError):
        await decisions.take(PEER, [claim(clock)] * (MAX_BATCH + 1))
    assert await forwarded(decisions) == []


@pytest.mark.parametrize("name", ["", "x" * 65, "a/b", "a.b", "a b", "a\n", "é", f"{ID}.orders-1"])
async def test_an_id_that_is_none_spoils_its_batch(make, clock, name):
    decisions = make()
    with pytest.raises(InputError):
        await decisions.take(PEER, [claim(clock), claim(clock, id=name)])
    assert await forwarded(decisions) == []


async def test_nobody_speaks_for_another_service(make, clock):
    decisions = make()
    with pytest.raises(AccessDenied):
        await decisions.take(PEER, [claim(clock)], spiffe_id="spiffe://shop.example/service/payments")
    assert await forwarded(decisions) == []


# -- what is said is bounded, and stays on its line


async def test_the_target_is_who_was_attested_and_the_source_is_marked(make, clock):
    decisions = make()
    assert await decisions.take(PEER, [claim(clock, caller="spiffe://shop.example/service/x")]) == (1, 0)
    (record,) = await forwarded(decisions)
    assert (record.target, record.point, record.decision) == ("orders", Point.SDK, "deny")
    assert record.id.startswith(f"{ID}.")
    assert record.detail == {"decision": ID, "code": "ACCESS_DENIED", "pid": 4711}


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\x00b", "\x1b[31mred", "a\u2028b", "\u202eabc"])
async def test_control_characters_are_replaced(make, clock, text):
    decisions = make()
    fields = dict.fromkeys(("caller", "operation", "method", "path", "rule", "user", "detail"), text)
    await decisions.take(PEER, [claim(clock, **fields), claim(clock)])
    records = await forwarded(decisions)
    assert len(records) == 2
    for name in ("caller", "operation", "method", "path", "rule"):
        assert getattr(records[0], name).isprintable()
    assert records[0].detail["user"].isprintable()


async def test_what_is_too_long_is_cut(make, clock):
    decisions = make()
    names = ("caller", "operation", "method", "path", "rule", "reason", "code", "user", "snapshot", "detail")
    await decisions.take(PEER, [claim(clock, **dict.fromkeys(names, "x" * 100_000))])
    (record,) = await forwarded(decisions)
    assert len(json.dumps(record.detail)) < 2000
    assert (len(record.path), len(record.method), record.reason, record.snapshot) == (1024, 32, None, None)


@pytest.mark.parametrize("seconds", [-3601, 6, 10**12, -(10**12)])
def test_a_time_that_cannot_be_is_now(clock, seconds):
    now = clock.now()
    claimed = claim(clock, time=int((now.timestamp() + seconds) * 1_000_000))
    assert record_of(claimed, "orders", 1, now).time == now


def test_a_time_that_can_be_is_kept(clock):
    now = clock.now()
    before = now - timedelta(seconds=30)
    assert record_of(claim(clock, time=int(before.timestamp() * 1_000_000)), "o", 1, now).time == before


# -- floods


async def test_a_flood_is_cut_off_counted_and_told(make, clock):
    decisions = make()
    taken = 0
    for _ in range(BURST // MAX_BATCH + 10):
        taken += (await decisions.take(PEER, [claim(clock)] * MAX_BATCH))[0]
    assert taken == BURST
    clock.advance(seconds=0.1)
    assert await decisions.take(PEER, [claim(clock)] * MAX_BATCH) == (100, 100)
    records = await forwarded(decisions)
    lost = [record.detail["count"] for record in records if record.reason == "rate"]
    assert sum(lost) == MAX_BATCH * 10 + 100
    assert len(records) == BURST + 100 + len(lost)


async def test_what_the_workload_itself_had_to_drop_is_recorded(make, clock):
    decisions = make()
    await decisions.take(PEER, [], dropped=2**64 - 1)
    (record,) = await forwarded(decisions)
    assert (record.reason, record.target, record.decision) == ("rate", "orders", None)


async def test_a_spool_that_is_full_gives_up_the_oldest_and_tells_exactly_how_many(
    tmp_path, clock, workloads
):
    decisions = ApplicationDecisions(
        workloads, tmp_path / "decisions", clock=clock, entropy=FixedEntropy(), limit=65536
    )
    told = 0
    for _ in range(60):
        clock.advance(seconds=1)
        taken, refused = await decisions.take(PEER, [claim(clock)] * 20)
        assert refused == 0
        told += taken
        for spool in decisions.spools:
            spool.tend()
    assert sum(f.stat().st_size for f in (tmp_path / "decisions").rglob("access.log*")) <= 65536 * 9 / 8
    records = await forwarded(decisions)
    gap, *kept = records
    assert (gap.reason, gap.detail["from"], gap.detail["to"]) == ("spool-overflow", 1, gap.seq)
    assert gap.detail["count"] + len(kept) == told
    assert [record.seq for record in kept] == list(range(gap.seq + 1, told + 1))


async def test_a_full_disk_lets_the_workload_go_on_and_is_told_later(make, clock, monkeypatch):
    decisions = make()
    real = app_decisions.os.write
    monkeypatch.setattr(app_decisions.os, "write", lambda fd, data: real(fd, data[: len(data) // 2]))
    assert await decisions.take(PEER, [claim(clock)] * 3) == (0, 3)
    monkeypatch.undo()
    assert await decisions.take(PEER, [claim(clock)]) == (1, 0)
    said, loss = await forwarded(decisions)
    assert (said.kind, loss.reason, loss.detail) == (
        Kind.DECISION,
        "rate",
        {"from": loss.seq, "to": loss.seq, "count": 3},
    )


# -- places


async def test_every_record_has_a_place_of_its_own(make, clock, workloads):
    decisions = make()
    await decisions.take(PEER, [claim(clock), claim(clock)])
    workloads.name = "payments"
    await decisions.take(PEER, [claim(clock)])
    records = await forwarded(decisions)
    assert len({record.id for record in records}) == 3
    assert len({(record.producer, record.seq) for record in records}) == 3
    assert {record.producer.partition("@")[0] for record in records} == {"orders", "payments"}


async def test_an_agent_after_a_restart_goes_on_with_the_numbers(make, clock):
    first = make()
    await first.take(PEER, [claim(clock), claim(clock)])
    second = make()
    await second.take(PEER, [claim(clock)])
    records = await forwarded(second)
    assert [record.seq for record in records] == [1, 2, 3]
    assert len({record.producer for record in records}) == 1
    assert await forwarded(make()) == []


def test_a_line_that_is_no_record_is_one():
    record = numbered(b'{"id": 1', instance="orders@00000001", seq=7)
    assert (record.id, record.reason, record.seq) == ("unreadable.00000001-7", "unreadable-line", 7)


@pytest.mark.parametrize("text", ["", "x" * 49, f"{'a' * 32}_{'b' * 16}", f"{'0' * 32}-{'b' * 16}", "a" * 32])
def test_a_trace_that_is_none_is_left_out(clock, text):
    assert record_of(claim(clock, trace=text), "orders", 1, clock.now()).trace is None


def test_a_trace_is_kept_and_a_secret_is_not(clock):
    told = claim(clock, trace=f"{'a' * 32}-{'b' * 16}", detail="Bearer abcdefgh12345678")
    found = record_of(told, "orders", 1, clock.now())
    assert found.trace == f"{'a' * 32}-{'b' * 16}"
    assert found.detail["detail"] == "Bearer [redacted:bearer:16]"
