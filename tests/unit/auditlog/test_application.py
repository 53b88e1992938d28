# SPDX-License-Identifier: Apache-2.0
"""Metadata of applications: few, plain, bounded, and no secrets."""

import math

import pytest
from hypothesis import given, strategies as st

from everyhop.auditlog.application import MAX_METADATA, MAX_METADATA_TEXT, bounded_metadata, plain

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlc2lnbmF0dXJl"


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "1a", "x" * 49, "é", "a=b", 'a"b', "a\u202eb"])
def test_names_that_are_left_out(name):
    assert bounded_metadata({name: 1, "kept": 2}) == ({"kept": 2}, 1)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 2**53 + 1, [1], {"a": 1}, (1,), None, b"x", object()]
)
def test_values_that_are_left_out(value):
    assert bounded_metadata({"x": value}) == ({}, 1)


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "userPassword",
        "new_passwd",
        "pwd",
        "client_secret",
        "accessToken",
        "token",
        "Authorization",
        "card_pin",
        "user.otp",
        "cookie",
        "api_key",
        "apikey",
        "x.api.key",
        "private-key",
        "credentials",
        "card.cvv",
        "otp",
        "pin",
    ],
)
@pytest.mark.parametrize("value", ["hunter2", 1234])
def test_names_that_say_secret(name, value):
    kept, _ = bounded_metadata({name: value})
    assert kept[name] == f"[redacted:value:{len(str(value))}]"


@pytest.mark.parametrize("text", [f"with {JWT}", "Bearer abcdef0123456789abcdef", "postgres://u:pw1234@db/x"])
def test_credentials_in_texts(text):
    kept, _ = bounded_metadata({"note": text})
    assert "[redacted:" in kept["note"]
    assert "signature" not in kept["note"]
    assert "pw1234" not in kept["note"]


def test_a_secret_that_poses_as_a_mark():
    kept, _ = bounded_metadata({"password": "[redacted:hunter2"})
    assert kept == {"password": "[redacted:value:17]"}


def test_names_that_only_look_so():
    kept, left_out = bounded_metadata({"pinned": True, "monkey": "x", "shipping": 3, "keyboard": "qwertz"})
    assert kept == {"pinned": True, "monkey": "x", "shipping": 3, "keyboard": "qwertz"}
    assert left_out == 0


def test_only_the_first_stay():
    kept, left_out = bounded_metadata({f"n{n}": n for n in range(40)})
    assert len(kept) == MAX_METADATA
    assert left_out == 40 - MAX_METADATA


def test_texts_are_cut_and_cleaned():
    kept, _ = bounded_metadata({"x": "a\nb\x1b\u202e" + "é" * 10_000})
    assert kept["x"].startswith("a\ufffdb\ufffd\ufffdé")
    assert len(kept["x"]) == MAX_METADATA_TEXT


def test_a_credential_over_the_cut_does_not_show_its_beginning():
    kept, _ = bounded_metadata({"x": "y" * (MAX_METADATA_TEXT - 20) + " " + JWT})
    assert "eyJ" not in kept["x"]


@given(
    st.dictionaries(
        st.text(max_size=60), st.one_of(st.text(max_size=400), st.integers(), st.floats(), st.booleans())
    )
)
def test_twice_is_once(given_metadata):
    kept, left_out = bounded_metadata(given_metadata)
    assert len(kept) + left_out == len(given_metadata)
    assert bounded_metadata(kept) == (kept, 0)
    assert all(len(v) <= MAX_METADATA_TEXT and v.isprintable() for v in kept.values() if isinstance(v, str))


def test_plain_is_bounded():
    assert plain("x" * 10**6, 10) == "x" * 9 + "…"
