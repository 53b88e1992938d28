# SPDX-License-Identifier: Apache-2.0
"""Snapshots: in force together with their record, or not at all."""

import pytest
from tests.support.identity import NOW

from everyhop.auditlog import Kind, RecordFilter
from everyhop.core.errors import NotFound, Unavailable

A, B = "a" * 64, "b" * 64


def test_what_is_not_there(storage):
    assert storage.snapshots.latest() is None
    with pytest.raises(NotFound):
        storage.snapshots.load(A)


def test_lines_that_moved_are_kept_but_are_no_change_of_policy(storage):
    storage.snapshots.save(b"one", A, "policy.yaml", NOW)
    assert not storage.snapshots.save(b"one, lower", A, "policy.yaml", NOW)
    assert storage.snapshots.latest() == storage.snapshots.load(A) == b"one, lower"
    assert storage.records.count() == 1


def test_an_older_policy_that_comes_back_brings_its_new_lines(storage):
    storage.snapshots.save(b"one", A, "policy.yaml", NOW)
    storage.snapshots.save(b"two", B, "policy.yaml", NOW)
    assert storage.snapshots.save(b"one, lower", A, "policy.yaml", NOW)
    assert storage.snapshots.latest() == b"one, lower"
    assert storage.records.count() == 3


def test_a_change_that_cannot_be_recorded_is_no_change(storage):
    storage.snapshots.save(b"one", A, "policy.yaml", NOW)
    with storage.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM log_head")
    with pytest.raises(Unavailable):
        storage.snapshots.save(b"two", B, "policy.yaml", NOW)
    assert storage.snapshots.latest() == b"one"


def test_the_latest_is_the_one_put_in_force_last(storage):
    assert storage.snapshots.save(b"one", A, "x", NOW)
    assert not storage.snapshots.save(b"one", A, "x", NOW)
    assert storage.snapshots.save(b"two", B, "x", NOW)
    assert storage.snapshots.latest() == b"two"
    assert storage.snapshots.save(b"one", A, "back again", NOW)
    assert storage.snapshots.latest() == b"one"


def test_each_change_is_recorded(storage):
    for content, digest in ((b"one", A), (b"two", B)):
        storage.snapshots.save(content, digest, "policy.yaml", NOW)
    second, first = storage.records.query(RecordFilter(kind=Kind.POLICY)).records
    assert (first.snapshot, first.detail) == (A, {"source": "policy.yaml", "previous": None})
    assert (second.snapshot, second.detail["previous"], second.operation) == (B, A, "apply")
