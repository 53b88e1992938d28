# SPDX-License-Identifier: Apache-2.0
"""The form parser and the parameters read from it: each clause with what breaks it."""

import pytest
from hypothesis import given, strategies as st
from starlette.requests import Request

from everyhop.api.oauth_clients import Client
from everyhop.api.oauth_errors import OAuthRefusal
from everyhop.api.oauth_form import MAX_PARAMETERS, parse_form, read_form
from everyhop.api.oauth_requests import (
    api_key_request,
    exchange_request,
    mint_request,
    scope_of,
    target_of,
)

ORDERS = "spiffe://shop.example/service/orders"
CLIENT = Client(spiffe_id="spiffe://shop.example/service/storefront", service="storefront", x5t="x" * 43)
TXN = "urn:ietf:params:oauth:token-type:txn_token"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"


def service_of(spiffe_id):
    return "orders" if spiffe_id == ORDERS else None


def error_of(call, *arguments, **named):
    with pytest.raises(OAuthRefusal) as caught:
        call(*arguments, **named)
    assert caught.value.description.isascii()
    assert '"' not in caught.value.description
    assert "\\" not in caught.value.description
    return str(caught.value.error)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"grant_type=a&grant_type=b", "invalid_request"),  # RFC 6749 section 3.2
        (b"grant_type=a&grant%5ftype=a", "invalid_request"),  # the same name, spelt otherwise
        (b"grant_type=&grant_type=a", "invalid_request"),
        (b"audience=a&audience=b", "invalid_target"),  # RFC 8693 section 2.1: ours has one
        (b"resource=a&resource=a", "invalid_target"),
        (b"grant_type", "invalid_request"),
        (b"=a", "invalid_request"),
        (b"a=1&&b=2", "invalid_request"),
        (b"&a=1", "invalid_request"),
        (b"a=%", "invalid_request"),
        (b"a=%4", "invalid_request"),
        (b"a=%4x", "invalid_request"),
        (b"a=%ff", "invalid_request"),
        (b"a=%c0%af", "invalid_request"),  # an overlong slash
        (b"a=%ed%a0%80", "invalid_request"),  # half of a surrogate pair
        (b"a=%00", "invalid_request"),
        (b"a=%0a", "invalid_request"),
        (b"a=%7f", "invalid_request"),
        (b"a=%c2%85", "invalid_request"),
        (b"a=b c", "invalid_request"),
        (b"a=\xc3\xa9", "invalid_request"),
        (b"a=b=c", "invalid_request"),
        (b"{}", "invalid_request"),
        (b"&".join(b"p%d=1" % n for n in range(MAX_PARAMETERS + 1)), "invalid_request"),
    ],
)
def test_forms_that_are_refused(body, error):
    assert error_of(parse_form, body) == error


def test_forms_that_are_read():
    assert parse_form(b"") == {}
    assert parse_form(b"a=1&b=&c=x+y%20z%2B") == {"a": "1", "c": "x y z+"}
    assert parse_form(b"a=%c3%a9") == {"a": "é"}


@given(st.binary(max_size=200))
def test_any_bytes_give_a_form_or_a_refusal(body):
    try:
        form = parse_form(body)
    except OAuthRefusal:
        return
    assert all(form.values())


def request_with(headers, body=b"a=1", query=b""):
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": query, "headers": headers}
    return Request(scope, receive)


TYPE = (b"content-type", b"application/x-www-form-urlencoded")


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ([], b"", 400),
        ([TYPE, TYPE], b"", 400),
        ([(b"content-type", b"application/json")], b"", 400),
        ([(b"content-type", b"application/x-www-form-urlencodedx")], b"", 400),
        ([(b"content-type", b"application/x-www-form-urlencoded; charset=utf-16")], b"", 400),
        ([(b"content-type", b"multipart/form-data; boundary=x")], b"", 400),
        ([TYPE, (b"content-encoding", b"gzip")], b"", 400),
        ([TYPE], b"access_token=x", 400),
        ([TYPE], b"x", 400),
    ],
)
async def test_requests_that_are_refused(headers, query, status):
    with pytest.raises(OAuthRefusal) as caught:
        await read_form(request_with(headers, query=query))
    assert (str(caught.value.error), caught.value.status) == ("invalid_request", status)


async def test_a_large_body_is_refused_as_it_comes():
    with pytest.raises(OAuthRefusal) as caught:
        await read_form(request_with([TYPE], body=b"a=" + b"x" * 65536))
    assert caught.value.status == 413


@pytest.mark.parametrize(
    "value",
    [
        b"application/x-www-form-urlencoded;charset=UTF-8",
        b'Application/X-WWW-Form-Urlencoded; charset="utf-8"',
    ],
)
async def test_the_charset_may_be_named(value):
    assert await read_form(request_with([(b"content-type", value)])) == {"a": "1"}


@pytest.mark.parametrize("text", ["a  b", " a", "a ", 'a"b', "a\\b", "é", "a\tb"])
def test_scopes_that_are_none(text):
    assert error_of(scope_of, {"scope": text}) == "invalid_scope"


def test_a_scope_of_too_many_words():
    assert error_of(scope_of, {"scope": " ".join(f"s{n}" for n in range(257))}) == "invalid_scope"


@pytest.mark.parametrize(
    ("form", "target"),
    [
        ({}, (None, None)),
        ({"audience": "orders"}, ("orders", None)),
        ({"audience": "payments#charge"}, ("payments", "charge")),
        ({"audience": ORDERS}, ("orders", None)),
        ({"audience": ORDERS + "#list"}, ("orders", "list")),
        ({"resource": ORDERS}, ("orders", None)),
        ({"resource": "orders", "audience": "orders"}, ("orders", None)),
        ({"resource": ORDERS, "audience": "orders"}, ("orders", None)),
        ({"audience": "spiffe://other/x"}, ("spiffe://other/x", None)),
    ],
)
def test_audiences(form, target):
    assert target_of(form, service_of) == target


@pytest.mark.parametrize(
    "form",
    [
        {"audience": "orders", "resource": "payments"},
        {"audience": "orders#list", "resource": "orders"},
        {"resource": ORDERS + "#list"},
        {"audience": "orders#"},
        {"audience": "x" * 3000},
    ],
)
def test_audiences_that_are_refused(form):
    assert error_of(target_of, form, service_of) == "invalid_target"


def test_the_scope_may_tell_the_service():
    assert mint_request({"scope": "orders.list orders.read"}, CLIENT, service_of).target == "orders"
    assert (
        error_of(mint_request, {"scope": "orders.list payments.charge"}, CLIENT, service_of)
        == "invalid_target"
    )
    assert error_of(mint_request, {"scope": "list"}, CLIENT, service_of) == "invalid_target"
    assert error_of(mint_request, {}, CLIENT, service_of) == "invalid_target"


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "invalid_request"),
        ({"subject_token": "x"}, "invalid_request"),
        ({"subject_token_type": ACCESS}, "invalid_request"),
        (
            {
                "subject_token": "x",
                "subject_token_type": TXN,
                "requested_token_type": TXN,
                "audience": "orders",
            },
            "invalid_target",
        ),
        (
            {
                "subject_token": "x",
                "subject_token_type": TXN,
                "requested_token_type": TXN,
                "resource": ORDERS,
            },
            "invalid_target",
        ),
        ({"subject_token": "x", "subject_token_type": TXN, "source": "localhost"}, "invalid_request"),
        ({"subject_token": "x", "subject_token_type": TXN, "roles": "a  b"}, "invalid_scope"),
    ],
)
def test_exchanges_that_are_refused(form, error):
    assert error_of(exchange_request, form, CLIENT, service_of, trust_domain="shop.example") == error


def test_an_exchange_is_read():
    form = {
        "subject_token": "t",
        "subject_token_type": TXN,
        "requested_token_type": TXN,
        "audience": "shop.example",
        "scope": "a b",
        "roles": "clerk",
        "source": "2001:DB8::1",
    }
    read = exchange_request(form, CLIENT, service_of, trust_domain="shop.example")
    assert (read.target, read.scope, read.roles) == (None, {"a", "b"}, {"clerk"})
    assert read.source == "2001:db8::1"
    assert (read.caller, read.x5t) == (CLIENT.spiffe_id, CLIENT.x5t)
    assert "subject_token='t'" not in repr(read)


def test_an_api_key_is_read():
    assert error_of(api_key_request, {}, CLIENT, trust_domain="shop.example") == "invalid_request"
    assert (
        error_of(api_key_request, {"api_key": "k", "audience": "orders"}, CLIENT, trust_domain="shop.example")
        == "invalid_target"
    )
    read = api_key_request({"api_key": "k"}, CLIENT, trust_domain="shop.example")
    assert (read.subject_token, read.requested_token_type) == ("k", TXN)
