# SPDX-License-Identifier: Apache-2.0
"""Members of manifests: typed, each read, none overlooked."""

import pytest

from everyhop.core.errors import InputError
from everyhop.evaluators.fields import Fields


def test_what_nobody_reads_is_an_error():
    with (
        pytest.raises(InputError, match="place: 'b' is not known here"),
        Fields({"a": "1", "b": 2}, "place") as fields,
    ):
        assert fields.text("a") == "1"


def test_an_error_inside_is_not_hidden_by_what_was_left():
    with pytest.raises(ZeroDivisionError), Fields({"a": 1}, "place"):
        raise ZeroDivisionError


def test_a_null_is_missing():
    with Fields({"a": None, "b": None}, "place") as fields:
        assert fields.text("a") is None
        assert "b" not in fields


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (lambda one: one.text("x"), 1),
        (lambda one: one.needed_text("x"), ""),
        (lambda one: one.one_of("x", "a", "b"), "c"),
        (lambda one: one.truth("x"), "true"),
        (lambda one: one.number("x", 0, 9), True),
        (lambda one: one.number("x", 0, 9), 10),
        (lambda one: one.number("x", 0, 9), "1"),
        (lambda one: one.inner("x"), []),
        (lambda one: one.items("x"), {}),
        (lambda one: one.texts("x"), ["a", 1]),
        (lambda one: one.each("x", lambda inner: inner.text("y")), ["a"]),
        (lambda one: one.each("x", lambda inner: inner.text("y")), [{"z": 1}]),
    ],
)
def test_a_wrong_type_is_an_error_that_names_the_place(read, value):
    with pytest.raises(InputError, match=r"^place"):
        read(Fields({"x": value}, "place"))


def test_members_are_read_by_their_types():
    value = {"t": True, "n": 3, "l": ["a"], "e": [{"y": "1"}, {}], "s": {}, "i": {"j": "k"}}
    with Fields(value, "place") as fields:
        fields.skip("s")
        assert (fields.truth("t"), fields.number("n", 0, 9), fields.texts("l")) == (True, 3, ("a",))
        assert fields.each("e", lambda inner: inner.text("y")) == ("1", None)
        with fields.inner("i") as inner:
            assert list(inner) == ["j"]
            assert inner.text("j") == "k"
    assert Fields({}, "place").number("n", 0, 9) is None
