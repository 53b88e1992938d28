# SPDX-License-Identifier: Apache-2.0
"""The facts of a call as text: what is refused, and that they come back as they were."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from everyhop.core.errors import InputError
from everyhop.policy import parse_policy
from everyhop.policy.facts import Context, Resource, User
from everyhop.policy.facts_text import facts_document, parse_facts

SNAPSHOT = parse_policy(
    {
        "p": b"""\
version: 1
trust_domain: shop.example
attributes:
  user: {clearance: int, tags: strings}
  device: {managed: bool}
  resource: {owner: string}
  request: {headers: [x-region]}
roles: {viewer: [a.x]}
services: {a: {operations: {x: GET /x}}}
"""
    }
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("[]", "expected a mapping"),
        ("{", "facts"),
        ("user", "expected a mapping"),
        ('{"usr": {}}', "did you mean 'user'"),
        ('{"user": {"clearance": "high"}}', "clearance"),
        ('{"user": {"rank": 1}}', "rank"),
        ('{"headers": {"x-other": "1"}}', "x-other"),
        ('{"source_ip": "10.0.0.300"}', "no IP address"),
        ('{"at": "yesterday"}', "at"),
        ('{"device": {"managed": "yes"}}', "managed"),
        ('{"user": {}, "user": {}}', "user"),
        ('{"from": "a"}', "from"),
        ("\x00", "facts"),
        ("\ud800", "facts"),
    ],
)
def test_what_is_wrong_is_refused(text, words):
    with pytest.raises(InputError) as caught:
        parse_facts(text, SNAPSHOT)
    assert words in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    "context",
    [
        Context(),
        Context(
            now=datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC),
            user=User(
                id="alice",
                issuer="https://login.example",
                roles=("viewer", "of-nobody"),
                amr=("pwd", "mfa"),
                acr="high",
                auth_time=datetime(2026, 1, 1, tzinfo=UTC),
                attributes={"clearance": -3, "tags": ("a", "b")},
            ),
            device={"managed": False},
            headers={"x-region": ("eu", "us")},
            source_ip="2001:db8::1",
            resource=Resource(type="order", id="7", attributes={"owner": "\u00e9\u2028'\""}),
        ),
    ],
)
def test_facts_come_back_as_they_were(context):
    assert parse_facts(json.dumps(facts_document(context)), SNAPSHOT) == context
