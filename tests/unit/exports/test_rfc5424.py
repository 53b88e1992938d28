# SPDX-License-Identifier: Apache-2.0
"""Syslog messages: cut at characters, marked with the hash of the whole, escaped where RFC 5424 says so."""

import hashlib
import re

import pytest
from hypothesis import given, strategies as st
from tests.support.exported import item

from everyhop.auditlog import Kind
from everyhop.exports.rfc5424 import cut_text, frame_of, is_sd_id, message_of, severity_of

FORM = re.compile(
    rb"<(\d{1,3})>1 (\S+) (\S{1,255}) everyhop (\S{1,128}) (\S{1,32}) "
    rb"\[(\S+)((?: [a-z0-9]+=\"(?:[^\"\\\]]|\\.)*\")*)\] (.*)",
    re.DOTALL,
)


def message(one, body, **changes):
    values = {"facility": 10, "hostname": "node-1", "sd_id": "everyhop@32473", "max_bytes": 2048}
    return message_of(one, body, **(values | changes))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "everyhop",
        "@1",
        "x@",
        "x@a",
        "a b@1",
        'a"b@1',
        "a]b@1",
        "a=b@1",
        "x" * 31 + "@1",
        "é@1",
        "x@1.",
        "a\n@1",
    ],
)
def test_what_is_no_sd_id(text):
    assert not is_sd_id(text)


def test_an_sd_id():
    assert is_sd_id("everyhop@32473")
    assert is_sd_id("everyhop@32473.1.2")


def test_a_message():
    one = item(5)
    match = FORM.fullmatch(message(one, one.line))
    assert int(match[1]) == 10 * 8 + 4
    assert match[2] == b"2026-01-15T12:00:05.000000Z" or match[2].endswith(b"Z")
    assert (match[3], match[4], match[5]) == (b"node-1", b"agent-1", b"decision")
    assert match[7] == f' id="{5:024x}" index="5"'.encode()
    assert match[8] == one.line


def test_escapes_and_fields():
    one = item(1, id='a"]\\\nb', producer="spi ffe\nx")
    match = FORM.fullmatch(message(one, b"{}", hostname="a b"))
    assert match[7] == rb' id="a\"\]\\_b" index="1"'
    assert match[4] == b"spi_ffe_x"
    assert match[3] == b"a_b"


def test_nothing_is_a_dash():
    assert FORM.fullmatch(message(item(1), b"{}", hostname=""))[3] == b"-"


@pytest.mark.parametrize("size", [1024, 1025, 1026, 1027, 8192])
def test_what_is_too_long_is_cut_and_marked(size):
    body = ("é€𝄞" * 10_000).encode()
    sent = message(item(1), body, max_bytes=size)
    assert size - 4 < len(sent) <= size
    match = FORM.fullmatch(sent)
    match[8].decode()
    assert f' sha256="{hashlib.sha256(body).hexdigest()}" length="{len(body)}"'.encode() in match[7]
    assert body.startswith(match[8])


def test_what_just_fits_is_whole():
    one = item(1)
    exact = len(message(one, b"x" * 900))
    assert message(one, b"x" * 900, max_bytes=exact).endswith(b"] " + b"x" * 900)
    assert b"sha256" in message(one, b"x" * 901, max_bytes=exact)


@given(text=st.text(max_size=40), size=st.integers(min_value=-3, max_value=200))
def test_cutting(text, size):
    data = text.encode()
    cut = cut_text(data, size)
    assert len(cut) <= max(0, size)
    assert data.startswith(cut)
    assert text.startswith(cut.decode())
    assert len(cut) > min(size, len(data)) - 4


def test_the_frame_counts_bytes():
    assert frame_of("é\n".encode()) == b"3 \xc3\xa9\n"


@pytest.mark.parametrize(
    ("fields", "severity"),
    [
        ({"kind": Kind.FINDING, "detail": {"severity": "critical"}}, 2),
        ({"kind": Kind.FINDING, "detail": {"severity": "high"}}, 3),
        ({"kind": Kind.FINDING}, 4),
        ({"kind": Kind.LOG, "operation": "gap"}, 3),
        ({"kind": Kind.LOG, "operation": "read", "decision": None}, 5),
        ({"kind": Kind.RESPONSE, "decision": None}, 4),
        ({"decision": "deny"}, 4),
        ({"decision": "allow"}, 6),
    ],
)
def test_severities(fields, severity):
    assert severity_of(item(1, **fields).record) == severity
