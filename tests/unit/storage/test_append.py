# SPDX-License-Identifier: Apache-2.0
"""What gets into the log and what does not: retries, altered retries, taken places, records that are too large."""

from datetime import timedelta

import pytest
import sqlalchemy as sa
from tests.support.identity import NOW
from tests.support.ledger import naive_root, record

from everyhop.auditlog import Event, Kind, RecordFilter, encode_record
from everyhop.auditlog.codec import MAX_LINE_BYTES
from everyhop.core.errors import InputError, Unavailable
from everyhop.storage.records import SqlRecordWriter
from everyhop.storage.schema import log_head, log_tiles, records
from everyhop.storage.sealing import LogHead


def root(storage):
    return storage.log_tree.head()[1].root()


def lines(storage):
    return [line for page in storage.log_tree.lines(0, storage.log_tree.head()[0]) for line in page]


def test_a_line_that_was_altered_between_two_deliveries(storage):
    first = record(1, path="/orders/1", decision="deny")
    storage.records.append([first])
    again = storage.records.append([record(1, path="/orders/1", decision="allow"), record(2)])
    assert (again.stored, again.duplicates, again.conflicts) == (1, 0, ("agent-1",))
    assert storage.records.get("agent-1") == first
    assert root(storage) == naive_root([encode_record(first), encode_record(record(2))])


@pytest.mark.parametrize(
    "change",
    [{"id": "other"}, {"producer": "other"}, {"seq": 9}, {"time": NOW}, {"detail": {"x": 1}}],
    ids=lambda change: next(iter(change)),
)
def test_the_same_record_but_for_one_member_is_another_one(storage, change):
    storage.records.append([record(1)])
    result = storage.records.append([record(**{"seq": 1, "id": "agent-1", **change})])
    assert (result.stored, result.duplicates) == (0, 0)
    assert len(result.conflicts) == 1
    assert storage.log_tree.head()[0] == 1


def test_the_same_within_one_batch(storage):
    twice = [
        record(1),
        record(1),
        record(1, id="other"),
        record(2, id="agent-1"),
        record(1, path="/x"),
        record(2),
    ]
    result = storage.records.append(twice)
    assert (result.stored, result.duplicates, result.conflicts) == (2, 1, ("other", "agent-1", "agent-1"))
    assert lines(storage) == [encode_record(record(1)), encode_record(record(2))]


def test_a_record_that_is_too_large_stops_the_batch_before_anything_is_stored(storage):
    details = {f"d{n}": "\u0001" * 2048 for n in range(6)}
    large = record(2, detail=details)
    assert len(encode_record(large)) > MAX_LINE_BYTES
    with pytest.raises(InputError, match="65535"):
        storage.records.append([record(1), large])
    assert storage.log_tree.head()[0] == storage.records.count() == 0
    # What other work there is in the same transaction is not stored either.
    with pytest.raises(InputError), storage.database.writing() as connection:
        connection.exec_driver_sql("INSERT INTO meta VALUES ('a', 'b')")
        SqlRecordWriter(connection).insert([large])
    assert storage.meta.get("a") is None


def test_a_batch_of_too_many(storage):
    with pytest.raises(InputError, match="at most 20000"):
        storage.records.append([record(1)] * 20_001)
    assert storage.records.count() == 0


@pytest.mark.parametrize("name", ["id", "producer"])
def test_names_hold_no_nul(storage, name):
    with pytest.raises(InputError, match="NUL"):
        storage.records.append([record(1, **{name: "a\0b"})])


def test_a_nul_in_what_a_caller_says_is_kept_in_the_line_and_found(storage):
    told = record(1, caller="a\0b", target="t\0", rule="r\0", detail={"user": "u\0"})
    storage.records.append([told])
    assert storage.records.query(RecordFilter(caller="a\0b", service="t\0", rule="r\0")).records == (told,)


def test_numbers_follow_each_other_whatever_was_left_out(storage):
    for start in range(0, 900, 100):
        batch = [record(n) for n in range(max(start - 50, 1), start + 100)]
        storage.records.append(batch[::-1])
    with storage.database.reading() as connection:
        numbers = connection.execute(sa.select(records.c.n).order_by(records.c.n)).scalars().all()
    assert numbers == list(range(1, 900))
    assert root(storage) == naive_root(lines(storage))


def test_a_transaction_that_fails_leaves_the_head_where_it_was(storage):
    storage.records.append([record(1)])
    before = root(storage)
    with pytest.raises(ZeroDivisionError), storage.database.writing() as connection:
        SqlRecordWriter(connection).insert([record(n) for n in range(2, 600)])
        raise ZeroDivisionError
    assert (storage.log_tree.head()[0], root(storage)) == (1, before)
    storage.records.append([record(2)])
    assert storage.log_tree.index_of("agent-2") == 1


def test_several_inserts_in_one_transaction(storage):
    with storage.database.writing() as connection:
        writer = SqlRecordWriter(connection)
        for start in range(1, 600, 99):
            writer.insert([record(n) for n in range(start, start + 99)])
    assert root(storage) == naive_root(lines(storage))


def test_every_append_path_is_sealed(storage):
    storage.records.append([record(1)])
    storage.records.note(Event(kind=Kind.LIFECYCLE, action="start", time=NOW))
    storage.snapshots.save(b"{}", "a" * 64, "file", NOW)
    assert storage.log_tree.head()[0] == 3
    assert root(storage) == naive_root(lines(storage))


def test_an_altered_hash_is_noticed_before_its_tile_is_sealed(storage):
    storage.records.append([record(n) for n in range(1, 201)])
    with storage.database.writing() as connection:
        connection.execute(sa.update(records).where(records.c.n == 77).values(leaf=b"\0" * 32))
    storage.records.append([record(n) for n in range(201, 210)])
    with pytest.raises(Unavailable, match="records 1 to 209 are not those") as caught:
        storage.records.append([record(n) for n in range(210, 260)])
    assert not caught.value.retry
    assert storage.log_tree.head()[0] == 209


def test_a_record_that_was_taken_away_is_noticed_before_its_tile_is_sealed(storage):
    storage.records.append([record(n) for n in range(1, 201)])
    with storage.database.writing() as connection:
        connection.execute(sa.delete(records).where(records.c.n == 200))
    with pytest.raises(Unavailable, match="was altered"):
        storage.records.append([record(n) for n in range(300, 400)])


def test_a_head_that_was_set_back(storage):
    storage.records.append([record(1)])
    with storage.database.reading() as connection:
        row = connection.execute(sa.select(log_head)).one()
    storage.records.append([record(2)])
    with storage.database.writing() as connection:
        connection.execute(sa.update(log_head).values(size=row.size, frontier=row.frontier))
    with pytest.raises(Unavailable, match="behind its head") as caught:
        storage.records.append([record(3)])
    assert not caught.value.retry


@pytest.mark.parametrize("change", [{"size": 5}, {"frontier": b""}, {"frontier": b"\0" * 40}, None])
def test_a_head_that_cannot_be_read(storage, change):
    storage.records.append([record(1)])
    with storage.database.writing() as connection:
        connection.execute(sa.delete(log_head) if change is None else sa.update(log_head).values(change))
    with pytest.raises(Unavailable, match="head") as caught:
        storage.records.append([record(2)])
    assert not caught.value.retry


def test_a_missing_tile_is_noticed_by_the_tile_above(storage):
    with storage.database.writing() as connection:
        LogHead(connection).grow([b"l" * 32] * 65_280)
        connection.execute(sa.delete(log_tiles).where(log_tiles.c.n == 3))
    with pytest.raises(Unavailable, match="tiles of its tree are missing"):
        storage.records.append([record(n) for n in range(1, 257)])


def test_numbers_of_a_producer_with_holes(storage):
    storage.records.append([record(n) for n in (1, 3, 7)])
    result = storage.records.append([record(n) for n in range(1, 9)])
    assert (result.stored, result.duplicates) == (5, 3)
    assert storage.records.last_seq("agent") == 8


def test_records_come_back_by_time_and_user(storage):
    told = record(1, time=NOW + timedelta(days=1), detail={"user": "ann"})
    storage.records.append([told])
    with storage.database.reading() as connection:
        assert connection.execute(sa.select(records.c.subject)).scalar() == "ann"
