# SPDX-License-Identifier: Apache-2.0
"""What may be a credential in a refused request."""

from __future__ import annotations

import base64

import pytest

from everyhop.api.refused_texts import MAX_VALUES, authorization_texts, form_texts


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("Bearer abc", ["abc", "Bearer abc"]),
        ("bearer   abc ", ["abc", "bearer   abc"]),
        ("DPoP abc", ["abc", "DPoP abc"]),
        ("abc", ["abc"]),
        ("Bearer a b", ["a b", "Bearer a b"]),
        ("token abc", ["abc", "token abc"]),
        (basic("user:p:w"), [basic("user:p:w")[6:], basic("user:p:w"), "p:w", "user"]),
        (basic(":pw"), [basic(":pw")[6:], basic(":pw"), "pw"]),
        ("Basic %%%", ["%%%", "Basic %%%"]),
        ("Basic " + base64.b64encode(b"\xff\xfe").decode(), ["//4=", "Basic //4="]),
    ],
)
def test_authorization(value, texts):
    assert list(authorization_texts([value])) == texts


def test_only_so_many_values_are_looked_at():
    assert len(list(authorization_texts(["x"] * 100))) == MAX_VALUES


def test_forms():
    form = {"grant_type": "x", "client_secret": "a", "token": "b", "scope": "c", "subject_token": "d"}
    assert sorted(form_texts(form)) == ["a", "b", "d"]
