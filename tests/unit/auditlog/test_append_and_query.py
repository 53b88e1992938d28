# SPDX-License-Identifier: Apache-2.0
"""The append path and the meaning of a filter, without any store."""

from datetime import timedelta

import pytest
from tests.support.identity import NOW, TestEntropy

from everyhop.auditlog import (
    AppendResult,
    Event,
    Kind,
    Point,
    Record,
    RecordFilter,
    append_event,
    append_records,
    decode_record,
    encode_record,
)
from everyhop.core.errors import InputError


class Writer:
    def __init__(self):
        self.rows = []

    def insert(self, records):
        self.rows += records
        return AppendResult(stored=len(records), duplicates=0)

    def next_seq(self, producer):
        return sum(r.producer == producer for r in self.rows) + 1


def record(**fields):
    base = {"id": "a", "seq": 1, "producer": "p", "time": NOW, "kind": Kind.DECISION, "point": Point.INGRESS}
    return Record(**{**base, **fields})


def test_a_batch_has_a_bound():
    with pytest.raises(InputError):
        append_records(Writer(), [record()] * 20_001)


def test_nothing_is_nothing():
    writer = Writer()
    assert append_records(writer, []) == AppendResult(stored=0, duplicates=0)
    assert not writer.rows


def test_events_are_numbered_and_cut():
    writer = Writer()
    event = Event(
        kind=Kind.KEY,
        action="activate" * 1000,
        time=NOW,
        reason="r" * 5000,
        snapshot="s" * 500,
        detail={"k" * 500: "v" * 5000, "n": 5},
    )
    first, second = (append_event(writer, event, producer="server", entropy=TestEntropy()) for _ in range(2))
    assert (first.seq, second.seq, first.point) == (1, 2, Point.CONTROL)
    assert first.id != second.id
    assert writer.rows == [first, second]
    assert decode_record(encode_record(first)) == first


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ({}, True),
        ({"service": "payments"}, True),
        ({"service": "orders"}, False),
        ({"caller": "spiffe://a/b"}, True),
        ({"caller": "spiffe://a/c"}, False),
        ({"decision": "deny"}, True),
        ({"decision": "allow"}, False),
        ({"denied": True}, True),
        ({"denied": True, "decision": "allow"}, True),
        ({"rule": "deny[0]"}, True),
        ({"rule": "deny"}, False),
        ({"kind": Kind.DECISION}, True),
        ({"kind": Kind.KEY}, False),
        ({"since": NOW}, True),
        ({"since": NOW + timedelta(microseconds=1)}, False),
        ({"until": NOW}, False),
        ({"until": NOW + timedelta(microseconds=1)}, True),
    ],
)
def test_filters(wanted, matches):
    seen = record(caller="spiffe://a/b", target="payments", decision="deny", rule="deny[0]")
    assert RecordFilter(**wanted).matches(seen) is matches
