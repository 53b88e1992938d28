# SPDX-License-Identifier: Apache-2.0
"""A record never outgrows its leaf, and what is cut away is named by its hash."""

import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st
from tests.records import records

from everyhop.auditlog import Kind, Point, Record, append_records, decode_record, encode_record
from everyhop.auditlog.append import AppendResult
from everyhop.auditlog.budget import MAX_RECORD_BYTES, fit, refer
from everyhop.auditlog.preparing import prepared


def record(**fields):
    base = {
        "id": "r",
        "seq": 1,
        "producer": "p",
        "time": datetime(2026, 7, 1, tzinfo=UTC),
        "kind": Kind.DECISION,
        "point": Point.INGRESS,
    }
    return Record(**{**base, **fields})


@pytest.mark.parametrize("character", ["a", "\x00", "é", "\u202e", "\U0001f600", "\ud800", "\n", '"'])
@pytest.mark.parametrize("size", [129, 2049, 8193, 65_536, 200_000])
def test_every_field_filled_with_anything_makes_a_record_that_can_be_read(character, size):
    text = character * size
    texts = ("id", "producer", "caller", "target", "operation", "method", "path")
    big = record(
        **dict.fromkeys((*texts, "rule", "reason", "snapshot", "instance"), text),
        detail={f"{text[:200]}{n}": text for n in range(50)} | {"user": "alice", "n": 2**80},
    )
    small = prepared(big)
    line = encode_record(small)
    assert len(line) <= MAX_RECORD_BYTES
    assert b"\n" not in line
    assert decode_record(line) == small
    assert prepared(small) == small
    assert len(small.detail) <= 32
    assert small.detail["user"] == "alice"


def test_what_is_cut_is_named_by_its_hash():
    text = "why " * 5000
    reason = fit(record(reason=text)).reason
    raw = text.encode()
    assert reason.endswith(f"…[sha256:{hashlib.sha256(raw).hexdigest()}:{len(raw)}]")
    assert reason.startswith("why why ")
    assert len(reason) <= 2048


def test_a_reference_survives_the_next_cut():
    once = refer("x" * 10_000, 1000)
    twice = refer(once, 100)
    assert twice.partition("…")[2] == once.partition("…")[2]
    assert len(twice) < 200


def test_what_fits_is_not_touched():
    small = record(reason="r" * 2048, path="/" + "p" * 8191, detail={str(n): "v" * 100 for n in range(32)})
    assert fit(small) is small


def test_many_details_are_told_by_one():
    found = fit(record(detail={f"d{n}": n for n in range(100)} | {"host": "h"})).detail
    assert len(found) == 32
    assert found["host"] == "h"
    assert found["rest"].startswith("…[sha256:")


@given(
    record=records(),
    more=st.dictionaries(st.text(min_size=1, max_size=300), st.text(max_size=5000), max_size=40),
)
def test_any_record_fits_and_stays(record, more):
    from msgspec.structs import replace

    once = prepared(replace(record, detail=record.detail | more))
    assert len(encode_record(once)) <= MAX_RECORD_BYTES
    assert decode_record(encode_record(once)) == once
    assert prepared(once) == once


def test_the_append_path_prepares_whatever_comes():
    class Writer:
        def insert(self, batch):
            self.rows = batch
            return AppendResult(stored=len(batch), duplicates=0)

    writer = Writer()
    append_records(writer, [record(path="/a?b", reason="Bearer abcdefgh12345678 " * 4000)])
    assert writer.rows[0].path == "/a"
    assert "abcdefgh12345678" not in writer.rows[0].reason
    assert len(encode_record(writer.rows[0])) < MAX_RECORD_BYTES
