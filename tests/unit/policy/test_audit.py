# SPDX-License-Identifier: Apache-2.0
"""The chapter ``audit``: who reads the log is declared, by a name that exists, and silence means nobody."""

import jsonschema
import pytest

from everyhop.authz.difference import compare
from everyhop.core.errors import PolicyError
from everyhop.policy import decode_snapshot, encode_snapshot, parse_policy
from everyhop.policy.schema import json_schema

BASE = "version: 1\ntrust_domain: shop.example\nservices: {siem: {}, backup: {}}\n"


def parsed(audit="", **more):
    files = {"p.yaml": (BASE + audit).encode()}
    return parse_policy(files | {name + ".yaml": text.encode() for name, text in more.items()})


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("audit: {readers: [nobody]}", "unknown-service"),
        ("audit: {readers: [any]}", "unknown-service"),
        ("audit: {readers: [outside]}", "unknown-service"),
        ("audit: {readers: []}", "empty"),
        ("audit: {readers: siem}", "type"),
        ("audit: {readers: [[siem]]}", "type"),
        ("audit: {readers: [siem, siem]}", "duplicate"),
        ("audit: {reader: [siem]}", "unknown-key"),
        ("audit: {readers: }", "type"),
        ("audit: {}", "missing-key"),
        ("audit: [siem]", "type"),
    ],
)
def test_nonsense_is_refused_at_its_place(text, code):
    with pytest.raises(PolicyError) as refused:
        parsed(text)
    assert code in [problem.code for problem in refused.value.problems]
    assert {problem.span.line for problem in refused.value.problems} == {4}


def test_silence_means_nobody_and_changes_no_hash():
    assert parsed().readers == frozenset()
    assert b"audit" not in parsed().canonical


def test_readers_are_part_of_what_is_agreed():
    some = parsed("audit: {readers: [siem, backup]}")
    assert some.readers == {"siem", "backup"}
    assert some.hash == parsed("audit: {readers: [backup, siem]}").hash != parsed().hash
    assert decode_snapshot(encode_snapshot(some)).readers == some.readers
    two = parsed("audit: {readers: [siem]}", q="version: 1\naudit: {readers: [backup]}\n")
    assert two.hash == some.hash
    with pytest.raises(PolicyError):
        parsed("audit: {readers: [siem]}", q="version: 1\naudit: {readers: [siem]}\n")


def test_one_more_reader_is_a_wider_policy():
    nobody, siem = parsed(), parsed("audit: {readers: [siem]}")
    (wider,), (tighter,) = compare(nobody, siem).terms, compare(siem, nobody).terms
    assert (wider.what, wider.before, wider.after, wider.weight.value) == (
        "readers",
        "nobody",
        "siem",
        "looser",
    )
    assert tighter.weight.value == "tighter"
    assert compare(nobody, siem).is_wider
    assert not compare(siem, nobody).is_wider


@pytest.mark.parametrize(
    ("audit", "good"),
    [({"readers": ["siem"]}, True), ({"readers": []}, False), ({}, False), ({"readers": ["a b"]}, False)],
)
def test_editors_are_told_the_same(audit, good):
    document = {"version": 1, "trust_domain": "shop.example", "services": {"siem": {}}, "audit": audit}
    errors = list(jsonschema.Draft202012Validator(json_schema()).iter_errors(document))
    assert (not errors) is good
