# SPDX-License-Identifier: Apache-2.0
"""Requests as bytes: what is refused, what is tolerated, what is inherited."""

import json

import pytest

from everyhop.authzen.model import Batch, Evaluation, Flaw, Kind, Semantic
from everyhop.authzen.parse import (
    MAX_BODY_BYTES,
    MAX_EVALUATIONS,
    MAX_ID,
    MAX_NAME,
    check_media_type,
    parse_evaluation,
    parse_evaluations,
    parse_search,
)
from everyhop.core.errors import InputError

SUBJECT = {"type": "user", "id": "ann"}
ACTION = {"name": "read"}
RESOURCE = {"type": "record", "id": "r1"}
WHOLE = {"subject": SUBJECT, "action": ACTION, "resource": RESOURCE}
PARSERS = [
    parse_evaluation,
    parse_evaluations,
    *(lambda body, kind=kind: parse_search(kind, body) for kind in Kind),
]


def body(value) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"  \n",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b"{}",
        b'{"subject":}',
        b"\xef\xbb\xbf" + body(WHOLE),
        b"\xff",
        body(WHOLE)[:-1],
        body(WHOLE) + b"x",
        body(WHOLE).replace(b'"ann"', b"NaN"),
        body({**WHOLE, "x": 1})[:-1] + b',"x":2}',
        body(WHOLE)[:-1] + b',"\\u0073ubject":{"type":"user","id":"bob"}}',
        body(WHOLE)[:-1] + b',"context":{"a":1,"\\u0061":2}}',
        body(WHOLE)[:-1] + b',"context":{"a":"\\ud800"}}',
        body(WHOLE)[:-1] + b',"context":{"\\udfff":1}}',
        body(WHOLE)[:-1] + b',"context":' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}",
        body(WHOLE)[:-1] + b',"context":{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}}",
        body({**WHOLE, "context": {"a": "x" * MAX_BODY_BYTES}}),
        body({**WHOLE, "context": {"a": 10}}).replace(b"10", b"9" * 5000),
        body({**WHOLE, "context": {"a": 10}}).replace(b"10", b"1e999"),
        body({**WHOLE, "context": {"a": [{"b": 2**63}]}}),
        body({**WHOLE, "context": {"a": -(10**400)}}),
        body({**WHOLE, "context": None}),
        body({**WHOLE, "context": []}),
    ],
)
def test_bodies_that_are_refused(parse, text):
    with pytest.raises(InputError):
        parse(text)


@pytest.mark.parametrize("parse", PARSERS[:2])
@pytest.mark.parametrize("name", ["subject", "action", "resource"])
def test_a_missing_entity_is_refused(parse, name):
    with pytest.raises(InputError, match=f"{name} is missing"):
        parse(body({key: value for key, value in WHOLE.items() if key != name}))


FLAWED = [
    {"subject": "ann"},
    {"subject": None},
    {"subject": [SUBJECT]},
    {"subject": {"id": "ann"}},
    {"subject": {"type": "user"}},
    {"subject": {"type": "user", "id": None}},
    {"subject": {"type": "user", "id": 7}},
    {"subject": {"type": 7, "id": "ann"}},
    {"subject": {"type": "", "id": "ann"}},
    {"subject": {"type": "user", "id": ""}},
    {"subject": {"type": "x" * (MAX_NAME + 1), "id": "ann"}},
    {"subject": {"type": "user", "id": "x" * (MAX_ID + 1)}},
    {"subject": {**SUBJECT, "properties": "x"}},
    {"subject": {**SUBJECT, "properties": None}},
    {"subject": {"Type": "user", "id": "ann"}},
    {"action": "read"},
    {"action": {}},
    {"action": {"name": 123}},
    {"action": {"name": True}},
    {"action": {"name": ""}},
    {"action": {"name": "x" * (MAX_NAME + 1)}},
    {"action": {"name": "read", "properties": []}},
    {"resource": {"id": "r1"}},
    {"resource": {"type": "record"}},
    {"resource": {"type": "record", "id": ["r1"]}},
    {"resource": {**RESOURCE, "properties": 1}},
    {"context": "x"},
]


@pytest.mark.parametrize("flaw", FLAWED)
def test_a_flawed_entity_is_refused(flaw):
    for parse in PARSERS[:2]:
        with pytest.raises(InputError):
            parse(body({**WHOLE, **flaw}))


@pytest.mark.parametrize("flaw", FLAWED)
def test_a_flawed_default_spoils_the_whole_batch(flaw):
    with pytest.raises(InputError):
        parse_evaluations(body({**WHOLE, **flaw, "evaluations": [WHOLE]}))


@pytest.mark.parametrize("flaw", FLAWED)
def test_a_flawed_item_spoils_itself_alone(flaw):
    batch = parse_evaluations(body({**WHOLE, "evaluations": [WHOLE, flaw, {}]}))
    assert [type(item) for item in batch.items] == [Evaluation, Flaw, Evaluation]


@pytest.mark.parametrize("item", [None, 5, "x", [], [WHOLE], True])
def test_an_item_that_is_no_object_spoils_itself_alone(item):
    batch = parse_evaluations(body({**WHOLE, "evaluations": [item, {}]}))
    assert isinstance(batch.items[0], Flaw)
    assert isinstance(batch.items[1], Evaluation)


@pytest.mark.parametrize(
    "members",
    [
        {"evaluations": {}},
        {"evaluations": "x"},
        {"evaluations": None},
        {"evaluations": 1},
        {"evaluations": [{}] * (MAX_EVALUATIONS + 1)},
        {"evaluations": [{}] * 10_000},
        {"evaluations": [{}], "options": []},
        {"evaluations": [{}], "options": None},
        {"evaluations": [{}], "options": {"evaluations_semantic": "all"}},
        {"evaluations": [{}], "options": {"evaluations_semantic": "EXECUTE_ALL"}},
        {"evaluations": [{}], "options": {"evaluations_semantic": None}},
        {"evaluations": [{}], "options": {"evaluations_semantic": ["execute_all"]}},
    ],
)
def test_batches_that_are_refused(members):
    with pytest.raises(InputError):
        parse_evaluations(body({**WHOLE, **members}))


@pytest.mark.parametrize("members", [{}, {"evaluations": []}])
def test_without_items_a_batch_is_one_evaluation(members):
    assert parse_evaluations(body({**WHOLE, **members})) == parse_evaluation(body(WHOLE))
    with pytest.raises(InputError):
        parse_evaluations(body({"subject": SUBJECT, "action": ACTION, **members}))


def test_defaults_are_taken_whole():
    defaults = {**WHOLE, "resource": {**RESOURCE, "properties": {"status": "open"}}, "context": {"a": 1}}
    items = [{}, {"resource": {"type": "record", "id": "r2"}}, {"context": {"b": 2}}]
    batch = parse_evaluations(body({**defaults, "evaluations": items}))
    first, second, third = batch.items
    assert first.resource.properties == {"status": "open"}
    assert first.context == {"a": 1}
    assert second.resource.properties == {}  # nothing of the default is left in an entity that is given
    assert third.context == {"b": 2}
    assert batch.semantic is Semantic.EXECUTE_ALL


@pytest.mark.parametrize("semantic", list(Semantic))
def test_semantics(semantic):
    options = {"evaluations_semantic": semantic.value, "another": 1}
    batch = parse_evaluations(body({**WHOLE, "evaluations": [{}], "options": options}))
    assert isinstance(batch, Batch)
    assert batch.semantic is semantic


def test_unknown_members_and_their_order_do_not_matter():
    strange = {
        "foo": "bar",
        "resource": {**RESOURCE, "x": 1},
        "action": ACTION,
        "subject": SUBJECT,
        "y": {"z": []},
    }
    assert parse_evaluation(body(strange)) == parse_evaluation(body(WHOLE))


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        (Kind.SUBJECT, {"subject": {"type": "user"}, "resource": RESOURCE}),
        (Kind.SUBJECT, {"subject": {"type": "user"}, "action": ACTION}),
        (Kind.SUBJECT, {"subject": {"type": "user"}, "action": ACTION, "resource": {"type": "record"}}),
        (Kind.SUBJECT, {"subject": {}, "action": ACTION, "resource": RESOURCE}),
        (Kind.SUBJECT, {"subject": "user", "action": ACTION, "resource": RESOURCE}),
        (Kind.SUBJECT, {"action": ACTION, "resource": RESOURCE}),
        (Kind.RESOURCE, {"action": ACTION, "resource": {"type": "record"}}),
        (Kind.RESOURCE, {"subject": {"type": "user"}, "action": ACTION, "resource": {"type": "record"}}),
        (Kind.RESOURCE, {"subject": SUBJECT, "action": ACTION, "resource": {"id": "r1"}}),
        (Kind.RESOURCE, {"subject": SUBJECT, "action": {}, "resource": {"type": "record"}}),
        (Kind.ACTION, {"subject": SUBJECT}),
        (Kind.ACTION, {"resource": RESOURCE}),
        (Kind.ACTION, {"subject": {"type": "user"}, "resource": RESOURCE}),
        (Kind.ACTION, {"subject": SUBJECT, "resource": {"type": "record"}}),
        *(
            (Kind.ACTION, {"subject": SUBJECT, "resource": RESOURCE, "page": page})
            for page in (
                None,
                [],
                1,
                {"token": 1},
                {"token": None},
                {"token": "x" * 600},
                {"limit": "1"},
                {"limit": None},
                {"limit": -1},
                {"limit": 1.5},
                {"limit": True},
                {"limit": 2**60},
                {"properties": 1},
            )
        ),
    ],
)
def test_searches_that_are_refused(kind, members):
    with pytest.raises(InputError):
        parse_search(kind, body(members))


@pytest.mark.parametrize("ignored", ["ann", 7, None, {"a": 1}])
def test_the_id_of_what_is_sought_is_ignored(ignored):
    plain = parse_search(Kind.SUBJECT, body({**WHOLE, "subject": {"type": "user"}}))
    assert parse_search(Kind.SUBJECT, body({**WHOLE, "subject": {"type": "user", "id": ignored}})) == plain
    plain = parse_search(Kind.RESOURCE, body({**WHOLE, "resource": {"type": "record"}}))
    assert (
        parse_search(Kind.RESOURCE, body({**WHOLE, "resource": {"type": "record", "id": ignored}})) == plain
    )


def test_an_action_search_ignores_an_action():
    plain = parse_search(Kind.ACTION, body({"subject": SUBJECT, "resource": RESOURCE}))
    assert parse_search(Kind.ACTION, body({**WHOLE, "action": 5})) == plain


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["text/plain"],
        ["application/jsonx"],
        ["application/json; charset=latin-1"],
        ["application/problem+json"],
        ["application/json", "application/json"],
        ["application/json, text/plain"],
        ["application/x-www-form-urlencoded"],
    ],
)
def test_content_types_that_are_refused(values):
    with pytest.raises(InputError):
        check_media_type(values)


@pytest.mark.parametrize(
    "value", ["application/json", "Application/JSON; charset=utf-8", 'application/json;charset="UTF-8"']
)
def test_content_types_that_are_taken(value):
    check_media_type([value])
