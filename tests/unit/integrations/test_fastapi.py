# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest
from fastapi import BackgroundTasks, FastAPI
from pydantic import BaseModel
from tests.support.enforcement_points import ask_asgi, code_of

from everyhop.integrations.fastapi import Caller, MaybeUser, User, protect, require
from everyhop.sdk import caller


class Order(BaseModel):
    amount: int


def application(guard=None):
    app = FastAPI()
    app.late = []

    @app.get("/orders", dependencies=[require("list")])
    def orders(caller: Caller, user: User):
        return f"{caller.service} {user}"

    @app.get("/async")
    async def in_a_task(user: MaybeUser):
        return str(user)

    @app.post("/orders", dependencies=[require("create", "import")])
    def create(order: Order):
        return order.amount

    @app.get("/late")
    def later(tasks: BackgroundTasks):
        tasks.add_task(lambda: app.late.append(str(caller())))
        return "ok"

    if guard is not None:
        protect(app, guard)
    return app


def ask(app, path, **more):
    return asyncio.run(ask_asgi(app, None, more.pop("headers", []), path=path, **more))


def test_caller_and_user_are_parameters(guard):
    assert ask(application(guard), "/orders", method="GET") == (200, b'"storefront alice"')
    assert ask(application(guard), "/async", method="GET") == (200, b'"alice"')


def test_require_is_a_second_lock(guard):
    headers = [("content-type", "application/json")]
    status, body = ask(application(guard), "/orders", body=b'{"amount":1}', headers=headers)
    assert code_of(status, body) == (403, "ACCESS_DENIED")


def test_a_user_that_is_not_there_is_401(guard):
    from dataclasses import replace

    check = guard.check
    guard.check = lambda request: replace(check(request), user=None)
    assert code_of(*ask(application(guard), "/orders", method="GET")) == (401, "USER_REQUIRED")
    assert ask(application(guard), "/async", method="GET") == (200, b'"None"')


def test_a_refused_body_was_never_parsed(guard, refusal):
    guard.refusal = refusal
    headers = [("content-type", "application/json")]
    assert code_of(*ask(application(guard), "/orders", body=b"{", headers=headers)) == (401, "TOKEN_EXPIRED")


def test_background_tasks_know_the_call(guard):
    app = application(guard)
    assert ask(app, "/late", method="GET")[0] == 200
    assert app.late == ["spiffe://shop.example/service/storefront"]
    assert caller() is None


def test_without_protect_a_dependency_lets_nobody_in():
    with pytest.raises(Exception, match="protect"):
        ask(application(), "/orders", method="GET")


def test_the_document_says_what_is_protected(guard):
    document = application(guard).openapi()
    assert document["components"]["securitySchemes"] == {
        "everyhop": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "An access token of the trust domain, bound to the caller's certificate (mutual TLS).",
        }
    }
    assert document["paths"]["/orders"]["get"]["security"] == [{"everyhop": []}]
    assert document["paths"]["/orders"]["post"]["security"] == [{"everyhop": []}]
    assert "parameters" not in document["paths"]["/orders"]["get"]
    assert "security" not in document["paths"]["/late"]["get"]
