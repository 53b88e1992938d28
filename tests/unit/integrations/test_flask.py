# SPDX-License-Identifier: Apache-2.0
import pytest
from flask import Flask, stream_with_context
from tests.support.enforcement_points import ask_wsgi, code_of

from everyhop.integrations.flask import Everyhop, caller, require, user


def application(guard, **options):
    app = Flask("orders")

    @app.get("/orders")
    @require("list")
    def orders():
        return f"{caller().service} {user()}"

    @app.post("/orders")
    @require("create")
    def create():
        raise AssertionError

    @app.get("/parts")
    def parts():
        def each():
            for _ in range(3):
                yield str(user())

        return stream_with_context(each())

    extension = Everyhop(guard=guard, **options)
    extension.init_app(app)
    return app


def test_views_know_caller_and_user(guard):
    app = application(guard)
    assert ask_wsgi(app, None, [], path="/orders", REQUEST_METHOD="GET") == (200, b"storefront alice")
    assert ask_wsgi(app, None, [], path="/parts", REQUEST_METHOD="GET") == (200, b"alice" * 3)
    assert caller() is None


def test_require_is_a_second_lock(guard):
    assert code_of(*ask_wsgi(application(guard), None, [], path="/orders")) == (403, "ACCESS_DENIED")


def test_the_test_client_goes_through_the_check_too(guard, refusal):
    app = application(guard)
    assert app.test_client().get("/orders").data == b"storefront alice"
    guard.refusal = refusal
    answer = app.test_client().get("/orders")
    assert (answer.status_code, answer.json["code"]) == (401, "TOKEN_EXPIRED")
    assert answer.content_type == "application/problem+json"


def test_once_is_enough(guard):
    with pytest.raises(RuntimeError, match="already"):
        Everyhop(application(guard), guard)


async def test_a_view_that_is_a_coroutine(guard):
    @require("create")
    async def view():
        raise AssertionError

    with pytest.raises(Exception, match="no verified call"):
        await view()
