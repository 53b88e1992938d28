# SPDX-License-Identifier: Apache-2.0
"""Several callers in one transaction: who is answered, with what, and whose error is whose."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.support.ledger import record

from everyhop.core.errors import InputError, Unavailable
from everyhop.core.turns import Batch, Turns
from everyhop.storage.records import MAX_GROUP

BAD = record(2, detail={f"d{n}": "\u0001" * 2048 for n in range(6)})


@pytest.fixture
def group(storage):
    return Turns(storage.records._insert, at_most=MAX_GROUP)


class Together:
    """Pretends to lead until everybody waits, so that they come in one group."""

    def __init__(self, group, monkeypatch):
        self._group = group
        self.sizes = []
        write = group._write
        monkeypatch.setattr(group, "_write", lambda found: self.sizes.append(len(found)) or write(found))

    def append(self, batches):
        """Append all; return what each caller got."""
        with ThreadPoolExecutor(len(batches)) as pool:
            self._group._is_led = True
            futures = [pool.submit(self._call, *batch) for batch in batches]
            while len(self._group._waiting) < len(batches):
                threading.Event().wait(0.001)
            self._group._waiting[0].called.set()
            return [future.result() for future in futures]

    def _call(self, records):
        try:
            return self._group.submit(records)
        except Exception as error:
            return error


@pytest.fixture
def together(group, monkeypatch):
    return Together(group, monkeypatch)


def test_an_error_is_of_the_batch_that_caused_it(storage, together):
    results = together.append([([record(1)],), ([BAD],), ([record(3)],)])
    assert sorted(type(r).__name__ for r in results) == ["AppendResult", "AppendResult", "InputError"]
    assert isinstance(results[1], InputError)
    assert storage.records.count() == storage.log_tree.head()[0] == 2


def test_everybody_hears_of_a_database_that_does_not_answer(together, group, monkeypatch):
    def fail(_found):
        raise Unavailable("gone", hint="wait", retry=False)

    monkeypatch.setattr(group, "_write", fail)
    results = together.append([([record(n)],) for n in range(1, 5)])
    assert [(str(e), e.hint, e.retry) for e in results] == [("gone", "wait", False)] * 4
    assert len(set(map(id, results))) == 4


def test_who_waits_too_long_is_told_and_his_batch_is_not_written(storage, group, monkeypatch):
    monkeypatch.setattr(group, "_wait_seconds", 0.01)
    group._is_led = True
    with pytest.raises(Unavailable, match="others wait"):
        group.submit([record(1)])
    group._is_led = False
    group.submit([record(2)])
    assert storage.records.count() == 1


def test_who_is_called_at_the_last_moment_leads(storage, group):
    batch = Batch([record(1)])
    group._waiting.append(batch)
    batch.called.set()
    assert not group._withdraw(batch)
    group._lead(batch)
    assert (batch.result[0].stored, group._is_led) == (1, False)


def test_who_is_being_written_gives_up_without_disturbing(group):
    assert group._withdraw(Batch([record(1)]))


def test_those_who_wait_share_a_transaction_and_each_gets_his_own_answer(storage, together):
    storage.records.append([record(1), record(2)])
    batches = [[record(1)], [record(1, path="/altered"), record(5)], [record(6), record(6)], [record(7)]]
    results = together.append([(batch,) for batch in batches])
    assert together.sizes == [4]
    found = [(r.stored, r.duplicates, r.conflicts) for r in results]
    assert found == [(0, 1, ()), (1, 0, ("agent-1",)), (1, 1, ()), (1, 0, ())]


def test_the_same_batch_from_two_callers_at_once(storage, together):
    batch = [record(n) for n in range(1, 11)]
    results = together.append([(batch,), (batch,)])
    assert sorted((r.stored, r.duplicates) for r in results) == [(0, 10), (10, 0)]
    assert storage.log_tree.head()[0] == 10


def test_a_group_has_bounds(storage, together):
    batches = [([record(n, producer=f"p{k}") for n in range(1, 201)],) for k in range(5)]
    results = together.append(batches)
    assert together.sizes == [2, 2, 1]
    assert [r.stored for r in results] == [200] * 5
    large = [record(n, producer="large") for n in range(1, 1000)]
    assert storage.records.append(large).stored == 999


def test_a_record_that_is_too_large_reaches_nobody_else(storage):
    with pytest.raises(InputError):
        storage.records.append([BAD])
    assert storage.records.append([]).stored == 0


def test_many_threads(storage):
    def work(k):
        return [storage.records.append([record(n, producer=f"p{k}")]).stored for n in range(1, 21)]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, range(16))) == [[1] * 20] * 16
    assert storage.log_tree.head()[0] == 320
