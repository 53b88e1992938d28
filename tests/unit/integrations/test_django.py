# SPDX-License-Identifier: Apache-2.0
import asyncio
from types import ModuleType

import pytest
from tests.support.enforcement_points import DJANGO_GUARD, ask_asgi, ask_wsgi, code_of, configure_django

from everyhop.core.errors import SettingsError
from everyhop.sdk import current
from everyhop.sdk.model import Refusal


@pytest.fixture(autouse=True)
def views(guard):
    configure_django()
    from django.http import HttpResponse, StreamingHttpResponse
    from django.test import override_settings
    from django.urls import path

    from everyhop.integrations.django import caller, require, user

    @require("list")
    def orders(request):
        return HttpResponse(f"{caller().service} {user()}")

    @require("list")
    async def async_orders(request):
        await asyncio.sleep(0)
        return HttpResponse(f"{caller().service} {user()}")

    @require("create")
    def create(request):
        raise AssertionError

    def body(request):
        return HttpResponse(request.body)

    def parts(request):
        return StreamingHttpResponse(str(user()) for _ in range(3))

    def async_parts(request):
        async def each():
            for _ in range(3):
                yield str(user())

        return StreamingHttpResponse(each())

    urls = ModuleType("urls_of_this_test")
    urls.urlpatterns = [
        path("orders", orders),
        path("async", async_orders),
        path("create", create),
        path("body", body),
        path("parts", parts),
        path("async_parts", async_parts),
    ]
    DJANGO_GUARD.guard = guard
    with override_settings(ROOT_URLCONF=urls):
        yield


def by_wsgi(path, **more):
    from django.core.handlers.wsgi import WSGIHandler

    return ask_wsgi(WSGIHandler(), None, [], path=path, **more)


def by_asgi(path, **more):
    from django.core.handlers.asgi import ASGIHandler

    return asyncio.run(ask_asgi(ASGIHandler(), None, [], path=path, **more))


both = pytest.mark.parametrize("ask", [by_wsgi, by_asgi])


@both
@pytest.mark.parametrize("path", ["/orders", "/async"])
def test_views_know_caller_and_user(ask, path):
    assert ask(path) == (200, b"storefront alice")
    assert current() is None


@both
def test_require_is_a_second_lock(ask):
    assert code_of(*ask("/create")) == (403, "ACCESS_DENIED")


@both
def test_a_refused_request_reaches_no_view(ask, guard, refusal):
    guard.refusal = refusal
    assert code_of(*ask("/create")) == (401, "TOKEN_EXPIRED")
    assert code_of(*ask("/nowhere")) == (401, "TOKEN_EXPIRED")


@both
def test_a_body_is_checked_and_read_again(ask, guard):
    guard.checks_body = True
    assert ask("/body", body=b"{}") == (200, b"{}")
    assert guard.bodies[-1][1] == b"{}"
    guard.body_refusal = Refusal(422, "BODY_INVALID", "no")
    assert code_of(*ask("/body", body=b"{}")) == (422, "BODY_INVALID")
    assert code_of(*ask("/body", body=b"x" * 101)) == (413, "BODY_TOO_LARGE")


@both
def test_djangos_own_limit_is_a_limit(ask, guard):
    from django.test import override_settings

    guard.checks_body = True
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=5):
        assert code_of(*ask("/body", body=b"x" * 50)) == (413, "BODY_TOO_LARGE")


def test_parts_made_late_know_their_call():
    assert by_wsgi("/parts") == (200, b"alice" * 3)
    assert by_asgi("/async_parts") == (200, b"alice" * 3)
    assert current() is None


def test_settings(guard):
    from django.test import override_settings

    from everyhop.integrations.django import EveryhopMiddleware

    def respond(request):
        raise AssertionError

    with override_settings(EVERYHOP={"GAURD": guard}), pytest.raises(SettingsError, match="GAURD"):
        EveryhopMiddleware(respond)
    for given in (guard, lambda: guard, f"{__name__}.NAMED"):
        with override_settings(EVERYHOP={"GUARD": given, "PREFIX": "/api", "SIDECAR_SOCKET": "/tmp/x"}):
            assert EveryhopMiddleware(respond)._shield.is_ready
    with override_settings(EVERYHOP={}):
        assert not EveryhopMiddleware(respond)._shield.is_ready


class Named:
    def check(self, request):
        raise AssertionError


NAMED = Named()
