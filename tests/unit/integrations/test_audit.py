# SPDX-License-Identifier: Apache-2.0
"""Audit events of real frameworks: actors that nobody can forge, outcomes, streams, WebSockets, demands."""

import asyncio
import io
import json

import httpx
import pytest
from fastapi import FastAPI, HTTPException, WebSocket
from flask import Flask, abort
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from tests.support.enforcement_points import configure_django
from tests.support.taken_events import FakeTaker

from everyhop.core.errors import InputError
from everyhop.integrations import asgi, wsgi
from everyhop.integrations._outlet import Outlet
from everyhop.integrations.audit import Audit, AuditMiddleware, WsgiAuditMiddleware, describe
from everyhop.sdk import serving
from everyhop.sdk.events import AuditEvent
from everyhop.sdk.model import Refusal

FRIEND = "spiffe://shop.example/service/storefront"
FORGED = {
    "x-forwarded-user": "mallory",
    "x-everyhop-caller": "spiffe://shop.example/service/payments",
    "x-forwarded-client-cert": "URI=spiffe://shop.example/service/payments",
    "authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJtYWxsb3J5In0.",
    "remote-user": "mallory",
    "cookie": "session=mallory",
}


@pytest.fixture
def taker():
    return FakeTaker()


@pytest.fixture
def audit(taker):
    return Audit(Outlet(taker), deadline_seconds=0.2)


def only(taker):
    (event,) = taker.events
    return event


def said(event):
    return json.dumps(event.to_dict(), default=str)


# -- events


def test_what_is_no_outcome(audit):
    with pytest.raises(InputError):
        audit.record("x", outcome="ok")


def test_nothing_that_a_caller_chooses_breaks_or_floods_an_event(audit, taker):
    audit.record(
        "a\nb" * 1000,
        resource=("t\x1b", "i" * 10_000),
        password="hunter2",
        note="x" * 10_000 + "\n",
        nested={"a": 1},
        **{"bad name": 1},
    )
    event = only(taker)
    assert len(event.action) <= 256
    assert len(event.resource_id) <= 256
    assert "\n" not in event.action
    metadata = dict(event.metadata)
    assert metadata["password"] == "[redacted:value:7]"
    assert len(metadata["note"]) == 256
    assert metadata["left_out"] == 2
    assert "hunter2" not in said(event)


def test_outside_of_a_call_there_is_no_actor(audit, taker):
    audit.record("job.run", resource="queue")
    event = only(taker)
    assert (event.caller, event.user, event.decision, event.resource_type) == (None, None, None, "queue")


def test_the_actor_is_the_verified_one(audit, taker, guard):
    with serving(guard.check(type("R", (), {"flaw": None})())):
        audit.record("invoice.void", resource=("invoice", 7), amount=3)
    event = only(taker)
    assert (event.caller, event.user, event.decision) == (FRIEND, "alice", "d-1")
    assert (event.resource_type, event.resource_id, event.metadata) == ("invoice", "7", (("amount", 3),))


# -- ASGI


def starlette_app():
    async def read(request):
        describe(resource=("order", request.path_params["id"]), size=3)
        return PlainTextResponse("ok")

    async def stream(_request):
        async def parts():
            yield b"a"
            yield b"b"

        return StreamingResponse(parts())

    async def breaks(_request):
        async def parts():
            yield b"a"
            raise ValueError("half way")

        return StreamingResponse(parts())

    async def fails(_request):
        raise ValueError("secret=hunter2")

    async def refuses(_request):
        return PlainTextResponse("no", 403)

    def in_thread(_request):
        describe("report.make", resource="report")
        return PlainTextResponse("ok")

    return Starlette(
        routes=[
            Route("/orders/{id}", read),
            Route("/stream", stream),
            Route("/breaks", breaks),
            Route("/fails", fails, methods=["POST"]),
            Route("/refuses", refuses),
            Route("/thread", in_thread),
        ]
    )


class Client:
    """A client of an ASGI application in this process."""

    def __init__(self, app, *, raises=False):
        self._app = app
        self._raises = raises

    def __call__(self, method, path, **more):
        async def ask():
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=self._raises)
            async with httpx.AsyncClient(transport=transport, base_url="http://orders") as opened:
                return await opened.request(method, path, **more)

        return asyncio.run(ask())

    def get(self, path, **more):
        return self("GET", path, **more)

    def post(self, path, **more):
        return self("POST", path, **more)

    def socket(self, path, *, can_deny=True):
        """Open a WebSocket, close it, and return what the application sent."""
        waiting, sent = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}], []
        extensions = {"websocket.http.response": {}} if can_deny else {}
        scope = {
            "type": "websocket", "path": path, "raw_path": path.encode(), "headers": [], "query_string": b"",
            "root_path": "", "scheme": "ws", "subprotocols": [], "extensions": extensions,
        }  # fmt: skip

        async def receive():
            return waiting.pop(0)

        async def send(message):
            sent.append(message)

        asyncio.run(self._app(scope, receive, send))
        return sent


def client(audit, app=None, *, guard=None, raises=False, **options):
    inner = AuditMiddleware(app or starlette_app(), audit, **options)
    outer = inner if guard is None else asgi.EveryhopMiddleware(inner, guard)
    return Client(outer, raises=raises)


@pytest.mark.parametrize("header", FORGED)
def test_no_header_makes_an_actor(audit, taker, header):
    assert client(audit).get("/orders/7", headers={header: FORGED[header]}).status_code == 200
    event = only(taker)
    assert (event.caller, event.user) == (None, None)
    assert "mallory" not in said(event)
    assert "payments" not in said(event)


def test_headers_do_not_replace_the_verified_actor(audit, taker, guard):
    assert client(audit, guard=guard).get("/orders/7", headers=FORGED).status_code == 200
    event = only(taker)
    assert (event.caller, event.user, event.action) == (FRIEND, "alice", "list")


def test_what_the_guard_refuses_never_comes_here(audit, taker, guard, refusal):
    guard.refusal = refusal
    assert client(audit, guard=guard).get("/orders/7").status_code == 401
    assert taker.events == []


def test_a_request(audit, taker):
    assert client(audit).get("/orders/secret-7?token=abc").text == "ok"
    event = only(taker)
    assert (event.action, event.route, event.method) == ("GET /orders/{id}", "/orders/{id}", "GET")
    assert (event.outcome, event.status) == ("success", 200)
    assert (event.resource_type, event.resource_id) == ("order", "secret-7")
    assert event.metadata == (("size", 3),)
    assert 0 <= event.duration_ms < 10_000
    assert "token=abc" not in said(event)


@pytest.mark.parametrize(
    ("path", "outcome", "status", "action"),
    [
        ("/refuses", "denied", 403, "GET /refuses"),
        ("/nowhere", "failure", 404, "GET"),
        ("/stream", "success", 200, "GET /stream"),
        ("/thread", "success", 200, "report.make"),
    ],
)
def test_outcomes(audit, taker, path, outcome, status, action):
    client(audit).get(path)
    event = only(taker)
    assert (event.outcome, event.status, event.action) == (outcome, status, action)


def test_an_exception_is_a_failure_and_passes_through(audit, taker):
    with pytest.raises(ValueError, match="hunter2"):
        client(audit, raises=True).post("/fails")
    event = only(taker)
    assert (event.outcome, event.status, dict(event.metadata)) == (
        "failure",
        500,
        {"exception": "ValueError"},
    )
    assert "hunter2" not in said(event)


def test_a_stream_that_breaks_is_a_failure(audit, taker):
    with pytest.raises(ValueError, match="half way"):
        client(audit, raises=True).get("/breaks")
    assert only(taker).outcome == "failure"


async def test_a_client_that_leaves_is_a_failure(audit, taker):
    async def endless(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await asyncio.Event().wait()

    async def send(_message):
        pass

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    task = asyncio.create_task(AuditMiddleware(endless, audit)(scope, None, send))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (only(taker).outcome, dict(only(taker).metadata)) == ("failure", {"exception": "CancelledError"})


async def test_an_answer_that_is_never_finished_is_a_failure(audit, taker):
    async def half(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(_message):
        pass

    await AuditMiddleware(half, audit)({"type": "http", "method": "GET", "path": "/"}, None, send)
    assert only(taker).outcome == "failure"


def test_reads_may_be_left_out(audit, taker):
    quiet = client(audit, reads=False, required=True)
    quiet.get("/orders/7")
    quiet("OPTIONS", "/orders/7")
    assert taker.events == []
    quiet.post("/refuses")
    assert len(taker.events) == 1


def test_lifespan_and_others_pass(audit, taker):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    asyncio.run(AuditMiddleware(app, audit, required=True)({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]
    assert taker.events == []


class Unspeakable:
    def __str__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "resource", [("a", "b", "c"), ("order", Unspeakable()), (), 7, ["order", 7], Unspeakable()]
)
def test_what_a_handler_says_wrongly_breaks_nothing(audit, taker, resource):
    def odd(_request):
        describe("order.read", resource=resource, nested=Unspeakable())
        return PlainTextResponse("ok")

    assert client(audit, Starlette(routes=[Route("/odd", odd)])).get("/odd").text == "ok"
    assert only(taker).outcome == "success"


def test_requests_do_not_mix(audit, taker):
    async def read(request):
        describe(resource=("order", request.path_params["id"]))
        await asyncio.sleep(0.01)
        return PlainTextResponse("ok")

    app = AuditMiddleware(Starlette(routes=[Route("/orders/{id}", read)]), audit)

    async def run():
        async def one(n):
            sent = []

            async def receive():
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message):
                sent.append(message)

            scope = {
                "type": "http", "method": "GET", "path": f"/orders/{n}", "headers": [], "query_string": b"", "root_path": "",
            }  # fmt: skip
            await app(scope, receive, send)

        await asyncio.gather(*(one(n) for n in range(20)))

    asyncio.run(run())
    assert sorted(int(e.resource_id) for e in taker.events) == list(range(20))


# -- FastAPI and WebSockets


def fastapi_app(audit):
    app = FastAPI()

    @app.post("/invoices/{number}/void")
    def void(number: int):
        describe("invoice.void", resource=("invoice", number))
        audit.record("invoice.mail", resource=("invoice", number), to="customer")
        return {}

    @app.post("/refused")
    async def refused():
        raise HTTPException(403)

    @app.websocket("/feed")
    async def feed(socket: WebSocket):
        await socket.accept()
        describe("feed.read")
        await socket.send_text("hello")
        await socket.close()

    @app.websocket("/broken")
    async def broken(socket: WebSocket):
        await socket.accept()
        raise ValueError("x")

    @app.websocket("/closed")
    async def closed(socket: WebSocket):
        await socket.close()

    return app


def test_fastapi(audit, taker):
    assert client(audit, fastapi_app(audit)).post("/invoices/7/void").status_code == 200
    mail, void = taker.events
    assert (mail.action, mail.resource_id, mail.metadata) == ("invoice.mail", "7", (("to", "customer"),))
    assert (void.action, void.route, void.outcome) == ("invoice.void", "/invoices/{number}/void", "success")


def test_fastapi_denies(audit, taker):
    assert client(audit, fastapi_app(audit)).post("/refused").status_code == 403
    assert only(taker).outcome == "denied"


def test_a_websocket_is_one_event(audit, taker):
    sent = client(audit, fastapi_app(audit)).socket("/feed")
    assert [message.get("text") for message in sent] == [None, "hello", None]
    event = only(taker)
    assert (event.action, event.outcome, event.status, event.method) == ("feed.read", "success", 101, "GET")


def test_a_websocket_that_breaks_is_a_failure(audit, taker):
    with pytest.raises(ValueError, match="x"):
        client(audit, fastapi_app(audit)).socket("/broken")
    assert only(taker).outcome == "failure"


def test_a_websocket_that_is_not_accepted_is_denied(audit, taker):
    client(audit, fastapi_app(audit)).socket("/closed")
    assert (only(taker).outcome, only(taker).status) == ("denied", 403)


# -- demands


@pytest.mark.parametrize("answer", ["refuse", "hang"])
def test_what_is_not_recorded_is_not_done(audit, taker, answer):
    taker.answer = answer
    ran = []

    async def effect(_request):
        ran.append(1)
        return PlainTextResponse("done")

    app = Starlette(routes=[Route("/pay", effect, methods=["POST"])])
    response = client(audit, app, required=True).post("/pay")
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "AUDIT_UNAVAILABLE"
    assert ran == []
    assert taker.events == []


def test_a_websocket_that_is_not_recorded_is_not_served(audit, taker):
    taker.answer = "refuse"
    start, body = client(audit, fastapi_app(audit), required=True).socket("/feed")
    assert start["status"] == 503
    assert json.loads(body["body"])["code"] == "AUDIT_UNAVAILABLE"
    (closed,) = client(audit, fastapi_app(audit), required=True).socket("/feed", can_deny=False)
    assert closed["type"] == "websocket.close"


def test_an_attempt_comes_first_and_the_outcome_after(audit, taker, guard):
    assert client(audit, guard=guard, required=True).get("/orders/7").status_code == 200
    (attempt,) = taker.demanded
    assert (attempt.outcome, attempt.action, attempt.caller) == ("attempt", "list", FRIEND)
    assert only(taker).outcome == "success"


def test_a_demand_inside_a_handler(audit, taker):
    taker.answer = "refuse"
    with pytest.raises(Refusal) as caught:
        audit.record("invoice.void", required=True)
    assert caught.value.status == 503
    with pytest.raises(Refusal):
        asyncio.run(audit.record_first("invoice.void"))
    taker.answer = "take"
    audit.record("invoice.void", required=True)
    asyncio.run(audit.record_first("invoice.void", resource=("invoice", 1)))
    assert [e.outcome for e in taker.demanded] == ["success", "attempt"]


# -- decorators


def test_a_decorated_function(audit, taker):
    @audit.audited("stock.count", resource="stock")
    def count(n):
        describe(counted=n)
        if n < 0:
            raise Refusal(403, "ACCESS_DENIED", "no")
        if n == 0:
            raise KeyError("x")
        return n

    with pytest.raises(Refusal):
        count(-1)
    with pytest.raises(KeyError):
        count(0)
    assert count(2) == 2
    assert [e.outcome for e in taker.events] == ["denied", "failure", "success"]
    assert [dict(e.metadata)["counted"] for e in taker.events] == [-1, 0, 2]
    assert {e.action for e in taker.events} == {"stock.count"}


async def test_a_decorated_coroutine_that_must_be_recorded(audit, taker):
    ran = []

    @audit.audited(required=True)
    async def pay():
        ran.append(1)
        return "paid"

    taker.answer = "refuse"
    with pytest.raises(Refusal):
        await pay()
    assert ran == []
    taker.answer = "take"
    assert await pay() == "paid"
    assert taker.demanded[0].action == "pay"
    assert only(taker).outcome == "success"


def test_a_decorated_view_that_must_be_recorded(audit, taker):
    @audit.audited(required=True)
    def pay():
        return "paid"

    taker.answer = "hang"
    with pytest.raises(Refusal):
        pay()
    taker.answer = "take"
    assert pay() == "paid"


# -- WSGI


def flask_app():
    app = Flask(__name__)

    @app.get("/orders/<number>")
    def read(number):
        describe(resource=("order", number))
        return "ok"

    @app.post("/refused")
    def refused():
        abort(403)

    @app.get("/fails")
    def fails():
        raise ValueError("x")

    @app.get("/stream")
    def stream():
        def parts():
            yield "a"
            describe("stream.end")
            yield "b"

        return app.response_class(parts())

    @app.get("/breaks")
    def breaks():
        def parts():
            yield "a"
            raise ValueError("half way")

        return app.response_class(parts())

    return app


def called(app, path, method="GET", *, read=True, **environ):
    """Call a WSGI application as a server does."""
    seen = {}

    def start_response(status, headers, exc_info=None):
        seen["status"] = int(status[:3])
        seen["headers"] = dict(headers)

    base = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": "", "SERVER_NAME": "x",
        "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http", "wsgi.version": (1, 0),
        "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO(), "wsgi.multithread": True,
        "wsgi.multiprocess": False, "wsgi.run_once": False,
    }  # fmt: skip
    answer = app(base | environ, start_response)
    try:
        seen["body"] = b"".join(answer) if read else next(iter(answer))
    finally:
        if hasattr(answer, "close"):
            answer.close()
    return seen


def test_flask_with_forged_headers(audit, taker):
    environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in FORGED.items()}
    seen = called(WsgiAuditMiddleware(flask_app(), audit), "/orders/7", **environ)
    assert (seen["status"], seen["body"]) == (200, b"ok")
    event = only(taker)
    assert (event.caller, event.user) == (None, None)
    assert "mallory" not in said(event)
    assert (event.action, event.route) == ("GET /orders/<number>", "/orders/<number>")
    assert (event.outcome, event.resource_id) == ("success", "7")


def test_flask_with_a_verified_actor(audit, taker, guard):
    app = wsgi.EveryhopMiddleware(WsgiAuditMiddleware(flask_app(), audit), guard)
    assert called(app, "/stream", RAW_URI="/stream")["body"] == b"ab"
    event = only(taker)
    assert (event.caller, event.user, event.action) == (FRIEND, "alice", "stream.end")


@pytest.mark.parametrize(
    ("method", "path", "outcome", "status"),
    [
        ("POST", "/refused", "denied", 403),
        ("GET", "/nowhere", "failure", 404),
        ("GET", "/fails", "failure", 500),
    ],
)
def test_flask_outcomes(audit, taker, method, path, outcome, status):
    assert called(WsgiAuditMiddleware(flask_app(), audit), path, method)["status"] == status
    assert (only(taker).outcome, only(taker).status) == (outcome, status)


def test_a_flask_stream_that_breaks_or_is_left(audit, taker):
    app = WsgiAuditMiddleware(flask_app(), audit)
    with pytest.raises(ValueError, match="half way"):
        called(app, "/breaks")
    called(app, "/stream", read=False)
    assert [e.outcome for e in taker.events] == ["failure", "failure"]
    assert len(taker.events) == 2


def test_an_exception_of_a_wsgi_application_passes_through(audit, taker):
    def app(environ, start_response):
        raise KeyError("x")

    with pytest.raises(KeyError):
        called(WsgiAuditMiddleware(app, audit), "/")
    assert (only(taker).outcome, only(taker).status) == ("failure", 500)


@pytest.mark.parametrize("answer", ["refuse", "hang"])
def test_what_a_wsgi_application_may_not_do_unrecorded(audit, taker, answer):
    taker.answer = answer
    ran = []

    def app(environ, start_response):
        ran.append(1)
        start_response("200 OK", [])
        return [b"done"]

    seen = called(WsgiAuditMiddleware(app, audit, required=True), "/pay", "POST")
    assert seen["status"] == 503
    assert json.loads(seen["body"])["code"] == "AUDIT_UNAVAILABLE"
    assert ran == []
    taker.answer = "take"
    assert called(WsgiAuditMiddleware(app, audit, required=True), "/pay", "POST")["body"] == b"done"
    assert taker.demanded[0].outcome == "attempt"
    called(WsgiAuditMiddleware(app, audit, required=True, reads=False), "/pay")
    assert len(taker.demanded) == 1


def test_django(audit, taker):
    configure_django()
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpResponse, HttpResponseForbidden
    from django.test import override_settings
    from django.urls import path as url

    def read(request, number):
        describe("order.read", resource=("order", number))
        return HttpResponse("ok")

    def refuse(request):
        return HttpResponseForbidden()

    patterns = type("Urls", (), {"urlpatterns": [url("orders/<int:number>", read), url("no", refuse)]})
    with override_settings(ROOT_URLCONF=patterns, MIDDLEWARE=[], ALLOWED_HOSTS=["*"]):
        app = WsgiAuditMiddleware(WSGIHandler(), audit)
        assert called(app, "/orders/7")["body"] == b"ok"
        assert called(app, "/no")["status"] == 403
        over_asgi = Client(AuditMiddleware(ASGIHandler(), audit))
        assert over_asgi.get("/orders/8").text == "ok"
    assert [(e.action, e.outcome, e.resource_id) for e in taker.events] == [
        ("order.read", "success", "7"),
        ("GET", "denied", None),
        ("order.read", "success", "8"),
    ]


def test_an_event_shows_what_it_has():
    shown = AuditEvent.now("x", resource=("a", 1), metadata={"n": 1}).to_dict()
    assert shown == {
        "id": shown["id"],
        "action": "x",
        "outcome": "success",
        "resource_type": "a",
        "resource_id": "1",
        "metadata": {"n": 1},
    }
