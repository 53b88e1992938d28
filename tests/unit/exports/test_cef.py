# SPDX-License-Identifier: Apache-2.0
"""CEF: a text of the caller never ends a field, a line or a header."""

import re

import pytest
from hypothesis import given, strategies as st
from tests.support.exported import item

from everyhop import __version__
from everyhop.auditlog import Kind
from everyhop.exports.cef import cef_of, severity_of
from everyhop.exports.formats import renderer
from everyhop.exports.model import Format


def parse(line):
    """Read a line back, as a receiver does: header by bars, then keys and values."""
    header, rest, field = [], line, ""
    while len(header) < 7:
        if rest[0] == "\\":
            field, rest = field + rest[1], rest[2:]
        elif rest[0] == "|":
            header.append(field)
            field, rest = "", rest[1:]
        else:
            field, rest = field + rest[0], rest[1:]
    values = {}
    starts = [*re.finditer(r"(?:^| )([A-Za-z0-9]+)(?<!\\)=", rest)]
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        raw = rest[start.end() : end.start() if end else len(rest)]
        values[start[1]] = re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), raw)
    return header, values


@pytest.mark.parametrize(
    ("given_path", "written"),
    [
        ("/a|b", "/a|b"),
        ("/a=b", r"/a\=b"),
        ("/a\\b", r"/a\\b"),
        ("/a\nb", r"/a\nb"),
        ("/a\r\nb", r"/a\r\nb"),
        ("/a outcome=allow", r"/a outcome\=allow"),
        ("/\\", r"/\\"),
        ("/\x1b[31m", r"/\\u001b[31m"),
        ("/\u202egpj", r"/\\u202egpj"),
        ("/\u2028x", r"/\\u2028x"),
        ("/é", "/é"),
    ],
)
def test_escapes_of_values(given_path, written):
    line = cef_of(item(1, path=given_path)).decode()
    assert f" request={written} deviceExternalId=" in line
    assert "\n" not in line
    assert "\r" not in line


def test_escapes_of_the_header():
    line = cef_of(item(1, reason="a|b\\c\nd=e", operation="x|y\r", kind=Kind.FINDING, decision=None)).decode()
    assert line.startswith(rf"CEF:0|everyhop|everyhop|{__version__}|finding:a\|b\\c d=e|finding x\|y |8|")


def test_a_whole_line():
    header, values = parse(cef_of(item(5, detail={"user": "u_1", "host": "203.0.113.7", "x": 3})).decode())
    assert header == ["CEF:0", "everyhop", "everyhop", __version__, "decision:deny", "call denied", "5"]
    assert values["externalId"] == f"{5:024x}"
    assert values["outcome"] == "deny"
    assert values["src"] == "203.0.113.7"
    assert values["suser"] == "u_1"
    assert (values["cn1"], values["cn1Label"]) == ("5", "logIndex")
    assert values["msg"] == "user: u_1; host: 203.0.113.7; x: 3"
    assert int(values["rt"]) == int(item(5).record.time.timestamp() * 1000)


def test_a_host_that_is_no_address_is_no_source():
    _, values = parse(cef_of(item(1, detail={"host": "x src=10.0.0.1"})).decode())
    assert "src" not in values


@given(path=st.text(max_size=60), reason=st.text(max_size=30), rule=st.text(max_size=30))
def test_any_text_stays_in_its_field(path, reason, rule):
    line = cef_of(item(2, path=path, reason=reason or None, rule=rule)).decode()
    assert "\n" not in line
    assert "\r" not in line
    header, values = parse(line)
    assert len(header) == 7
    assert values["externalId"] == f"{2:024x}"
    assert values["cs1Label"] == "rule"
    if path.isprintable() and path.strip() == path:
        assert values["request"] == path


@pytest.mark.parametrize(
    ("fields", "severity"),
    [
        ({"kind": Kind.FINDING, "detail": {"severity": "critical"}}, 10),
        ({"kind": Kind.FINDING, "detail": {"severity": "?"}}, 8),
        ({"kind": Kind.LOG, "operation": "gap"}, 8),
        ({"kind": Kind.RESPONSE}, 8),
        ({"decision": "deny"}, 5),
        ({"decision": "allow"}, 1),
        ({"kind": Kind.KEY, "decision": None}, 3),
    ],
)
def test_severities(fields, severity):
    assert severity_of(item(1, **fields).record) == severity


def test_renderers():
    one = item(1)
    assert renderer(Format.RECORD, origin=None)(one) == one.line
    assert renderer(Format.CEF, origin=None)(one) == cef_of(one)
