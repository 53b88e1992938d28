# SPDX-License-Identifier: Apache-2.0
"""Records as lines: bounds, hostile text, one line each."""

import json
from datetime import UTC, datetime

import pytest

from everyhop.auditlog import (
    Kind,
    Point,
    Record,
    clip,
    decode_record,
    decode_records,
    encode_record,
    encode_records,
)
from everyhop.auditlog.codec import MAX_LINE_BYTES
from everyhop.core.errors import InputError

TIME = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
LINE = {
    "id": "a",
    "seq": 1,
    "producer": "p",
    "time": "2026-03-01T12:00:00Z",
    "kind": "decision",
    "point": "ingress",
}


def record(**fields):
    base = {"id": "a", "seq": 1, "producer": "p", "time": TIME, "kind": Kind.DECISION, "point": Point.INGRESS}
    return Record(**{**base, **fields})


@pytest.mark.parametrize(
    "changed",
    [
        {"id": ""},
        {"id": 5},
        {"id": "x" * 129},
        {"seq": 0},
        {"seq": 2**63},
        {"seq": "1"},
        {"producer": ""},
        {"time": "yesterday"},
        {"time": "2026-03-01T12:00:00"},
        {"kind": "other"},
        {"point": "elsewhere"},
        {"decision": "maybe"},
        {"decision": "allow\n"},
        {"path": "/" * 8193},
        {"caller": "x" * 2049},
        {"status": 1000},
        {"latency_ms": -1},
        {"detail": {"a": [1]}},
        {"detail": {"": 1}},
        {"later": 1},
    ],
)
def test_what_is_no_record(changed):
    with pytest.raises(InputError):
        decode_record(json.dumps({**LINE, **changed}).encode())


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 5000, b" " * (MAX_LINE_BYTES + 1)]
)
def test_what_is_no_line(line):
    with pytest.raises(InputError):
        decode_record(line)


def test_one_bad_line_refuses_the_batch():
    good = encode_record(record())
    with pytest.raises(InputError):
        decode_records(good + b"\n{}\n")


def test_batches_have_bounds():
    with pytest.raises(InputError):
        decode_records(b"{}\n" * 20_001)
    with pytest.raises(InputError):
        decode_records(b"x" * (16 * 1024 * 1024 + 1))


def test_records_come_back_to_the_microsecond():
    full = record(
        caller="spiffe://a/b",
        target="payments",
        operation="charge",
        method="POST",
        path="/v1/charges",
        decision="deny",
        rule="deny[0]",
        reason="denied-by-rule",
        snapshot="a" * 64,
        status=403,
        latency_ms=0.25,
        instance="payments-1",
        detail={"a": 1, "b": "x", "c": None, "d": True, "e": 0.5},
    )
    assert decode_record(encode_record(full)) == full
    assert decode_records(encode_records([full, record()])) == [full, record()]
    assert decode_records(b"") == []


def test_hostile_text_stays_on_its_line():
    hostile = record(path='/\n{"id":"forged"}\r\u2028\x00"', caller="\x1b[2J")
    lines = encode_records([hostile])
    assert lines.count(b"\n") == 1
    assert b"\x1b" not in lines
    assert decode_records(lines) == [hostile]


def test_what_says_nothing_is_left_out():
    assert set(json.loads(encode_record(record()))) == set(LINE)


def test_clipping():
    assert clip("abc", 3) == "abc"
    assert clip("abcd", 3) == "ab…"
    assert len(clip("x" * 5000)) == 2048
