# SPDX-License-Identifier: Apache-2.0
"""The tree over the log: tiles, checkpoints, what is out of reach."""

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from tests.support.identity import NOW
from tests.support.ledger import naive_node, naive_root, record

from everyhop.auditlog import StoredCheckpoint, encode_record
from everyhop.core.errors import Conflict, InputError, NotFound
from everyhop.storage.records import SqlRecordWriter
from everyhop.storage.sealing import LogHead


def fill(storage, count, *, first=1):
    batch = [record(n, id=str(n)) for n in range(first, first + count)]
    with storage.database.writing() as connection:
        SqlRecordWriter(connection).insert(batch)
    return [sha256(b"\x00" + encode_record(r)).digest() for r in batch]


def checkpoint(size, root=b"r" * 32, origin="a.example/log/1"):
    return StoredCheckpoint(origin=origin, size=size, root=root, signed_at=NOW, note=f"{origin}\n{size}\n")


def test_the_empty_tree(storage):
    size, frontier = storage.log_tree.head()
    assert (size, frontier.root(), storage.log_tree.first_kept()) == (0, naive_root([]), 0)
    assert storage.log_tree.hashes(0, 0, 0) == []
    assert list(storage.log_tree.lines(0, 0)) == []


@pytest.mark.parametrize(
    ("level", "start", "count"), [(-1, 0, 1), (0, -1, 1), (0, 0, 65_537), (0, 0, -1), (0, 2**63 - 1, 1)]
)
def test_what_no_tree_has(storage, level, start, count):
    with pytest.raises(InputError):
        storage.log_tree.hashes(level, start, count)


@pytest.mark.parametrize(
    ("level", "start", "count"), [(0, 600, 1), (0, 599, 2), (1, 2, 1), (1, 1, 2), (2, 0, 1), (7, 0, 1)]
)
def test_what_this_tree_does_not_reach(storage, level, start, count):
    fill(storage, 600)
    with pytest.raises(NotFound):
        storage.log_tree.hashes(level, start, count)


@pytest.mark.parametrize(("n", "width"), [(0, 0), (0, 257), (-1, 1), (2**60, 1)])
def test_tiles_have_bounds(storage, n, width):
    with pytest.raises(InputError):
        storage.log_tree.tile(0, n, width)


def test_a_tile_that_is_not_full_yet(storage):
    leaves = fill(storage, 600)
    assert storage.log_tree.tile(0, 2, 88) == b"".join(leaves[512:])
    assert storage.log_tree.tile(0, 2, 5) == b"".join(leaves[512:517])
    assert storage.log_tree.tile(1, 0, 2) == naive_node(leaves[:256]) + naive_node(leaves[256:512])
    with pytest.raises(NotFound):
        storage.log_tree.tile(0, 2)


def test_a_tree_of_three_levels(storage):
    leaves = [n.to_bytes(32, "big") for n in range(66_048)]
    with storage.database.writing() as connection:
        head = LogHead(connection)
        head.grow(leaves[:5120])
        head.grow(leaves[5120:])
    tree = storage.log_tree
    assert tree.head()[1].root() == naive_node(leaves)
    assert tree.tile(1, 0) == b"".join(naive_node(leaves[n : n + 256]) for n in range(0, 65_536, 256))
    assert tree.hashes(2, 0, 1) == [naive_node(leaves[:65_536])]
    assert tree.hashes(1, 250, 7) == [naive_node(leaves[n : n + 256]) for n in range(64_000, 65_792, 256)]
    with pytest.raises(NotFound):
        tree.tile(2, 0, 2)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 800), count=st.integers(0, 800))
def test_any_run_of_leaves(filled, start, count):
    storage, leaves = filled
    if start + count > len(leaves):
        with pytest.raises(NotFound):
            storage.log_tree.hashes(0, start, count)
    else:
        assert storage.log_tree.hashes(0, start, count) == leaves[start : start + count]


@pytest.fixture
def filled(storage):
    return storage, fill(storage, 800)


def test_any_size_has_the_right_root(storage):
    lines = []
    for number, count in enumerate([1, 1, 253, 1, 1, 254, 257, 512, 3]):
        batch = [record(n, producer=f"p{number}") for n in range(1, count + 1)]
        storage.records.append(batch)
        lines += map(encode_record, batch)
        size, frontier = storage.log_tree.head()
        assert (size, frontier.size, frontier.root()) == (len(lines), len(lines), naive_root(lines))


def test_lines_come_in_pages(storage):
    fill(storage, 2100)
    pages = list(storage.log_tree.lines(50, 2100))
    assert [len(page) for page in pages] == [1000, 1000, 50]
    assert pages[0][0] == encode_record(record(51, id="51"))
    assert list(storage.log_tree.lines(2099, 2101)) == [[encode_record(record(2100, id="2100")), None]]


def test_where_a_record_stands(storage):
    fill(storage, 3)
    assert [storage.log_tree.index_of(str(n)) for n in (1, 2, 3)] == [0, 1, 2]
    with pytest.raises(NotFound):
        storage.log_tree.index_of("4")


def test_two_checkpoints_of_one_size(storage):
    fill(storage, 5)
    storage.log_tree.save_checkpoint(checkpoint(5))
    with pytest.raises(Conflict, match="another root"):
        storage.log_tree.save_checkpoint(checkpoint(5, root=b"x" * 32))
    storage.log_tree.save_checkpoint(
        replace(checkpoint(5), note="signed again", signed_at=NOW + timedelta(1))
    )
    assert storage.log_tree.latest_checkpoint("a.example/log/1") == checkpoint(5)


def test_a_checkpoint_of_more_than_there_is(storage):
    fill(storage, 5)
    with pytest.raises(Conflict, match="fewer"):
        storage.log_tree.save_checkpoint(checkpoint(6))


def test_checkpoints_of_an_origin(storage):
    fill(storage, 9)
    assert storage.log_tree.latest_checkpoint("a.example/log/1") is None
    for size in (9, 2, 5):
        storage.log_tree.save_checkpoint(checkpoint(size))
    storage.log_tree.save_checkpoint(checkpoint(7, origin="b.example/log/1"))
    assert storage.log_tree.latest_checkpoint("a.example/log/1").size == 9
    assert [c.size for c in storage.log_tree.checkpoints("a.example/log/1")] == [2, 5, 9]
    assert [c.size for c in storage.log_tree.checkpoints("a.example/log/1", behind=2)] == [5, 9]
