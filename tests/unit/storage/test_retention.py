# SPDX-License-Identifier: Apache-2.0
"""Pruning: by whole tiles, with the tree kept, with every number remembered, and on record."""

import itertools
from datetime import timedelta

import pytest
from hypothesis import given, strategies as st
from tests.support.identity import NOW
from tests.support.ledger import naive_root, record

from everyhop.auditlog import Kind, Order, RecordFilter, StoredCheckpoint, encode_record
from everyhop.core.errors import NotFound
from everyhop.storage.retention import join_ranges

LATER = NOW + timedelta(days=1)


def kept(storage):
    page = storage.records.query(RecordFilter(), order=Order.OLDEST, limit=1000)
    return [r.seq for r in page.records if r.producer == "agent"]


def second(seq):
    return NOW + timedelta(seconds=seq)


def test_a_tile_goes_only_as_a_whole(storage):
    storage.records.append([record(n) for n in range(1, 301)])
    assert storage.records.prune(now=LATER) == 0
    assert storage.records.prune(now=LATER, before=second(256)) == 0
    assert storage.records.prune(now=LATER, keep_rows=45) == 0
    assert storage.records.count() == 300
    assert storage.records.prune(now=LATER, before=second(257)) == 256
    assert kept(storage) == list(range(257, 301))
    assert storage.records.prune(now=LATER, before=LATER) == 0


def test_the_open_tile_never_goes(storage):
    storage.records.append([record(n) for n in range(1, 256)])
    assert storage.records.prune(now=LATER, before=LATER, keep_rows=0) == 0


def test_too_many(storage):
    storage.records.append([record(n) for n in range(1, 801)])
    assert storage.records.prune(now=LATER, keep_rows=200) == 512
    assert kept(storage) == list(range(513, 801))


def test_pruning_is_bounded_and_starts_with_the_oldest(storage):
    storage.records.append([record(n) for n in range(1, 801)])
    assert storage.records.prune(now=LATER, keep_rows=0, limit=255) == 0
    assert storage.records.prune(now=LATER, keep_rows=0, limit=300) == 256
    assert storage.log_tree.first_kept() == 256
    assert storage.records.prune(now=LATER, keep_rows=0) == 512


def test_a_record_of_the_future_keeps_its_tile_until_a_checkpoint_vouches_for_its_age(storage):
    storage.records.append([record(n) for n in range(1, 256)])
    storage.records.append([record(256, time=NOW + timedelta(days=9999))])
    storage.records.append([record(n) for n in range(257, 600)])
    assert storage.records.prune(now=LATER, before=LATER) == 0
    for size, at in ((255, NOW), (256, LATER)):
        storage.log_tree.save_checkpoint(
            StoredCheckpoint(origin="a", size=size, root=b"r" * 32, signed_at=at, note="")
        )
        assert storage.records.prune(now=LATER, before=LATER) == 0
    assert storage.records.prune(now=LATER, before=LATER + timedelta(seconds=1)) == 512


def test_a_record_of_the_past_does_not_take_its_tile_along(storage):
    storage.records.append(
        [record(n, time=LATER if n == 9 else NOW - timedelta(days=99)) for n in range(1, 257)]
    )
    assert storage.records.prune(now=LATER, before=NOW) == 0


def test_what_went_is_on_record(storage):
    storage.records.append([record(n) for n in range(1, 601)])
    storage.records.prune(now=LATER, before=second(257))
    (told,) = storage.records.query(RecordFilter(kind=Kind.LOG)).records
    assert (told.operation, told.time) == ("prune", LATER)
    assert told.detail == {"from": 1, "to": 256, "before": second(257).isoformat()}
    storage.records.prune(now=LATER, keep_rows=0)
    assert storage.records.query(RecordFilter(kind=Kind.LOG)).records[0].detail == {
        "from": 257,
        "to": 512,
        "before": None,
    }


def test_the_tree_stays(storage):
    batch = [record(n) for n in range(1, 601)]
    storage.records.append(batch)
    tiles = [storage.log_tree.tile(0, 0), storage.log_tree.tile(1, 0, 2)]
    storage.records.prune(now=LATER, keep_rows=0)
    lines = [encode_record(r) for r in batch]
    lines.append(encode_record(storage.records.query(RecordFilter()).records[0]))
    assert storage.log_tree.head()[1].root() == naive_root(lines)
    assert [storage.log_tree.tile(0, 0), storage.log_tree.tile(1, 0, 2)] == tiles
    (page,) = storage.log_tree.lines(500, 514)
    assert page == [*[None] * 12, *lines[512:514]]
    assert storage.log_tree.first_kept() == 512
    with pytest.raises(NotFound):
        storage.log_tree.index_of("agent-1")
    storage.records.append([record(n) for n in range(601, 1200)])
    assert storage.log_tree.head()[0] == 1200


def test_what_went_is_not_taken_a_second_time(storage):
    batch = [record(n, producer=p) for n in range(1, 301) for p in ("a", "b")]
    storage.records.append(batch)
    storage.records.prune(now=LATER, keep_rows=0)
    again = storage.records.append(batch)
    assert (again.stored, again.duplicates, again.conflicts) == (0, 600, ())
    assert (storage.records.last_seq("a"), storage.records.last_seq("b")) == (300, 300)


def test_numbers_that_never_came_may_still_come(storage):
    storage.records.append([record(n) for n in range(1, 1025) if n != 100])
    storage.records.prune(now=LATER, keep_rows=0)
    result = storage.records.append([record(n) for n in (99, 100, 101)])
    assert (result.stored, result.duplicates) == (1, 2)
    storage.records.append([record(n) for n in range(1025, 1300)])
    storage.records.prune(now=LATER, keep_rows=0)
    with storage.database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT first, last FROM log_pruned WHERE producer = 'agent'").all()
    assert rows == [(1, 1279)]


def test_the_number_after_the_last_is_right_when_everything_went(storage):
    storage.records.append([record(n, producer="gone") for n in range(1, 257)])
    storage.records.append([record(n) for n in range(1, 257)])
    storage.records.prune(now=LATER, keep_rows=0)
    assert storage.records.last_seq("gone") == 256
    assert storage.records.append([record(257, producer="gone"), record(256, producer="gone")]).stored == 1


def test_positions_are_not_used_again(storage):
    storage.records.append([record(n) for n in range(1, 257)])
    storage.records.prune(now=LATER, keep_rows=0)
    storage.records.append([record(n) for n in range(257, 259)])
    assert storage.log_tree.index_of("agent-257") == 257  # the record of the pruning stands before it


def test_many_producers(storage):
    storage.records.append([record(1, producer=f"p{n:04}") for n in range(1, 1025)])
    assert storage.records.prune(now=LATER, keep_rows=0) == 1024
    assert storage.records.append([record(1, producer=f"p{n:04}") for n in range(1, 1025)]).duplicates == 1024


@given(
    places=st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 30), st.integers(0, 5)), max_size=30).map(
        lambda found: [(producer, first, first + length) for producer, first, length in found]
    )
)
def test_joined_ranges_cover_the_same_numbers_and_do_not_touch(places):
    joined = list(join_ranges(places))
    assert joined == sorted(joined)
    numbers = lambda ranges: {(p, n) for p, first, last in ranges for n in range(first, last + 1)}  # noqa: E731
    assert numbers(joined) == numbers(places)
    for (p, _, last), (q, first, _) in itertools.pairwise(joined):
        assert p != q or first > last + 1
