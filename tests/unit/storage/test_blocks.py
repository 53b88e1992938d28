# SPDX-License-Identifier: Apache-2.0
"""Blocks in SQL: each change with its record or not at all, bounded, and the same for whoever races."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from tests.support.identity import TestEntropy

from everyhop.anomaly.model import Block, BlockMode, Subject
from everyhop.auditlog import Event, Kind, RecordFilter
from everyhop.core.errors import Conflict, NotFound
from everyhop.storage import open_storage
from everyhop.storage.blocks import SqlBlockStore

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def block(text: str = "user:a", *, seconds: float | None = 60, **more: object) -> Block:
    until = None if seconds is None else NOW + timedelta(seconds=seconds)
    values = {"mode": BlockMode.BLOCK, "since": NOW, "until": until, "reason": "why", "by": "uid:1"} | more
    return Block(subject=Subject.parse(text), **values)


def told(block: Block) -> Event:
    return Event(kind=Kind.RESPONSE, action="block", time=NOW, detail={"block": str(block.subject)})


def recorded(storage) -> list[str]:
    page = storage.records.query(RecordFilter(kind=Kind.RESPONSE), limit=100)
    return [str(record.detail["block"]) for record in page.records]


def test_nobody_is_lifted_who_is_not_blocked(storage):
    with pytest.raises(NotFound):
        storage.blocks.lift(Subject.parse("user:a"), told)
    assert storage.blocks.sequence() == 0
    assert recorded(storage) == []


def test_there_is_a_bound(storage):
    store = SqlBlockStore(storage.database, entropy=TestEntropy(), limit=2)
    store.put(block("user:a"), told)
    store.put(block("user:b"), told)
    with pytest.raises(Conflict):
        store.put(block("user:c"), told)
    store.put(block("user:b", seconds=120), told)  # no further one
    assert len(store.load().by_subject) == 2
    assert recorded(storage) == ["user:b", "user:b", "user:a"]


def test_without_its_record_there_is_no_block(storage):
    def broken(_: Block) -> Event:
        raise RuntimeError("no record")

    with pytest.raises(RuntimeError):
        storage.blocks.put(block(), broken)
    assert storage.blocks.sequence() == 0
    assert not storage.blocks.load().by_subject
    storage.blocks.put(block(), told)
    with pytest.raises(RuntimeError):
        storage.blocks.lift(Subject.parse("user:a"), broken)
    with pytest.raises(RuntimeError):
        storage.blocks.expire(NOW + timedelta(hours=1), broken)
    assert list(storage.blocks.load().by_subject) == [Subject.parse("user:a")]
    assert storage.blocks.sequence() == 1


def test_a_block_survives_a_restart_and_says_who_why_and_until_when(tmp_path):
    with_finding = block(finding="0123", mode=BlockMode.BLOCK)
    opened = open_storage(tmp_path / "e.db", entropy=TestEntropy())
    opened.blocks.put(with_finding, told)
    opened.close()
    again = open_storage(tmp_path / "e.db", entropy=TestEntropy())
    held = again.blocks.load()
    again.close()
    assert held.sequence == 1
    assert held.by_subject == {with_finding.subject: with_finding}


def test_what_is_in_force_is_not_weakened_but_what_is_over_is_replaced(storage):
    storage.blocks.put(block(seconds=3600), told)
    held, sequence = storage.blocks.put(block(seconds=60, reason="again"), told)
    assert (held.until, sequence) == (NOW + timedelta(seconds=3600), 2)
    later = NOW + timedelta(hours=2)
    fresh = block(since=later, seconds=2 * 3600 + 5)
    assert storage.blocks.put(fresh, told)[0] == fresh


def test_what_is_over_ends_once_and_is_recorded(storage):
    storage.blocks.put(block("user:a", seconds=60), told)
    storage.blocks.put(block("user:b", seconds=120), told)
    storage.blocks.put(block("user:c", seconds=None), told)
    assert storage.blocks.expire(NOW + timedelta(seconds=59), told) == ()
    assert [str(b.subject) for b in storage.blocks.expire(NOW + timedelta(seconds=60), told)] == ["user:a"]
    assert storage.blocks.expire(NOW + timedelta(seconds=60), told) == ()
    assert recorded(storage) == ["user:a", "user:c", "user:b", "user:a"]
    assert storage.blocks.sequence() == 4


def test_racing_changes_take_turns(storage):
    def race(n: int) -> None:
        subject = f"user:{n % 3}"
        storage.blocks.put(block(subject), told)
        if n % 2:
            try:
                storage.blocks.lift(Subject.parse(subject), told)
            except NotFound:
                return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(race, range(60)))
    held = storage.blocks.load()
    assert held.sequence == len(recorded(storage))
    assert held.sequence >= 60
