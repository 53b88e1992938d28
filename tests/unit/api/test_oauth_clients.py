# SPDX-License-Identifier: Apache-2.0
"""Who asks: the header that only the face can set, and everything that it must not be mistaken for."""

from datetime import UTC, datetime, timedelta

import pytest
from starlette.requests import Request
from tests.support.identity import FakeClock

from everyhop.api.oauth_clients import JWT_SPIFFE, Clients, certificate_of
from everyhop.api.oauth_discovery import Endpoints
from everyhop.api.oauth_endpoints import _as_refusal
from everyhop.api.oauth_errors import OAuthRefusal, error_response
from everyhop.api.oauth_refusals import STRANGERS_AT_ONCE, RefusalLog
from everyhop.core.errors import SvidError
from everyhop.issuing import GrantRefused, OAuthError
from everyhop.tokens.replay import MemoryReplayGuard

STOREFRONT = "spiffe://shop.example/service/storefront"
DIGEST = "ab" * 32
GOOD = f"By=spiffe://shop.example/everyhop/server;Hash={DIGEST};URI={STOREFRONT}"


def request_with(*headers):
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    return Request(
        {"type": "http", "method": "POST", "path": "/oauth/token", "query_string": b"", "headers": raw}
    )


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        f"{GOOD},{GOOD}",
        f"{GOOD};URI=spiffe://shop.example/service/orders",
        f"By=spiffe://shop.example/everyhop/server;Hash={DIGEST}",
        f"By=spiffe://shop.example/everyhop/server;Hash={DIGEST};URI=",
        f"Hash={DIGEST};URI={STOREFRONT}",
        f"URI={STOREFRONT};Hash={DIGEST};By=x",
        GOOD.replace(DIGEST, DIGEST[:-1]),
        GOOD.replace(DIGEST, DIGEST.upper()),
        GOOD.replace(DIGEST, DIGEST + "00"),
        GOOD + ";DNS=localhost",
        GOOD.replace("URI=", 'URI="') + '"',
        GOOD + "\n",
        " " + GOOD,
        GOOD.replace("storefront", "store%66ront"),
    ],
)
def test_headers_that_are_no_certificate(value):
    with pytest.raises(OAuthRefusal) as caught:
        certificate_of(request_with(("x-forwarded-client-cert", value)))
    assert caught.value.error == "invalid_client"


def test_two_headers_are_no_certificate():
    with pytest.raises(OAuthRefusal):
        certificate_of(request_with(("x-forwarded-client-cert", GOOD), ("x-forwarded-client-cert", GOOD)))


def test_a_certificate_is_read():
    found = certificate_of(request_with(("x-forwarded-client-cert", GOOD)))
    assert found.spiffe_id == STOREFRONT
    assert found.x5t == "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s"
    assert certificate_of(request_with()) is None


class Registry:
    def service_of(self, spiffe_id):
        return "storefront" if spiffe_id == STOREFRONT else None

    def svid_subject(self, token, *, audiences, now):
        if token != "good":
            raise SvidError("JWT-SVID 3.3: the token has expired")
        return STOREFRONT


def clients():
    clock = FakeClock()
    return Clients(
        registry=Registry(), clock=clock, replay=MemoryReplayGuard(clock), audiences=frozenset({"https://i"})
    )


def test_the_reason_of_a_refusal_stays_inside():
    with pytest.raises(OAuthRefusal) as caught:
        clients().authenticate(
            request_with(), {"client_assertion_type": JWT_SPIFFE, "client_assertion": "bad"}
        )
    assert caught.value.message == "JWT-SVID 3.3: the token has expired"
    assert b"expired" not in error_response(caught.value).body


def test_an_asserted_client_has_no_certificate():
    form = {"client_assertion_type": JWT_SPIFFE, "client_assertion": "good"}
    client = clients().authenticate(request_with(("x-everyhop-source", "192.0.2.1")), form)
    assert (client.spiffe_id, client.service, client.x5t) == (STOREFRONT, "storefront", None)
    assert client.source == "192.0.2.1"


# --- refusals


@pytest.mark.parametrize("error", list(OAuthError))
def test_every_refusal_of_the_token_service_has_a_standard_s_code(error):
    refusal = _as_refusal(GrantRefused(error, 'no "such" thing \\ \x00 é', hint="ask", retry_after=7))
    assert refusal.error != "access_denied"
    assert refusal.description == "no ?such? thing ? ? ?; ask"
    assert refusal.headers == {"retry-after": "7"}
    assert refusal.status == {"invalid_client": 401, "temporarily_unavailable": 429}.get(refusal.error, 400)


class Journal:
    def __init__(self):
        self.events = []

    def noted(self, event):
        self.events.append(("later", event))

    def refused(self, event):
        self.events.append(("now", event))


def test_strangers_are_recorded_up_to_a_rate():
    journal, clock = Journal(), FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
    log = RefusalLog(journal, clock)

    def refuse(caller, times):
        for _ in range(times):
            log.note(caller=caller, error="invalid_client", reason="r", detail={})

    refuse(None, 1000)
    assert len(journal.events) == STRANGERS_AT_ONCE
    assert {when for when, _ in journal.events} == {"later"}
    refuse(STOREFRONT, 5)  # whoever is known is recorded, whatever strangers do
    assert [when for when, _ in journal.events[-5:]] == ["now"] * 5
    clock.advance(timedelta(seconds=2))
    refuse(None, 1000)
    assert len(journal.events) == STRANGERS_AT_ONCE + 5 + 10
    clock.advance(-timedelta(hours=1))  # a clock that was set back opens nothing
    refuse(None, 1)
    assert len(journal.events) == STRANGERS_AT_ONCE + 5 + 10


# --- where an issuer is


def test_an_issuer_with_a_path_is_found_by_both_standards():
    endpoints = Endpoints(issuer="https://auth.shop.example/mesh", local="https://127.0.0.1:1")
    assert endpoints.paths("/jwks") == ("/jwks", "/mesh/jwks")
    assert endpoints.well_known("/.well-known/x") == (
        "/.well-known/x",
        "/.well-known/x/mesh",
        "/mesh/.well-known/x",
    )
    assert endpoints.urls("/t") == {"https://auth.shop.example/mesh/t", "https://127.0.0.1:1/t"}
    plain = Endpoints(issuer="https://127.0.0.1:1", local="https://127.0.0.1:1")
    assert plain.paths("/jwks") == plain.well_known("/jwks") == ("/jwks",)
