# SPDX-License-Identifier: Apache-2.0
"""Persons in a record: found wherever they stand, replaced and put back, in bounded time."""

import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from tests.records import records

from everyhop.auditlog import Kind, Point, Record, decode_record, encode_record
from everyhop.auditlog.addresses import canonical_address
from everyhop.auditlog.personal import (
    PersonKind,
    disguise,
    is_pseudonym,
    parse_person,
    persons_in,
    pseudonyms_in,
    reveal,
)
from everyhop.core.errors import InputError


class Names:
    """Pseudonyms in memory."""

    def __init__(self):
        self.names = {}

    def __call__(self, kind, value):
        letters = "abcdefghijklmnopqrstuvwxyz"
        number = self.names.setdefault((kind, value), len(self.names))
        return f"~{kind.value}." + (letters * 2)[number % 26 :][:25] + letters[number // 26 % 26]

    def values(self):
        return {self(kind, value): value for kind, value in list(self.names)}


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


@pytest.mark.parametrize(
    "text", ["alice", "user:", "cat:tom", "address:orders", "user:" + "x" * 600, "", "identity:spiffe://a/b"]
)
def test_what_is_no_person_cannot_be_forgotten(text):
    with pytest.raises(InputError):
        parse_person(text)


def test_persons():
    assert parse_person("user:a:b") == (PersonKind.USER, "a:b")
    assert parse_person("address:[2001:db8::1]:443") == (PersonKind.ADDRESS, "2001:db8::/64")


@pytest.mark.parametrize(
    "text", ["", "orders", "orders:80", "1.2.3", "999.1.1.1", "~address.x", ":::", "1.2.3.4/24"]
)
def test_what_is_no_address(text):
    assert canonical_address(text) is None


def test_facts_name_only_who_is_a_person():
    facts = (
        "false user.id == resource.owner  (user.id = 'alice', resource.owner = 'bob'); "
        "true user.region == 'emea'  (user.region = 'emea'); true request.path_params.id == '7'  (x.id = '7')"
    )
    names = Names()
    told = disguise(record(detail={"user": "alice", "facts": facts}), names).detail["facts"]
    assert {value for _, value in names.names} == {"alice", "bob"}
    assert "alice" not in told
    assert "'emea'" in told
    assert "'7'" in told


def test_a_question_that_grows_too_long_goes_and_nothing_else():
    asked = json.dumps({"subject": {"type": "user", "id": "a", "properties": {}}, "context": "x" * 1960})
    found = disguise(record(detail={"via": "authzen", "asked": asked}), Names())
    assert found.detail == {"via": "authzen"}


def test_a_value_cannot_end_the_question_that_it_stands_in():
    asked = json.dumps({"subject": {"type": "user", "id": 'a","type":"service', "properties": {}}})
    names = Names()
    hidden = disguise(record(detail={"asked": asked}), names)
    back = json.loads(reveal(hidden, names.values()).detail["asked"])
    assert back == json.loads(asked)


@given(found=records())
def test_any_record_is_disguised_within_its_bounds(found):
    names = Names()
    hidden = disguise(found, names)
    assert decode_record(encode_record(hidden)) == hidden
    if not persons_in(found):
        assert hidden is found
    assert all(is_pseudonym(name) for name in pseudonyms_in(hidden) - pseudonyms_in(found))


@given(found=records())
def test_the_owner_reads_what_was(found):
    """Except addresses, which lose their port, and questions that grew too long."""
    if pseudonyms_in(found):
        return
    names = Names()
    back = reveal(disguise(found, names), names.values())
    for name, value in found.detail.items():
        if name not in {"host", "source", "address", "asked"}:
            assert back.detail[name] == value or str(value).startswith("address:"), name


@pytest.mark.parametrize(
    "text",
    [
        "a" * 2000,
        "owner" * 400,
        "user.id = '" * 180,
        "a.owner = '" + "x" * 1900,
        "1." * 1000,
        ":" * 2000,
        "f:" * 1000,
    ],
)
def test_time_is_bounded(text):
    begun = time.process_time()
    detail = {"facts": text, "title": text, "why": text, "user": text[:200]}
    disguise(record(kind=Kind.FINDING, caller="user:" + text[:300], detail=detail), Names())
    assert time.process_time() - begun < 1
