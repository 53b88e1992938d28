# SPDX-License-Identifier: Apache-2.0
"""Objects, their names, and the head of a file."""

import re

import pytest

from everyhop.policy import parse_policy
from everyhop.targets.intents import Intents
from everyhop.targets.objects import SUPERSET, grant_note, header, obj, object_name, yaml_file
from everyhop.targets.view import View
from everyhop.targets.yaml import Document

POLICY = b"""version: 1
trust_domain: shop.example
services:
  a: {operations: {x: GET /}}
  b: {operations: {x: GET /}, probes: [GET /healthz]}
allow:
  - {from: a, to: b, operations: all}
  - {from: any, to: b, operations: all}
"""


@pytest.fixture(scope="module")
def view():
    return View(Intents(parse_policy({"everyhop.yaml": POLICY})), "istio")


@pytest.mark.parametrize("prefix", ["", "a-b", "A", "a.b", "ä"])
def test_a_prefix_that_has_two_readings_is_refused(prefix):
    with pytest.raises(ValueError, match="word"):
        object_name(prefix, "x")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (("allow", "a-b"), ("allow", "a", "b")),
        (("allow", "a-b", "c"), ("allow", "a", "b-c")),
        (("allow", "x" * 70), ("allow", "x" * 71)),
        (("allow", "Read"), ("allow", "read")),
        (("allow", "a_b"), ("allow", "a-b")),
        (("allow", "a-"), ("allow", "a")),
    ],
    ids=["parts", "dashes", "cut", "case", "underscore", "last-dash"],
)
def test_other_words_have_another_name(left, right):
    assert object_name(*left) != object_name(*right)


@pytest.mark.parametrize(
    "words",
    [
        ("allow",),
        ("allow", "a-b"),
        ("allow", "a", "b"),
        ("allow", "x" * 99),
        ("allow", "a."),
        ("allow", "-é_"),
    ],
    ids=["alone", "one", "two", "long", "dot", "foreign"],
)
def test_a_name_is_a_dns_label_and_stays(words):
    name = object_name(*words)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name)
    assert object_name(*words) == name


def test_a_plain_name_is_left_alone():
    assert object_name("allow", "payments-eu") == "allow-payments-eu"


def test_an_object_says_whose_it_is(view):
    made = obj(view, "v1", "Thing", "n", "ns", {"a": 1}, labels={"l": "1"}, annotations={"k": "2"}, data={})
    assert list(made) == ["apiVersion", "kind", "metadata", "data", "spec"]
    assert made["metadata"]["labels"] == {"l": "1", "app.kubernetes.io/managed-by": "everyhop"}
    assert made["metadata"]["annotations"] == {
        "k": "2",
        "everyhop/snapshot": view.intents.snapshot.hash[:16],
    }
    plain = obj(view, "v1", "Thing", "n", None, None)
    assert "spec" not in plain
    assert "namespace" not in plain["metadata"]


def test_our_marks_cannot_be_replaced(view):
    made = obj(view, "v1", "Thing", "n", "ns", {}, labels={"app.kubernetes.io/managed-by": "other"})
    assert made["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "everyhop"


def test_a_note_names_rules_with_their_places(view):
    operation, probe = view.intents.of("b").doors
    notes = {grant.caller: grant_note(operation, grant) for grant in operation.grants}
    assert notes["a"].startswith("b.x: allow[0] at everyhop.yaml:7")
    assert "probe at everyhop.yaml:5" in grant_note(probe, probe.grants[0])


def test_a_superset_says_so_at_its_head(view):
    made = yaml_file(view, "x/y.yaml", [Document({"kind": "Thing"})], "more", is_superset=True)
    assert made.is_superset
    head = made.content.decode().partition("---")[0]
    assert "do not edit" in head.splitlines()[0]
    assert SUPERSET in head
    assert "more" in head
    assert not any(SUPERSET in line for line in header(view))
