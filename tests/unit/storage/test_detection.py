# SPDX-License-Identifier: Apache-2.0
"""Findings and the cursor move together or not at all, on either engine."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from tests.support.identity import NOW

from everyhop.auditlog import Event, Kind, RecordFilter
from everyhop.core.errors import InputError


def event(n=1):
    return Event(kind=Kind.FINDING, action="rate-anomaly", time=NOW + timedelta(seconds=n), reason="alert")


def findings(storage):
    return storage.records.query(RecordFilter(kind=Kind.FINDING), limit=100).records


def test_a_stretch_that_was_done_is_not_told_again(storage):
    (first,) = storage.detection.commit("detection", [event()], 10, at=NOW)
    assert storage.detection.commit("detection", [event()], 10, at=NOW) == ()
    assert storage.detection.commit("detection", [event()], 7, at=NOW) == ()
    assert [one.id for one in findings(storage)] == [first.id]
    assert storage.consumers.position("detection") == 10


def test_when_the_findings_cannot_be_written_the_cursor_stays(storage):
    with pytest.raises(InputError):
        storage.detection.commit("detection", [event()] * 20_001, 10, at=NOW)
    assert storage.consumers.position("detection") == 0
    assert findings(storage) == ()


def test_of_two_servers_at_once_one_tells(storage):
    told, barrier = [], threading.Barrier(2)

    def run():
        barrier.wait()
        told.append(storage.detection.commit("detection", [event(), event(2)], 10, at=NOW))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, told)) == [0, 2]
    assert len(findings(storage)) == 2


def test_a_notice_leaves_the_cursor(storage):
    assert len(storage.detection.append([event(), event(2)])) == 2
    assert storage.consumers.get("detection") is None
