# SPDX-License-Identifier: Apache-2.0
"""A stored snapshot is believed only where it means what its hash names."""

from __future__ import annotations

import hashlib
import json

import pytest

from everyhop.core.errors import InputError
from everyhop.core.problems import Span
from everyhop.policy import codec, decode_snapshot, encode_snapshot, parse_policy

TEXT = b"""\
version: 1
trust_domain: shop.example
services:
  shop: {workload: [{run: true}]}
  orders: {operations: {list: GET /orders}, probes: [GET /up]}
  ledger: {tcp: 5432}
allow:
  - {from: shop, to: orders, operations: all, id: front}
  - {from: shop, to: ledger}
deny: [{from: any, to: orders}]
tests: [{from: shop, to: orders, call: GET /orders, expect: deny}]
"""


@pytest.fixture
def encoded() -> bytes:
    return encode_snapshot(parse_policy({"shop.yaml": TEXT}))


def test_a_snapshot_of_another_content_is_refused(encoded):
    with pytest.raises(InputError, match="does not match its hash"):
        decode_snapshot(encoded.replace(b"GET /orders", b"PUT /orders"))


def test_a_snapshot_of_another_hash_is_refused(encoded):
    with pytest.raises(InputError, match="does not match its hash"):
        decode_snapshot(encoded.replace(b'"hash":"', b'"hash":"0'))


def forged(policy: bytes) -> bytes:
    """A snapshot whose hash fits its content, as anyone can make one."""
    digest = hashlib.sha256(policy).hexdigest().encode()
    return b'{"format":1,"hash":"%b","policy":%b,"spans":{}}' % (digest, policy)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (b'{"version":1}', "no valid policy"),
        (b'{"trust_domain":"a","services":{"b":{}},"version":1}', "not in canonical form"),
        (
            b'{"services":{"b":{"identity":"/service/b"}},"trust_domain":"a", "version":1}',
            "not in canonical form",
        ),
        (
            b'{"services":{"b":{}},"services":{"b":{}},"trust_domain":"a","version":1}',
            "not in canonical form",
        ),
        (b'{"services":{"b":null},"trust_domain":"a","version":1}', "only text, numbers"),
        (b'{"services":{"b":{"tcp":1.5}},"trust_domain":"a","version":1}', "only text, numbers"),
        (
            b'{"services":{"b":{"workload":[{"run":false}]}},"trust_domain":"a","version":1}',
            "no valid policy",
        ),
        (b"[" * 100_000, "not a snapshot"),
        (b"[" * 900 + b"]" * 900, "not a snapshot|no valid policy"),
        (b"nothing", "not a snapshot"),
    ],
)
def test_a_fitting_hash_alone_is_not_enough(policy, message):
    with pytest.raises(InputError, match=message):
        decode_snapshot(forged(policy))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a snapshot"),
        (b"[]", "not a snapshot"),
        (b'{"format":1}', "not a snapshot"),
        (b'{"format":2,"hash":"","policy":{}}', "format 2 is not known"),
        (b'{"format":1,"hash":"","policy":{},"more":1}', "not a snapshot"),
        (b'{"format":1,"hash":"","policy":{},"spans":{"a":[1,2,3]}}', "not a snapshot"),
    ],
)
def test_other_envelopes_are_refused(data, message):
    with pytest.raises(InputError, match=message):
        decode_snapshot(data)


def test_the_limit_on_size(monkeypatch, encoded):
    monkeypatch.setattr(codec, "MAX_ENCODED_BYTES", 100)
    with pytest.raises(InputError, match="at most 100 bytes"):
        decode_snapshot(encoded)


def test_nothing_is_lost(encoded):
    snapshot = parse_policy({"shop.yaml": TEXT})
    decoded = decode_snapshot(encoded)
    assert decoded == snapshot
    assert encode_snapshot(decoded) == encoded
    assert decoded.services["orders"].operations[0].span == Span(file="shop.yaml", line=5, column=25)
    assert [rule.span for rule in decoded.rules] == [rule.span for rule in snapshot.rules]
    assert decoded.tests[0].span == snapshot.tests[0].span


def test_positions_can_be_absent(encoded):
    decoded = decode_snapshot(
        json.dumps({**json.loads(encoded), "spans": {}}, separators=(",", ":")).encode()
    )
    assert decoded == parse_policy({"shop.yaml": TEXT})
    assert decoded.rules[0].span == Span(file="snapshot", line=1, column=1)


def test_the_canonical_form_is_stable():
    """A change here changes the hash of every policy in the field: it needs an ADR and a new version."""
    assert parse_policy({"shop.yaml": TEXT}).canonical == (
        b'{"allow":[{"from":["shop"],"id":"front","operations":"all","to":["orders"]},{"from":["shop"],"to":["ledger"]}],'
        b'"deny":[{"from":"any","to":["orders"]}],"services":{"ledger":{"identity":"/service/ledger","tcp":5432},'
        b'"orders":{"identity":"/service/orders","operations":{"list":"GET /orders"},"probes":["GET /up"]},'
        b'"shop":{"identity":"/service/shop","workload":[{"run":true}]}},'
        b'"tests":[{"call":"GET /orders","expect":"deny","from":"shop","to":"orders"}],'
        b'"trust_domain":"shop.example","version":1}'
    )
