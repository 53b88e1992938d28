# SPDX-License-Identifier: Apache-2.0
"""Credentials never stay in a record; ids that a record needs always do."""

import secrets
import time
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st
from tests.records import records

from everyhop.apikeys.format import make_key
from everyhop.auditlog import Kind, Point, Record
from everyhop.auditlog.redaction import redact, redact_text


class Real:
    def token_bytes(self, count):
        return secrets.token_bytes(count)

    def fraction(self):
        return 0.5


JWT = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLW9mLWl0"
PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIBfE\nAwEHoUQDQgAE\n-----END EC PRIVATE KEY-----"
API_KEY = make_key("live", "svc", Real()).secret.reveal().decode()
SECRETS = [
    # text, what must be gone, whether it is a path
    (f"Authorization: Bearer {JWT}", JWT, False),
    ("authorization=Bearer abcdefgh12345678", "abcdefgh12345678", False),
    ("bearer%20abcdefgh12345678", "abcdefgh12345678", False),
    ("BEARER Bearer abcdefgh12345678", "abcdefgh12345678", False),
    ("Basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA", False),
    ("DPoP mF_9.B5f-4.1JqM", "mF_9.B5f-4.1JqM", False),
    (f"the token {JWT} was refused", JWT, False),
    (f"({JWT[:70]})", JWT[36:60], False),
    (f"/reset/{JWT}", JWT, True),
    (f"{API_KEY} is not known", API_KEY[14:], False),
    (f"/keys/{API_KEY}", API_KEY[14:], True),
    (API_KEY[:50], API_KEY[20:50], False),  # cut off
    (f"{PEM} and more", "MHcCAQEEIBfE", False),
    (PEM[:60], "MHcCAQEEIBfE", False),  # no end
    ("password=hunter2&next=1", "hunter2", False),
    ("?Client_Secret=s3cr3t", "s3cr3t", False),
    ("api-key%3Dabc123", "abc123", False),
    ('{"password": "hunter2"}', "hunter2", False),
    ("refresh_token=8xLOxBtZp8;", "8xLOxBtZp8", False),
    ("Cookie: session=abc; theme=dark", "abc; theme", False),
    ("set-cookie: id=42", "42", False),
    ("https://alice:hunter2@db.example/x", "hunter2", False),
    ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN7", False),
    ("ghp_" + "a1B2" * 9, "a1B2a1B2", False),
    ("xoxb-123456789012-abcdef", "123456789012", False),
    ("/s/Xy7kQ2mZ9pLr4TvB8nWc3JdF", "Xy7kQ2mZ9pLr4TvB8nWc3JdF", True),
    ("/s/k7q2m9z4p8l3t6v1b5n0w7c2j4d9f3g8", "k7q2m9z4p8l3", True),
]
HARMLESS = [
    "spiffe://shop.example/service/orders",
    "spiffe://shop.example/ns/default/sa/token-service",
    str(uuid.UUID(int=0x3F0C9C1E11114222833344445555666)),
    "3f0c9c1e-1111-4222-8333-444455556666",
    "/v1/orders/3f0c9c1e-1111-4222-8333-444455556666/items",
    "ab12" * 16,
    "/snapshots/" + "ab12" * 16,
    "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
    "/traces/4bf92f3577b34da6a3ce929d0e0e4736",
    "/orders/1234567890123456789012345",
    "/objects/507f1f77bcf86cd799439011507f1f77",
    "/api/GetOrderItemsForCustomerById2",
    "/articles/how-we-moved-our-billing-service-to-2026",
    "/shop.v1.OrdersService/WatchAllOrdersOfCustomer",
    "/v1/tokens/introspect",
    "/cookies/policy",
    "/password/reset",
    "basic authentication is off",
    "a bearer token was expected",
    "the bearer token-exchange is refused",
    "TOKEN_EXPIRED",
    "allow[12]",
    "key rotated",
    "user.session_age < 3600 is false",
    "session is over",
    "~user.abcdefghijklmnopqrstuvwx23",
    "user:~user.abcdefghijklmnopqrstuvwx23",
    "uid:1000",
    "apikey:aB3dE6gH",
    "203.0.113.7:443",
    "via_upstream",
    "2026-01-31T09:00:00.000000Z",
    "alice@example.com",
]


@pytest.mark.parametrize(("text", "secret", "is_path"), SECRETS, ids=map(str, range(len(SECRETS))))
def test_a_secret_goes_and_its_length_stays(text, secret, is_path):
    assert secret in text
    clean = redact_text(text, is_path=is_path)
    assert secret not in clean
    assert "[redacted:" in clean
    assert redact_text(clean, is_path=is_path) == clean


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_harmless_stays(text):
    assert redact_text(text, is_path=True) == text


@pytest.mark.parametrize(("text", "secret", "is_path"), SECRETS, ids=map(str, range(len(SECRETS))))
def test_wherever_it_stands_in_a_record(text, secret, is_path):
    found = redact(
        Record(
            id="r",
            seq=1,
            producer="p",
            time=datetime(2026, 7, 1, tzinfo=UTC),
            kind=Kind.DECISION,
            point=Point.INGRESS,
            **{name: text for name in ("caller", "target", "operation", "reason", "rule") if not is_path},
            path=text,
            detail={} if is_path else {"failure": text, text: "1"},
        )
    )
    assert secret not in repr(found)
    assert redact(found) == found


@pytest.mark.parametrize("name", ["password", "Authorization", "set-cookie", "client_secret", "id_token"])
def test_a_detail_that_is_named_for_a_secret_is_one(name):
    found = redact(_with({name: "plain"}))
    assert found.detail == {name: "[redacted:value:5]"}
    assert redact(found) == found


@pytest.mark.parametrize("name", ["user", "jti", "api_key", "code", "scope", "txn", "subject_token_type"])
def test_other_details_keep_ids_that_look_random(name):
    record = _with({name: "Xy7kQ2mZ9pLr4TvB8nWc3JdF"})
    assert redact(record) is record


def test_a_path_loses_its_query():
    record = Record(
        id="r",
        seq=1,
        producer="p",
        time=datetime(2026, 7, 1, tzinfo=UTC),
        kind=Kind.DECISION,
        point=Point.INGRESS,
        path="/a?x=1",
    )
    assert redact(record).path == "/a"


def _with(detail):
    return Record(
        id="r",
        seq=1,
        producer="p",
        time=datetime(2026, 7, 1, tzinfo=UTC),
        kind=Kind.APPLICATION,
        point=Point.SDK,
        detail=detail,
    )


@given(record=records())
def test_twice_is_once(record):
    once = redact(record)
    assert redact(once) == once


_BITS = st.sampled_from(
    [
        *(text for text, _, _ in SECRETS),
        "Bearer ",
        "eyJ",
        "=",
        "password=",
        "[",
        "cookie:",
        " ",
        "\n",
        "eh_",
        "://",
        "@",
    ]
)


@given(st.lists(_BITS, max_size=8).map("".join), st.booleans())
def test_twice_is_once_for_pieces_of_secrets(text, is_path):
    once = redact_text(text, is_path=is_path)
    assert redact_text(once, is_path=is_path) == once


HOSTILE = [
    "eyJ" * 30_000,
    "eyJaaaaaa." * 10_000,
    "-----BEGIN A-----" * 6_000,
    "-----BEGIN A" * 9_000,
    "bearer " * 15_000,
    "bearer" + " " * 100_000,
    "basic" + "+" * 100_000,
    "password" * 12_000,
    "password=" * 12_000,
    "pass'" + " " * 90_000,
    "://" * 30_000,
    "://" + "a:" * 50_000,
    "://a:a" * 20_000 + "@",
    "cookie" * 15_000,
    "cookie:" * 15_000,
    "eh_a_a_" * 14_000,
    "eh_" + "a_" * 50_000,
    "aA0-" * 25_000,
    "a1" * 50_000,
    "_token" * 16_000,
    "access_" * 14_000,
    "xox" * 30_000,
    "ghp_" * 25_000,
    "AKIA" * 25_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:14])
def test_time_grows_with_the_text_alone(text):
    """Twice the text takes about twice the time; a pattern that tries again would take four times as long or for ever."""
    half = text[: len(text) // 2]
    short, long = _seconds(half), _seconds(text)
    assert long < max(3.2 * short, 0.25)


def _seconds(text):
    best = float("inf")
    for _ in range(2):
        begun = time.process_time()
        redact_text(text, is_path=True)
        best = min(best, time.process_time() - begun)
    return best
