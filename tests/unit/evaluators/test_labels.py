# SPDX-License-Identifier: Apache-2.0
"""Label selectors, and finding what they choose."""

import random

import pytest

from everyhop.core.errors import InputError
from everyhop.evaluators.labels import ALL, Selected, read_selector


def read(**members):
    return read_selector(members, "here")


@pytest.mark.parametrize(
    ("operator", "values", "labels", "expected"),
    [
        ("In", ["a", "b"], {"x": "a"}, True),
        ("In", ["a"], {"x": "c"}, False),
        ("In", ["a"], {}, False),
        ("NotIn", ["a"], {"x": "a"}, False),
        ("NotIn", ["a"], {"x": "b"}, True),
        ("NotIn", ["a"], {}, True),  # where the label is missing too
        ("Exists", [], {"x": ""}, True),
        ("Exists", [], {"y": ""}, False),
        ("DoesNotExist", [], {"x": ""}, False),
        ("DoesNotExist", [], {}, True),
    ],
)
def test_operators(operator, values, labels, expected):
    expression = {"key": "x", "operator": operator} | ({"values": values} if values else {})
    assert read(matchExpressions=[expression]).selects(labels) is expected


def test_an_empty_selector_selects_everything_and_conditions_are_anded():
    assert read() == ALL
    assert ALL.selects({})
    both = read(matchLabels={"x": "1", "y": "2"}, matchExpressions=[{"key": "z", "operator": "DoesNotExist"}])
    assert both.selects({"x": "1", "y": "2"})
    for labels in ({"x": "1"}, {"x": "1", "y": "3"}, {"x": "1", "y": "2", "z": ""}):
        assert not both.selects(labels)


def test_an_empty_value_is_a_value():
    assert read(matchLabels={"x": ""}).selects({"x": ""})
    assert not read(matchLabels={"x": ""}).selects({})


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"x": "1"},
        {"matchLabels": {"x": 1}},
        {"matchLabels": []},
        {"matchExpressions": [{"operator": "Exists"}]},
    ],
)
def test_what_is_no_selector_is_refused(value):
    with pytest.raises(InputError):
        read_selector(value, "here")


def test_what_is_found_is_what_asking_each_would_find():
    chance = random.Random(3)
    keys, values = "xyz", "12"
    things = []
    for number in range(200):
        labels = {key: chance.choice(values) for key in keys if chance.random() < 0.4}
        expressions = [{"key": chance.choice(keys), "operator": "Exists"}] if chance.random() < 0.3 else []
        things.append((read(matchLabels=labels, matchExpressions=expressions), number))
    index = Selected()
    for selector, number in things:
        index.add(selector, number)
    for _ in range(100):
        labels = {key: chance.choice(values) for key in keys if chance.random() < 0.7}
        assert index.of(labels) == tuple(number for selector, number in things if selector.selects(labels))
