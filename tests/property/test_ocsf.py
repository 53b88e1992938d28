# SPDX-License-Identifier: Apache-2.0
"""Every record that can exist has an event, and every event keeps to the schema that we publish."""

import json
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from jsonschema import Draft202012Validator
from tests.records import records

from everyhop.auditlog import decode_record, encode_record
from everyhop.auditlog.ocsf import SchemaFormat, encode_event, event_of, leaf_hash_of, render_schema
from everyhop.core.printable import escape_json_line

SCHEMAS = Path(__file__).resolve().parents[2] / "docs/reference/schemas"


@pytest.mark.parametrize("wanted", SchemaFormat)
def test_the_published_schemas_are_those_of_the_code(wanted):
    published = (SCHEMAS / f"{wanted.value}.json").read_text(encoding="utf-8")
    assert published == render_schema(wanted), (
        f"run: everyhop log schema --format {wanted.value} > {wanted.value}.json"
    )


@pytest.fixture(scope="module")
def events():
    schema = json.loads(render_schema(SchemaFormat.OCSF))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.fixture(scope="module")
def lines():
    schema = json.loads(render_schema(SchemaFormat.RECORD))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@given(record=records(), index=st.none() | st.integers(0, 2**40), is_attested=st.booleans())
def test_an_event_keeps_to_its_schema_and_to_one_line(events, record, index, is_attested):
    leaf = leaf_hash_of(encode_record(record)) if is_attested else None
    line = encode_event(event_of(record, index=index, origin="shop.example/log/1", leaf=leaf))
    assert line.decode().isprintable()
    event = json.loads(line)
    events.validate(event)
    assert event["metadata"]["uid"] == record.id
    assert event["metadata"].get("sequence") == index
    assert event["unmapped"]["seq"] == record.seq


@given(record=records())
def test_a_record_keeps_to_its_schema(lines, record):
    line = encode_record(record)
    lines.validate(json.loads(line))
    assert decode_record(line) == record
    assert decode_record(escape_json_line(line)) == record


@given(record=records())
def test_nothing_that_a_record_says_is_lost(record):
    """A value that has no member of its own is in ``unmapped``, so two records that differ have events that do."""
    text = json.dumps(json.loads(encode_event(event_of(record))), ensure_ascii=False)
    for name in ("caller", "target", "operation", "rule", "reason", "instance", "trace"):
        value = getattr(record, name)
        if value:
            said = value if name != "trace" else value[:32]
            assert json.dumps(said, ensure_ascii=False)[1:-1] in text, name


@pytest.mark.parametrize("spoil", [{"class_uid": 6002}, {"time": "now"}, {"extra": 1}, {"metadata": {}}])
def test_the_schema_refuses(events, spoil):
    from datetime import UTC, datetime

    from everyhop.auditlog import Kind, Point, Record

    record = Record(
        id="a", seq=1, producer="p", time=datetime(2026, 7, 1, tzinfo=UTC), kind=Kind.KEY, point=Point.CONTROL
    )
    event = json.loads(encode_event(event_of(record)))
    assert events.is_valid(event)
    assert not events.is_valid(event | spoil)
