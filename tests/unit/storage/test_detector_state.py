# SPDX-License-Identifier: Apache-2.0
"""What detectors learn outlives the process, and a save writes what differs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.anomaly.detectors.acts import act, feed, later

from everyhop.anomaly.detectors import default_detectors
from everyhop.storage.detector_state import SqlDetectorStates

NOW = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.fixture
def states(storage):
    return SqlDetectorStates(storage.database)


def test_nothing_is_known_at_first(states):
    assert states.load("volume") == {}


def test_a_save_writes_what_differs_and_drops_what_is_gone(storage, states):
    assert states.save({"a": {"x": b"1", "y": b"2"}, "b": {"x": b"3"}}, NOW) == 3
    assert states.save({"a": {"x": b"1", "y": b"2"}, "b": {"x": b"3"}}, NOW) == 0
    assert states.save({"a": {"x": b"1", "z": b"4"}}, NOW) == 2
    for seen in (states, SqlDetectorStates(storage.database)):
        assert seen.load("a") == {"x": b"1", "z": b"4"}
        assert seen.load("b") == {"x": b"3"}


def test_another_process_knows_what_is_stored_before_it_writes(storage, states):
    states.save({"a": {"x": b"1", "y": b"2"}}, NOW)
    assert SqlDetectorStates(storage.database).save({"a": {"x": b"1"}}, NOW) == 1
    assert SqlDetectorStates(storage.database).load("a") == {"x": b"1"}


def test_entries_come_back_oldest_first(storage, states):
    states.save({"a": {"new": b"1"}}, NOW + timedelta(hours=1))
    SqlDetectorStates(storage.database).save({"a": {"new": b"1", "old": b"2"}}, NOW)
    assert list(SqlDetectorStates(storage.database).load("a")) == ["old", "new"]


def test_thousands_of_entries_are_written_and_deleted(storage, states):
    many = {f"key {n}": b"x" for n in range(2500)}
    assert states.save({"a": many}, NOW) == 2500
    assert states.save({"a": {}}, NOW) == 2500
    assert states.load("a") == {}


def test_a_detector_can_begin_anew(states):
    states.save({"a": {"x": b"1"}, "b": {"x": b"2"}}, NOW)
    states.forget("a")
    assert states.load("a") == {}
    assert states.load("b") == {"x": b"2"}
    assert states.save({"a": {"x": b"1"}}, NOW) == 1


def test_detectors_go_on_with_what_was_stored(storage, states):
    before = default_detectors()
    for detector in before:
        feed(detector, [act(later(days=day)) for day in range(9)])
    states.save({d.name: d.state() for d in before}, NOW)
    after = default_detectors()
    for detector in after:
        detector.restore(SqlDetectorStates(storage.database).load(detector.name))
        assert dict(detector.state()) == dict(states.load(detector.name))
    new = act(later(days=9), target="ledger", operation="post")
    assert [f.detector for d in after for f in d.observe(new, later())] == ["new-edge"]
