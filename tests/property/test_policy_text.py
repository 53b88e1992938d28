# SPDX-License-Identifier: Apache-2.0
"""The parser over any bytes, and the meaning of a policy over any way of writing it down."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import example, given, strategies as st
from tests.strategies import policies, policy_documents, to_files

from everyhop.core.errors import InputError, PolicyError
from everyhop.policy import Snapshot, decode_snapshot, encode_snapshot, parse_policy
from everyhop.policy.lint import lint
from everyhop.policy.schema import json_schema
from everyhop.policy.show import describe, render

VALID = b"""\
version: 1
trust_domain: shop.example
services:
  shop: {workload: [{unix: {user: shop, uid: 1000}}, {run: true}]}
  orders:
    operations:
      list: GET /orders
      read: {route: "GET /orders/{id}"}
      watch: {grpc: shop.v1.Orders/Watch}
      feed: {websocket: /feed}
    probes: [GET /healthz]
  ledger: {tcp: 5432, identity: "/db/{service}"}
allow:
  - {from: shop, to: orders, operations: [list, read]}
  - {from: [orders], to: ledger, id: books}
deny:
  - {from: any, to: orders, operations: [read], reason: closed}
tests:
  - {from: shop, call: GET /orders, to: orders, expect: allow}
  - {from: "spiffe://x/y", tcp: true, to: ledger, expect: deny}
"""
VALIDATOR = jsonschema.Draft202012Validator(json_schema())
FRAGMENTS = [
    b"version", b"services", b"allow", b"from", b"to", b"any", b"all", b"operations", b"when", b"tcp", b"true", b"1",
    b": ", b"\n", b"- ", b"  ", b"\t", b"{", b"}", b"[", b"]", b"&a ", b"*a", b"<<", b"!!str ", b"%YAML 1.1\n", b"---\n",
    b"...\n", b"|\n", b"> ", b"? ", b"'", b'"', b"#", b"\x00", b"\xff", b"\xe2\x80\xae", b"\xc2\x85", b"\xef\xbb\xbf", b"\r",
    b"GET /{id}", b"spiffe://", b",", b"9" * 5000,
]  # fmt: skip


def outcome(files: dict[str, bytes]) -> Snapshot | None:
    """Parse; a refusal must be a PolicyError whose positions lie in the files."""
    try:
        return parse_policy(files)
    except PolicyError as error:
        problems = error.problems
    assert problems
    for problem in problems:
        assert problem.span.file in {*files, "policy"}
        assert problem.span.line >= 1
        assert problem.span.column >= 1
        assert problem.render()
    return None


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@example(b"[" * 5000)
@example(b"{a: " * 5000)
@example(b"- " * 5000)
@example(b"? " * 5000)
@example(b"a:\n" * 3000)
@example(b"\xff\xfea\x00")
@example(b"&a [*a, *a]")
@example(b"a: !!python/object/apply:os.system ['true']")
def test_any_bytes_are_a_policy_or_a_policy_error(content):
    outcome({"policy.yaml": content})


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=30).map(b"".join))
def test_any_soup_of_yaml_is_a_policy_or_a_policy_error(content):
    outcome({"policy.yaml": content})


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    content = VALID
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 12)))
        content = content[:start] + draw(st.sampled_from(FRAGMENTS) | st.binary(max_size=3)) + content[end:]
    return content


@given(mutations())
def test_a_mutated_policy_is_a_policy_or_a_policy_error(content):
    snapshot = outcome({"policy.yaml": content})
    if snapshot is not None:
        assert decode_snapshot(encode_snapshot(snapshot)) == snapshot


@given(policies())
def test_encoding_and_decoding_give_the_same_snapshot(snapshot):
    encoded = encode_snapshot(snapshot)
    decoded = decode_snapshot(encoded)
    assert decoded == snapshot
    assert decoded.hash == snapshot.hash
    assert encode_snapshot(decoded) == encoded  # positions too
    assert [rule.span for rule in decoded.rules] == [rule.span for rule in snapshot.rules]


@given(policies(), st.data())
def test_a_changed_snapshot_is_refused(snapshot, data):
    encoded = encode_snapshot(snapshot)
    policy = encoded.index(b'"policy":')
    at = data.draw(st.integers(policy + 9, policy + 9 + len(snapshot.canonical) - 1))
    changed = encoded[:at] + bytes([encoded[at] ^ data.draw(st.integers(1, 255))]) + encoded[at + 1 :]
    with pytest.raises(InputError):
        decode_snapshot(changed)


@given(st.binary(max_size=100))
def test_other_bytes_are_no_snapshot(content):
    with pytest.raises(InputError):
        decode_snapshot(content)


@given(policies())
def test_the_canonical_form_is_a_policy_with_itself_as_canonical_form(snapshot):
    again = parse_policy({"canonical.json": snapshot.canonical})
    assert again.canonical == snapshot.canonical
    assert again == snapshot


def _shuffled(value: Any, data: st.DataObject) -> Any:
    """The same document with the keys of every mapping in another order."""
    if isinstance(value, dict):
        keys = data.draw(st.permutations(list(value)))
        return {key: _shuffled(value[key], data) for key in keys}
    if isinstance(value, list):
        return [_shuffled(item, data) for item in value]
    return value


@given(policy_documents(), st.data())
def test_the_hash_does_not_depend_on_how_the_policy_is_written(document, data):
    expected = parse_policy(to_files(document))
    shuffled = _shuffled(document, data)
    text = yaml.safe_dump(
        shuffled,
        sort_keys=False,
        allow_unicode=True,
        width=data.draw(st.sampled_from((20, 80, 4000))),
        indent=data.draw(st.sampled_from((2, 4, 7))),
        default_flow_style=data.draw(st.sampled_from((True, False, None))),
        default_style=data.draw(st.sampled_from((None, '"', "'"))),
    )
    if '"' in text or "'" in text:  # a quoted 1 is tagged !!int by the library
        text = text.replace("!!int ", "").replace("!!bool ", "")
    commented = f"# a comment\n\n{text}\n# another"
    for content in (text, commented, json.dumps(shuffled, indent=3)):
        assert parse_policy({"other.yaml": content.encode()}).hash == expected.hash


@given(policy_documents(), st.data())
def test_the_hash_does_not_depend_on_the_split_into_files(document, data):
    expected = parse_policy(to_files(document))
    files: dict[str, dict[str, Any]] = {f"{n}.yaml": {"version": 1} for n in range(3)}
    for name, service in document["services"].items():
        data.draw(st.sampled_from(list(files.values()))).setdefault("services", {})[name] = service
    files["1.yaml"]["trust_domain"] = document["trust_domain"]
    for key in ("allow", "deny"):
        cut = data.draw(st.integers(0, len(document.get(key, []))))
        for name, part in (("0.yaml", document.get(key, [])[:cut]), ("2.yaml", document.get(key, [])[cut:])):
            if part:
                files[name][key] = part
    contents = {name: json.dumps(part).encode() for name, part in files.items()}
    backwards = dict(reversed(contents.items()))
    assert parse_policy(contents) == parse_policy(backwards) == expected


@given(policy_documents())
def test_the_schema_accepts_what_the_parser_accepts(document):
    VALIDATOR.validate(document)


@given(policies())
def test_every_policy_can_be_shown_and_linted(snapshot):
    assert snapshot.hash in render(snapshot)
    assert set(json.loads(json.dumps(describe(snapshot)))["services"]) == set(snapshot.services)
    assert all(problem.is_warning for problem in lint(snapshot))
