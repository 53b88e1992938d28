# SPDX-License-Identifier: Apache-2.0
"""Which fields have one reading, and which no application may see."""

import pytest

from everyhop.dataplane.http import STRIPPED_HEADERS, STRIPPED_PREFIXES
from everyhop.sdk.headers import HIDDEN, HIDDEN_PREFIXES, Headers, is_hidden


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x_everyhop_caller", b"root")],
        [(b"any_thing", b"x")],
        [(b"a", b"b\x00c")],
        [(b"a", b"b\r\nx-everyhop-caller: root")],
        [(b"host", b"orders"), (b"Host", b"orders")],
        [(b"host", b"orders, evil")],
        [(b"host", b"orders/admin")],
        [(b"host", b"orders?")],
        [(b"host", b"me@orders")],
        [(b"host", b"orders\\evil")],
        [(b"content-length", b"1"), (b"content-length", b"2")],
        [(b"content-length", b"1, 1")],
        [(b"content-length", b"+1")],
        [(b"content-length", b"")],
        [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")],
    ],
)
def test_more_than_one_reading(headers):
    assert Headers(headers).flaw is not None


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"host", b"orders.example:443"), (b"content-length", b"12"), (b"a", b"\xff")],
        [(b"host", b"[::1]:80")],
        [(b"host", b"")],
        [(b"content-length", b"1"), (b"content-length", b"1")],
        [(b"transfer-encoding", b"chunked")],
    ],
)
def test_one_reading(headers):
    assert Headers(headers).flaw is None


def test_the_same_fields_are_hidden_as_at_a_sidecars_ingress():
    assert [prefix.decode() for prefix in HIDDEN_PREFIXES] == list(STRIPPED_PREFIXES)
    assert {name.decode() for name in HIDDEN} == set(STRIPPED_HEADERS)
    assert is_hidden(b"X-Everyhop-Anything")
    assert is_hidden(b"FORWARDED")
    assert not is_hidden(b"x-request-id")


def test_a_websocket_is_asked_for_in_any_of_the_fields():
    assert Headers([(b"upgrade", b"h2c"), (b"Upgrade", b"WebSocket")]).asks_for_websocket
    assert not Headers([(b"upgrade", b"h2c")]).asks_for_websocket
