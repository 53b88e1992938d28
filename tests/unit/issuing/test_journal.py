# SPDX-License-Identifier: Apache-2.0
"""Tokens are on record before anybody is handed one; what is merely noted may wait."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.support.identity import NOW

from everyhop.auditlog import RecordFilter
from everyhop.core.errors import Unavailable
from everyhop.issuing import TokenEvent
from everyhop.storage import token_journal


def event(n=0, **more):
    return TokenEvent(action="mint", time=NOW, caller=f"c{n}", target="payments", detail={"n": n}, **more)


def stored(storage):
    return [r.caller for r in reversed(storage.records.query(RecordFilter()).records)]


@pytest.fixture
def broken(storage, monkeypatch):
    """A database that takes nothing, until the context ends."""

    def fails(**_):
        raise Unavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(storage.database, "writing", fails)
        yield patch


# -- refused


def test_what_cannot_be_recorded_is_not_issued(storage, broken):
    with pytest.raises(Unavailable):
        storage.token_journal.issued(event(1))
    with pytest.raises(Unavailable), storage.token_journal.together():
        storage.token_journal.issued(event(2))
    broken.undo()
    assert storage.token_journal.flush() == 0
    assert stored(storage) == []


def test_nobody_waits_for_ever_for_those_before_him(storage, monkeypatch):
    monkeypatch.setattr(storage.token_journal._turns, "_wait_seconds", 0.05)
    monkeypatch.setattr(storage.token_journal._turns, "_is_led", True)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="others wait"):
        storage.token_journal.issued(event(1))
    assert time.monotonic() - began < 2
    monkeypatch.undo()
    storage.token_journal.issued(event(2))
    assert stored(storage) == ["c2"]  # who was told that it failed is not recorded later


def test_no_more_than_a_bound_waits(storage, monkeypatch):
    monkeypatch.setattr(storage.token_journal._turns, "_max_waiting", 3)
    with pytest.raises(Unavailable, match="too many"), storage.token_journal.together():
        for n in range(4):
            storage.token_journal.issued(event(n))
    assert stored(storage) == []


def test_a_block_that_fails_records_nothing_of_it_and_binds_nobody_else(storage):
    with pytest.raises(RuntimeError), storage.token_journal.together():
        storage.token_journal.issued(event(1))
        raise RuntimeError
    storage.token_journal.issued(event(2))
    assert stored(storage) == ["c2"]


def test_what_was_noted_is_kept_when_the_database_does_not_answer(storage, broken):
    storage.token_journal.noted(event(1))
    with pytest.raises(Unavailable):
        storage.token_journal.refused(event(2, refused="invalid_scope"))
    with pytest.raises(Unavailable):
        storage.token_journal.flush()
    broken.undo()
    assert storage.token_journal.flush() == 1
    assert stored(storage) == ["c1"]


# -- recorded


def test_an_issue_is_on_record_when_the_call_returns(storage):
    storage.token_journal.issued(event(1))
    assert stored(storage) == ["c1"]


def test_what_is_issued_together_is_one_commit(storage, monkeypatch):
    sizes = []
    write = storage.token_journal._turns._write
    monkeypatch.setattr(
        storage.token_journal._turns,
        "_write",
        lambda batches: sizes.append(sum(map(len, batches))) or write(batches),
    )
    with storage.token_journal.together():
        for n in range(30):
            storage.token_journal.issued(event(n))
        assert stored(storage) == []
    assert sizes == [30]
    assert len(stored(storage)) == 30


def test_those_who_issue_at_the_same_time_share_a_commit(storage, monkeypatch):
    sizes, entered, go = [], threading.Event(), threading.Event()
    journal = storage.token_journal
    write = journal._turns._write

    def slow(batches):
        sizes.append(sum(map(len, batches)))
        entered.set()
        assert go.wait(10)
        return write(batches)

    monkeypatch.setattr(journal._turns, "_write", slow)
    monkeypatch.setattr(journal._turns, "_wait_seconds", 20.0)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(journal.issued, event(0))
        assert entered.wait(10)
        others = [pool.submit(journal.issued, event(n)) for n in range(1, 8)]
        while len(journal._turns._waiting) < 7:
            threading.Event().wait(0.001)
        go.set()
        for future in (first, *others):
            future.result(10)
    assert sizes == [1, 7]
    assert sorted(stored(storage)) == [f"c{n}" for n in range(8)]


def test_a_refusal_is_there_at_once_with_what_was_noted_before_it(storage):
    storage.token_journal.noted(event(1, refused="temporarily_unavailable"))
    assert stored(storage) == []
    storage.token_journal.refused(event(2, refused="invalid_scope", reason="more than the policy grants"))
    first, second = reversed(storage.records.query(RecordFilter()).records)
    assert (first.decision, first.kind.value) == ("deny", "token")
    assert (second.decision, second.reason) == ("deny", "more than the policy grants")
    assert second.detail == {"n": 2, "error": "invalid_scope"}


def test_what_is_noted_has_a_bound(storage, monkeypatch):
    monkeypatch.setattr(token_journal, "MAX_NOTED", 5)
    for n in range(7):
        storage.token_journal.noted(event(n))
    assert len(stored(storage)) == 5
    assert storage.token_journal.flush() == 2
