# SPDX-License-Identifier: Apache-2.0
"""Forms: the sealed line to the byte, OCSF with the log's index, CEF; none of them holds a line end."""

import json

import pytest
from tests.support.exported import item

from everyhop.auditlog import Kind
from everyhop.exports import Format
from everyhop.exports.cef import cef_of
from everyhop.exports.formats import renderer


@pytest.mark.parametrize("wanted", list(Format))
@pytest.mark.parametrize("path", ["/a\nb", "/\u202e\u2028\r", '/"|=\\', "/\x00\x1b"])
def test_no_form_holds_a_line_end(wanted, path):
    written = renderer(wanted, origin="shop.example/log/1")(item(3, path=path))
    assert b"\n" not in written
    assert b"\r" not in written
    written.decode()


def test_the_record_is_to_the_byte_what_was_sealed():
    one = item(1)
    assert renderer(Format.RECORD, origin=None)(one) is one.line
    assert renderer(Format.CEF, origin=None)(one) == cef_of(one)


def test_ocsf_names_the_record_and_its_place():
    event = json.loads(renderer(Format.OCSF, origin="shop.example/log/1")(item(5)))
    assert event["class_uid"] == 6003
    assert event["metadata"]["uid"] == f"{5:024x}"
    text = json.dumps(event)
    assert "shop.example/log/1" in text


def test_a_finding_is_a_detection_finding_with_its_evidence():
    finding = item(
        9,
        kind=Kind.FINDING,
        operation="RATE_ANOMALY",
        reason="alert",
        decision=None,
        detail={"severity": "high", "title": "too many calls", "evidence": "a1 b2"},
    )
    event = json.loads(renderer(Format.OCSF, origin=None)(finding))
    assert event["class_uid"] == 2004
    assert "a1" in json.dumps(event)
