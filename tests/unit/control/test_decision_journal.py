# SPDX-License-Identifier: Apache-2.0
"""Records before answers: one commit for many, nothing lost in silence, nothing beyond a bound."""

import threading
from datetime import UTC, datetime
from functools import partial

import pytest
from tests.support.identity import TestEntropy

from everyhop.auditlog import Kind, Point, Record
from everyhop.auditlog.append import AppendResult
from everyhop.auditlog.gaps import Gap, gap_of
from everyhop.control.decision_journal import MAX_WAITING, DecisionJournal
from everyhop.core.errors import Unavailable


def draft(name):
    def make(number, producer):
        moment = datetime(2026, 6, 1, tzinfo=UTC)
        return Record(
            id=name, seq=number, producer=producer, time=moment, kind=Kind.DECISION, point=Point.CONTROL
        )

    return make


class Store:
    """Keeps what is appended; ``gate`` holds a commit up, ``error`` fails it."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.error = None
        self.conflicts = ()

    def append(self, records):
        self.entered.set()
        assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        self.batches.append(list(records))
        return AppendResult(stored=len(records), duplicates=0, conflicts=self.conflicts)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def journal(store):
    return DecisionJournal(store, entropy=TestEntropy(), prefix="authzen")


def test_a_failed_commit_fails_everybody_whose_records_it_held(store, journal):
    store.error = OSError("disk full")
    with pytest.raises(Unavailable) as caught:
        journal.write([draft("a")])
    assert isinstance(caught.value.__cause__, OSError)
    store.error = None
    journal.write([draft("b")])
    gap, record = store.batches[0]  # under another producer: whether a was stored after all is not known
    assert gap_of(gap) == Gap(1, 1, 1, "commit-failed")
    assert (record.seq, record.producer) == (2, gap.producer)
    journal.write([draft("c")])
    assert len(store.batches[1]) == 1


def test_records_that_met_others_in_their_place_are_a_failure(store, journal):
    store.conflicts = ("a",)
    with pytest.raises(Unavailable):
        journal.write([draft("a")])


def test_a_draft_that_cannot_be_made_is_a_failure(journal):
    def broken(number, producer):
        raise ValueError

    with pytest.raises(Unavailable):
        journal.write([broken])
    journal.write([draft("a")])


def test_nothing_to_write_costs_nothing(store, journal):
    journal.write([])
    assert store.batches == []


def test_numbers_have_no_gaps(store, journal):
    journal.write([draft("a"), draft("b")])
    journal.write([draft("c")])
    records = [record for batch in store.batches for record in batch]
    assert [record.seq for record in records] == [1, 2, 3]
    assert len({record.producer for record in records}) == 1
    assert records[0].producer.startswith("authzen-")


def _waiting(journal, count):
    deadline = threading.Event()
    for _ in range(1000):
        if len(journal._turns._waiting) == count:
            return
        deadline.wait(0.01)
    raise AssertionError(f"not {count} waiting")


def test_those_who_come_during_a_commit_share_the_next_one(store, journal):
    store.gate.clear()
    threads = [threading.Thread(target=partial(journal.write, [draft("first")]))]
    threads[0].start()
    assert store.entered.wait(10)
    for number in range(5):
        threads.append(threading.Thread(target=partial(journal.write, [draft(f"n{number}")])))
        threads[-1].start()
    _waiting(journal, 5)
    store.gate.set()
    for thread in threads:
        thread.join(10)
    assert [len(batch) for batch in store.batches] == [1, 5]
    assert [record.seq for batch in store.batches for record in batch] == [1, 2, 3, 4, 5, 6]


def test_no_more_than_a_bound_waits(store, journal):
    store.gate.clear()
    first = threading.Thread(target=partial(journal.write, [draft("first")]))
    first.start()
    assert store.entered.wait(10)
    many = threading.Thread(target=partial(journal.write, [draft(f"m{n}") for n in range(MAX_WAITING)]))
    many.start()
    _waiting(journal, 1)
    with pytest.raises(Unavailable, match="too many"):
        journal.write([draft("one too many")])
    store.gate.set()
    first.join(10)
    many.join(10)
    assert sum(len(batch) for batch in store.batches) == MAX_WAITING + 1
