# SPDX-License-Identifier: Apache-2.0
"""Whatever a caller sends: one record, one line, nothing that a terminal obeys."""

import argparse
import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from tests.records import records

from everyhop.auditlog import Kind, Point, Record, decode_record, encode_record
from everyhop.auditlog.preparing import prepared
from everyhop.cli.log_reading import print_record
from everyhop.dataplane.log_lines import record_of

HOSTILE = {
    "newline": "a\nb\r\nc",
    "escape": "\x1b[2J\x1b]0;owned\x07",
    "c1": "\x9b31m\x85",
    "nul": "a\x00b",
    "bidi": "\u202egpj.exe\u2066\u2069",
    "separators": "a\u2028b\u2029c",
    "invisible": "\u200b\ufeff\u00ad",
    "tags": "\U000e0041\U000e0042",
    "quotes": '"},{"id":"forged"',
    "long": "\u202e" * 65_536,
    "tab": "a\tb",
}
FIELDS = ("id", "caller", "target", "operation", "method", "path", "rule", "reason", "instance", "snapshot")


def printed(capsys, found, form, *, output="text"):
    plain = json.loads(encode_record(found))
    print_record(argparse.Namespace(format=form, output=output), plain, 7)
    return capsys.readouterr().out


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("form", ["table", "record", "ocsf", None])
def test_one_record_is_one_printable_line(capsys, name, form):
    text = HOSTILE[name]
    found = prepared(
        Record(
            seq=1,
            producer="p",
            time=datetime(2026, 7, 1, tzinfo=UTC),
            kind=Kind.DECISION,
            point=Point.EDGE,
            decision="deny",
            detail={"user": text, "host": text, "via": text, text: text},
            **dict.fromkeys(FIELDS, text),
        )
    )
    stored = encode_record(found)
    assert b"\n" not in stored
    assert decode_record(stored) == found
    out = printed(capsys, found, form, output="text" if form else "json")
    assert out.endswith("\n")
    assert out.count("\n") == 1
    assert out[:-1].isprintable()
    assert len(out) < 200_000
    if form != "table":
        assert isinstance(json.loads(out), dict)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_line_of_envoy_is_one_record(capsys, name):
    text = HOSTILE[name]
    members = ("path", "method", "host", "user", "caller", "detail", "why", "operation", "trace", "id")
    line = msgspec.json.encode(
        {"kind": "edge", "time": "2026-07-01T12:00:00Z", "route": "x", **dict.fromkeys(members, text[:4096])}
    )
    found = record_of(line, instance="i", seq=1)
    for form in ("table", "record", "ocsf"):
        assert printed(capsys, found, form)[:-1].isprintable()


@pytest.mark.parametrize(
    "line",
    [b"", b"\xff\xfe", b'{"kind": "in", "path": "\xff"}', b'{"path": "\\ud800"}', b"\x00" * 300, b"{" * 9000],
)
def test_bytes_that_are_no_text_are_one_record_too(capsys, line):
    found = record_of(line, instance="i", seq=1)
    assert found.reason == "unreadable-line"
    assert printed(capsys, found, "ocsf")[:-1].isprintable()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=records())
def test_any_record_in_any_form(capsys, found):
    for form in ("table", "record", "ocsf"):
        out = printed(capsys, found, form)
        assert out[:-1].isprintable()
