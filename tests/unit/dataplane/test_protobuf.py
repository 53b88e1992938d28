# SPDX-License-Identifier: Apache-2.0
"""Our encoding against protobuf's own runtime; tests/integration/dataplane/test_config_dump.py asks Envoy."""

import json

import pytest
from google.protobuf import any_pb2, duration_pb2, json_format, struct_pb2, wrappers_pb2
from hypothesis import given, strategies as st
from tests.conditioned import ATTRIBUTES, IN_ENVOY
from tests.strategies import to_files

from everyhop.conditions import compile_condition
from everyhop.dataplane import _schema
from everyhop.dataplane._protobuf import _duration, _field, _struct, _varint, encode_any, encode_message
from everyhop.dataplane._schema import MESSAGES, Field
from everyhop.dataplane.predicates import expression
from everyhop.policy import parse_policy
from everyhop.policy.vocabulary import vocabulary_of
from everyhop.wire.cel import CheckedExpr, Expr

ATTRIBUTES_OF = parse_policy(
    to_files({"version": 1, "trust_domain": "a.example", "services": {"a": {}}, "attributes": ATTRIBUTES})
).attributes

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(st.text(), _json, max_size=5))
def test_structs(value):
    decoded = struct_pb2.Struct.FromString(_struct(value))
    expected = struct_pb2.Struct()
    expected.update(value)
    assert decoded == expected


@given(st.integers(0, 2**64 - 1))
def test_integers(value):
    assert wrappers_pb2.UInt64Value.FromString(b"\x08" + _varint(value)).value == value


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [("0s", 0, 0), ("2s", 2, 0), ("0.25s", 0, 250_000_000), ("43200s", 43200, 0), ("1.5s", 1, 500_000_000)],
)
def test_durations(text, seconds, nanos):
    assert duration_pb2.Duration.FromString(_duration(text)) == duration_pb2.Duration(
        seconds=seconds, nanos=nanos
    )


def test_an_unknown_message_becomes_a_typed_struct():
    value = {"@type": "type.googleapis.com/a.B", "x": [1, {"@type": "type.googleapis.com/c.D", "y": "z"}]}
    outer = any_pb2.Any.FromString(encode_any(value))
    assert outer.type_url == "type.googleapis.com/xds.type.v3.TypedStruct"
    # TypedStruct is {string type_url = 1; Struct value = 2}, which is what Any looks like.
    inner = any_pb2.Any.FromString(outer.value)
    assert inner.type_url == "type.googleapis.com/a.B"
    fields = struct_pb2.Struct.FromString(inner.value)
    assert json.loads(json.dumps(fields["x"][1]["@type"])) == "type.googleapis.com/c.D"


def test_a_known_message_is_itself():
    value = {"@type": "type.googleapis.com/envoy.config.rbac.v3.Action", "name": "n", "action": "DENY"}
    outer = any_pb2.Any.FromString(encode_any(value))
    assert outer.type_url == value["@type"]
    assert outer.value == b"\x0a\x01n\x10\x01"


@pytest.mark.parametrize(
    ("message", "value"),
    [
        ("envoy.config.rbac.v3.Action", {"nonsense": 1}),
        ("envoy.config.rbac.v3.Action", {"action": "MAYBE"}),
        ("envoy.extensions.filters.http.rbac.v3.RBAC", {"rules": {}}),
        ("no.such.Message", {}),
        ("envoy.config.listener.v3.Listener", {"address": {"pipe": {"path": "x", "uid": 1}}}),
    ],
)
def test_what_the_tables_do_not_know_is_refused_here(message, value):
    with pytest.raises(KeyError):
        encode_message(message, value)


def test_a_kind_without_an_encoding_is_refused():
    with pytest.raises(TypeError):
        _field(Field(1, "float"), 1.0)


@pytest.mark.parametrize(
    "text", [*IN_ENVOY, "request.path == '\u00e9'", "now.getHours() == -5", "1.5 > -0.25"]
)
def test_expressions(text):
    """CEL's own messages are the oracle: the same bytes mean the same expression there."""
    tree = compile_condition(text, vocabulary_of(ATTRIBUTES_OF)).tree
    value = expression(tree)
    found = Expr.FromString(encode_message("cel.expr.Expr", value))
    assert found == json_format.ParseDict(value, Expr())


def test_an_expression_in_its_matcher():
    matcher = {"expr_match": {"cel_expr_checked": {"expr": {"id": "1", "const_expr": {"int64_value": "-1"}}}}}
    content = encode_message("xds.type.matcher.v3.CelMatcher", matcher)
    # CelMatcher.expr_match = 1, CelExpression.cel_expr_checked = 4
    assert content[:1] == b"\x0a"
    assert content[2:3] == b"\x22"
    assert CheckedExpr.FromString(content[4:]).expr.const_expr.int64_value == -1


def test_the_tables_are_closed():
    kinds = {
        "string",
        "uint",
        "int",
        "double",
        "bool",
        "enum",
        "message",
        "any",
        "map",
        "duration",
        "uint_value",
        "bool_value",
    }
    for name, message in MESSAGES.items():
        numbers = [field.number for field in message.values()]
        assert len(set(numbers)) == len(numbers), name
        for field in message.values():
            assert field.kind in kinds
            if field.kind == "message" or (field.kind == "map" and field.of != "any"):
                assert field.of in MESSAGES
    assert _schema.ANY == "any"
