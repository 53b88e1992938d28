# SPDX-License-Identifier: Apache-2.0
import asyncio
import json

import pytest

from everyhop.integrations._arrival import PEER_KEY
from everyhop.integrations.asgi import EveryhopMiddleware
from everyhop.sdk import caller, current, require, user
from everyhop.sdk.model import Peer, Refusal

PEER = Peer(spiffe_id="spiffe://shop.example/service/orders", x5t="abc")


def scope_of(path="/orders/7", *, raw=None, kind="http", **more):
    from urllib.parse import unquote

    found = {
        "type": kind,
        "method": "GET",
        "path": unquote(path),
        "raw_path": path.encode() if raw is None else raw,
        "query_string": b"a=1",
        "headers": [(b"host", b"orders")],
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 5000),
        "root_path": "",
    }
    if kind == "websocket":
        del found["method"]
    return {**found, **more}


class Exchange:
    """One call of an ASGI application: what it was given to receive, and what it sent."""

    def __init__(self, *messages):
        self.waiting = list(messages) or [{"type": "http.request", "body": b"", "more_body": False}]
        self.sent = []

    async def receive(self):
        return self.waiting.pop(0) if self.waiting else {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)

    async def run(self, app, scope):
        await app(scope, self.receive, self.send)
        return self

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def problem(self):
        return json.loads(self.sent[1]["body"])

    @property
    def headers(self):
        return dict(self.sent[0]["headers"])


class Application:
    """Remembers whether it was reached, as whom, and with which body."""

    def __init__(self):
        self.reached = 0
        self.body = None
        self.messages = []

    async def __call__(self, scope, receive, send):
        self.reached += 1
        self.caller, self.user = caller(), user()
        message = await receive()
        self.messages.append(message)
        self.body = message.get("body")
        await asyncio.sleep(0)
        assert current() is not None
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


async def test_a_verified_request_reaches_the_application_with_caller_and_user(guard):
    app = Application()
    done = await Exchange().run(EveryhopMiddleware(app, guard), scope_of())
    assert done.status == 200
    assert app.caller.service == "storefront"
    assert app.user.subject == "alice"
    assert current() is None
    assert guard.request.method == "GET"
    assert guard.request.raw_path == b"/orders/7"
    assert guard.request.query == b"a=1"


async def test_a_refusal_is_a_problem_and_the_application_is_not_reached(guard, refusal):
    guard.refusal = refusal
    app = Application()
    done = await Exchange().run(EveryhopMiddleware(app, guard), scope_of())
    assert app.reached == 0
    assert done.status == 401
    assert done.problem == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "code": "TOKEN_EXPIRED",
        "decision": "d-2",
    }
    assert done.headers[b"www-authenticate"] == b'Bearer realm="everyhop", error="invalid_token"'
    assert done.headers[b"content-type"] == b"application/problem+json"
    assert b"operators" not in done.sent[1]["body"]


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/orders/7", None),
        ("/caf%C3%A9", None),
        ("/a%2Fb", None),
        ("/a+b", None),
    ],
)
async def test_the_guard_gets_the_raw_path(guard, path, raw):
    await Exchange().run(EveryhopMiddleware(Application(), guard), scope_of(path, raw=raw))
    assert guard.request.raw_path == path.encode()


@pytest.mark.parametrize(
    "scope",
    [
        {**scope_of("/orders"), "raw_path": b"/admin"},  # rewritten in between
        {**scope_of("/orders"), "raw_path": b"/orders/"},
        {**scope_of("/orders"), "raw_path": None},
        {k: v for k, v in scope_of("/orders").items() if k != "raw_path"},
        {**scope_of("/orders"), "raw_path": b"/%FF", "path": "/\ufffd"},
    ],
)
async def test_a_path_that_is_not_surely_the_one_sent_is_refused(guard, scope):
    app = Application()
    done = await Exchange().run(EveryhopMiddleware(app, guard), scope)
    assert (done.status, done.problem["code"]) == (400, "AMBIGUOUS_PATH")
    assert app.reached == 0
    assert not guard.requests


async def test_what_the_server_puts_before_the_path_is_not_what_the_client_sent(guard):
    wrapped = EveryhopMiddleware(Application(), guard, prefix="/api/")
    await Exchange().run(wrapped, scope_of("/api/orders/7", root_path="/api"))
    assert guard.request.raw_path == b"/orders/7"
    for other in ("/apix/orders", "/orders", "/api"):
        done = await Exchange().run(wrapped, scope_of(other))
        assert (done.status, done.problem["code"]) == (400, "AMBIGUOUS_PATH")


async def test_an_applications_own_root_path_takes_nothing_away(guard):
    await Exchange().run(EveryhopMiddleware(Application(), guard), scope_of("/api/x", root_path="/api"))
    assert guard.request.raw_path == b"/api/x"


async def test_a_raise_of_require_is_answered_too(guard):
    async def app(scope, receive, send):
        require("create")

    done = await Exchange().run(EveryhopMiddleware(app, guard), scope_of())
    assert (done.status, done.problem["code"]) == (403, "ACCESS_DENIED")
    assert current() is None


async def test_a_refusal_after_the_answer_began_is_raised(guard):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        require("create")

    with pytest.raises(Refusal):
        await Exchange().run(EveryhopMiddleware(app, guard), scope_of())


async def test_an_error_of_the_application_leaves_no_caller_behind(guard):
    async def app(scope, receive, send):
        raise LookupError

    with pytest.raises(LookupError):
        await Exchange().run(EveryhopMiddleware(app, guard), scope_of())
    assert current() is None


async def test_requests_side_by_side_see_their_own_caller(guard):
    seen = []

    async def app(scope, receive, send):
        before = current()
        await asyncio.sleep(0.01)
        seen.append(before is current() and before is not None)

    wrapped = EveryhopMiddleware(app, guard)
    await asyncio.gather(*(Exchange().run(wrapped, scope_of()) for _ in range(20)))
    assert seen == [True] * 20


async def test_the_lifespan_passes_and_other_kinds_do_not(guard):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    wrapped = EveryhopMiddleware(app, guard)
    await Exchange().run(wrapped, {"type": "lifespan"})
    with pytest.raises(ValueError, match="webtransport"):
        await Exchange().run(wrapped, {"type": "webtransport"})
    assert seen == ["lifespan"]


# -- who is at the other end


async def test_only_the_workloads_own_socket_is_the_sidecar(guard, own_socket):
    wrapped = EveryhopMiddleware(Application(), guard, sidecar_socket=own_socket)
    cases = [
        ({"server": (own_socket, None), "client": None}, True),
        ({"server": None, "client": None}, True),  # a server that says nothing of Unix sockets
        ({"server": ("/tmp/other.sock", None), "client": None}, False),
        ({"server": ("127.0.0.1", 8000), "client": None}, False),
        ({"server": ("127.0.0.1", 8000), "client": (own_socket, 0)}, False),
        ({"server": None, "client": ("127.0.0.1", 5)}, False),
        ({"server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 5)}, False),
    ]
    for more, expected in cases:
        await Exchange().run(wrapped, scope_of(**more))
        assert guard.request.via_sidecar is expected, more


async def test_without_a_socket_of_ones_own_nothing_is_the_sidecar(guard, monkeypatch, tmp_path):
    monkeypatch.delenv("EVERYHOP_SOCKET", raising=False)
    wrapped = EveryhopMiddleware(Application(), guard)
    for server in (None, ("/run/app.sock", None), ("", None)):
        await Exchange().run(wrapped, scope_of(server=server, client=None))
        assert not guard.request.via_sidecar
    # Named but never bound: the application listens on a port, so an unnamed connection may be anybody's.
    wrapped = EveryhopMiddleware(Application(), guard, sidecar_socket=str(tmp_path / "app.sock"))
    await Exchange().run(wrapped, scope_of(server=None, client=None))
    assert not guard.request.via_sidecar


async def test_the_peer_comes_from_the_connection(guard):
    wrapped = EveryhopMiddleware(Application(), guard)
    await Exchange().run(wrapped, scope_of(extensions={PEER_KEY: PEER}))
    assert guard.request.peer is PEER
    for extensions in (None, {}, {PEER_KEY: "spiffe://shop.example/service/orders"}, {"tls": {}}):
        await Exchange().run(wrapped, scope_of(extensions=extensions))
        assert guard.request.peer is None
    await Exchange().run(wrapped, scope_of(headers=[(b"everyhop.peer", b"x"), (b"x-everyhop-caller", b"y")]))
    assert guard.request.peer is None


async def test_the_testing_room_knows_where_a_peer_is_looked_for(guard):
    from everyhop.testing.callers import asgi_caller

    app = asgi_caller(EveryhopMiddleware(Application(), guard), PEER)
    await Exchange().run(app, scope_of(extensions=None))
    assert guard.request.peer is PEER


# -- bodies


def parts(*chunks):
    return [
        {"type": "http.request", "body": chunk, "more_body": i < len(chunks) - 1}
        for i, chunk in enumerate(chunks)
    ]


async def test_a_body_is_checked_whole_and_given_to_the_application(guard):
    guard.checks_body = True
    app = Application()
    headers = [(b"content-type", b"application/json"), (b"Content-Type", b"text/plain")]
    exchange = Exchange(*parts(b'{"a"', b":1}", b""))
    done = await exchange.run(EveryhopMiddleware(app, guard), scope_of(headers=headers))
    assert done.status == 200
    assert guard.bodies == [(["application/json", "text/plain"], b'{"a":1}')]
    assert app.messages == [{"type": "http.request", "body": b'{"a":1}', "more_body": False}]


async def test_a_refused_body_does_not_reach_the_application(guard):
    guard.checks_body = True
    guard.body_refusal = Refusal(422, "BODY_INVALID", "no", pointers=("/a",))
    app = Application()
    done = await Exchange(*parts(b"{}")).run(EveryhopMiddleware(app, guard), scope_of())
    assert (done.status, done.problem["pointers"], app.reached) == (422, ["/a"], 0)


async def test_reading_ends_at_the_limit(guard):
    guard.checks_body = True
    app = Application()
    exchange = Exchange(*parts(*[b"x" * 60] * 50))
    done = await exchange.run(EveryhopMiddleware(app, guard), scope_of())
    assert (done.status, app.reached) == (413, 0)
    assert len(exchange.waiting) == 48


async def test_no_body_is_read_before_the_caller_is_verified(guard, refusal):
    guard.checks_body = True
    guard.refusal = refusal
    exchange = Exchange(*parts(b"{}"))
    await exchange.run(EveryhopMiddleware(Application(), guard), scope_of())
    assert len(exchange.waiting) == 1
    assert not guard.bodies


async def test_a_client_that_leaves_in_its_body_gets_nothing(guard):
    guard.checks_body = True
    app = Application()
    exchange = Exchange(
        {"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}
    )
    done = await exchange.run(EveryhopMiddleware(app, guard), scope_of())
    assert (app.reached, done.sent) == (0, [])


async def test_a_body_without_a_schema_streams(guard):
    app = Application()
    exchange = Exchange(*parts(b"1", b"2"))
    await exchange.run(EveryhopMiddleware(app, guard), scope_of())
    assert app.body == b"1"


# -- WebSockets


async def test_a_websocket_is_a_get(guard):
    seen = []

    async def app(scope, receive, send):
        seen.append(caller().service)
        await send({"type": "websocket.accept"})

    done = await Exchange({"type": "websocket.connect"}).run(
        EveryhopMiddleware(app, guard), scope_of(kind="websocket")
    )
    assert guard.request.method == "GET"
    assert seen == ["storefront"]
    assert done.sent == [{"type": "websocket.accept"}]


async def test_a_refused_websocket_is_never_accepted(guard, refusal):
    guard.refusal = refusal
    app = Application()
    wrapped = EveryhopMiddleware(app, guard)
    done = await Exchange({"type": "websocket.connect"}).run(wrapped, scope_of(kind="websocket"))
    assert done.sent == [{"type": "websocket.close", "code": 1008, "reason": "TOKEN_EXPIRED"}]
    scope = scope_of(kind="websocket", extensions={"websocket.http.response": {}})
    done = await Exchange({"type": "websocket.connect"}).run(wrapped, scope)
    assert [message["type"] for message in done.sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert done.status == 401
    assert app.reached == 0


async def test_what_a_caller_may_not_claim_is_hidden_off_the_sidecars_socket(guard):
    seen = []

    async def app(scope, receive, send):
        seen.extend(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    headers = [(b"X-Everyhop-Caller", b"root"), (b"x-http-method-override", b"DELETE"), (b"txn-token", b"x")]
    kept = [(b"host", b"orders"), (b"a", b"b")]
    scope = scope_of(headers=[*headers, *kept])
    await Exchange().run(EveryhopMiddleware(app, guard), scope)
    assert seen == kept
    assert guard.request.headers == [*headers, *kept]
    assert len(scope["headers"]) == 5
