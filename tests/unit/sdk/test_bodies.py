# SPDX-License-Identifier: Apache-2.0
"""Request bodies: strict JSON and the schema; refusals name places and never values."""

import json
import time

import pytest

from everyhop.core.errors import InputError
from everyhop.sdk.bodies import MAX_DEPTH, MAX_POINTERS, BodyChecks, compile_schema, parse_body
from everyhop.testing import Issuer, service_context, verified_call

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["amount", "to"],
    "properties": {
        "amount": {"type": "integer", "minimum": 1},
        "to": {"$ref": "#/$defs/account"},
        "items": {"type": "array", "items": {"type": "object", "properties": {"a/b": {"type": "string"}}}},
    },
    "$defs": {"account": {"type": "string", "pattern": "^[a-z]+$"}},
}
POLICY = """\
version: 1
trust_domain: shop.example
services:
  storefront: {workload: [{run: true}]}
  orders:
    workload: [{run: true}]
    operations:
      create: {route: POST /orders, body: create.json}
      list: GET /orders
allow:
  - {from: storefront, to: orders, operations: all}
"""
GOOD = b'{"amount": 5, "to": "bob"}'
JSON = ["application/json"]


@pytest.fixture(scope="module")
def checks():
    files = {"everyhop.yaml": POLICY.encode(), "create.json": json.dumps(SCHEMA).encode()}
    return BodyChecks(service_context(files, "orders", Issuer()))


def refused(checks, body, types=JSON, **more):
    return checks.check(verified_call("create"), types, body, **{"max_bytes": 1024, **more})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"nonsense-secret",
        b'{"amount": 5, "amount": 6, "to": "bob"}',
        b'{"amount": 5, "to": "bob", "items": [{"x": 1, "x": 1}]}',
        b'{"amount": 5, "\\u0061mount": 6, "to": "bob"}',
        b'{"amount": NaN, "to": "bob"}',
        b'{"amount": Infinity, "to": "bob"}',
        b'{"amount": 1e999, "to": "bob"}',
        b'{"amount": 5, "to": "\\ud800"}',
        b'\xef\xbb\xbf{"amount": 5, "to": "bob"}',
        '{"amount": 5, "to": "bob"}'.encode("utf-16"),
        b'{"amount": 5, "to": "\xff"}',
        b'{"amount": 5, "to": "bob"} x',
        b'{"amount": 5, "to": "bob",}',
        b'{"amount": 05, "to": "bob"}',
        b"{'amount': 5}",
        b'{"amount": ' + b"9" * 900 + b"".join([b"9"] * 0) + b', "to": "b\x00b"}',
        b"[" * 200 + b"]" * 200,
        b'{"a":' * 100 + b"1" + b"}" * 100,
    ],
)
def test_not_one_strict_json_text_is_400(checks, body):
    refusal = refused(checks, body)
    assert (refusal.status, refusal.code) == (400, "BODY_MALFORMED")
    assert b"secret" not in refusal.body
    assert "secret" not in refusal.message


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (b"[]", ("",)),
        (b"null", ("",)),
        (b"{}", ("",)),
        (b'{"amount": "5-secret", "to": "bob"}', ("/amount",)),
        (b'{"amount": 5.5, "to": "bob"}', ("/amount",)),
        (b'{"amount": true, "to": "bob"}', ("/amount",)),
        (b'{"amount": 0, "to": "bob"}', ("/amount",)),
        (b'{"amount": 5, "to": "secret 1"}', ("/to",)),
        (b'{"amount": 5, "to": "bob", "secret": 1}', ("",)),
        (b'{"amount": 5, "to": "bob", "items": [{}, {"a/b": 7}]}', ("/items/1/a~1b",)),
    ],
)
def test_a_broken_schema_is_422_with_places_and_without_values(checks, body, pointers):
    refusal = refused(checks, body)
    assert (refusal.status, refusal.code) == (422, "BODY_INVALID")
    assert refusal.pointers == pointers
    assert json.loads(refusal.body)["pointers"] == list(pointers)
    assert b"secret" not in refusal.body
    assert "secret" not in refusal.message


@pytest.mark.parametrize(
    "types",
    [
        [],
        ["text/plain"],
        ["application/json", "application/json"],
        ["application/json, text/plain"],
        ["application/json; charset=latin-1"],
        ["application/jsonx"],
        ["multipart/form-data"],
        [""],
    ],
)
def test_another_type_is_415(checks, types):
    assert refused(checks, GOOD, types).status == 415


def test_the_limit_is_exact(checks):
    assert refused(checks, GOOD, max_bytes=len(GOOD)) is None
    assert refused(checks, GOOD, max_bytes=len(GOOD) - 1).status == 413


@pytest.mark.parametrize(
    "types",
    [JSON, ["Application/JSON"], ["application/json; charset=UTF-8"], ["application/merge-patch+json"]],
)
def test_a_good_body_passes(checks, types):
    assert refused(checks, GOOD, types) is None


def test_an_operation_without_schema_is_not_looked_at(checks):
    assert checks.check(verified_call("list"), [], b"\xff", max_bytes=0) is None


def test_at_most_a_few_places_are_named(checks):
    body = json.dumps({"amount": 5, "to": "bob", "items": [1] * 50}).encode()
    assert len(refused(checks, body).pointers) == MAX_POINTERS


def test_depth_is_counted_outside_of_strings():
    assert parse_body(json.dumps({"a": "[" * 500}).encode()) == {"a": "[" * 500}
    assert parse_body(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(InputError):
        parse_body(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


@pytest.mark.parametrize(
    "body", [b"[" * 2**20, b"[]" * 2**19, b'"' + b"\\" * 2**20, b'{"a":' * 2**17, b"1" * 2**20]
)
def test_a_hostile_megabyte_is_refused_quickly(body):
    begun = time.process_time()
    with pytest.raises(InputError):
        parse_body(body)
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    "schema",
    [
        b'{"$ref": "http://127.0.0.1:9/x.json"}',
        b'{"properties": {"a": {"$ref": "other.json#/x"}}}',
        b'{"anyOf": [{"$dynamicRef": "https://x.example/#a"}]}',
        b'{"type": "nothing"}',
        b"[]",
        b"7",
    ],
)
def test_a_schema_that_leaves_its_document_or_is_none_is_refused(schema):
    with pytest.raises(InputError):
        compile_schema(schema)
