# SPDX-License-Identifier: Apache-2.0
"""An operation that leaves the resource to the application, and an application that forgets to check it."""

from __future__ import annotations

import json

import pytest
from aiohttp import web

from everyhop.integrations import aiohttp as for_aiohttp, asgi, wsgi
from everyhop.sdk import Guard, Peer, Refusal, authorize, visible
from everyhop.testing import Issuer, service_context

POLICY = """\
version: 1
trust_domain: shop.example
attributes: {resource: {owner: string}}
services:
  shop: {workload: [{run: true}]}
  orders:
    workload: [{run: true}]
    operations:
      read: {route: GET /read, resource: application}
      plain: GET /plain
allow:
  - {from: shop, to: orders, operations: [read], when: "resource.owner == 'x'"}
  - {from: shop, to: orders, operations: [plain]}
"""
PEER = Peer(spiffe_id="spiffe://shop.example/service/shop")


@pytest.fixture(scope="module")
def guard():
    return Guard(service_context(POLICY, "orders", Issuer()), decisions=lambda _: None)


def check(how):
    """Do what an application would; None forgets."""
    if how == "authorize":
        authorize(resource={"owner": "x"})
    elif how == "refused":
        with pytest.raises(Refusal):
            authorize(resource={"owner": "y"})
    elif how == "visible":
        visible()


CASES = [
    # path, what the application does, its status, the status on the wire
    ("/read", None, 200, 500),
    ("/read", None, 201, 500),
    ("/read", None, 204, 500),
    ("/read", None, 299, 500),
    ("/read", None, 304, 304),
    ("/read", None, 404, 404),
    ("/read", "authorize", 200, 200),
    ("/read", "refused", 200, 200),  # what it answers to a refusal is its own matter
    ("/read", "visible", 200, 200),
    ("/plain", None, 200, 200),
]


async def ask_asgi(guard, path, how, status, *, chunks=1):
    async def app(_scope, _receive, send):
        check(how)
        await send({"type": "http.response.start", "status": status, "headers": [(b"x-secret", b"s")]})
        for number in range(chunks):
            more = number + 1 < chunks
            await send({"type": "http.response.body", "body": b"secret", "more_body": more})

    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": [],
        "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2), "extensions": {"everyhop.peer": PEER},
    }  # fmt: skip
    await asgi.EveryhopMiddleware(app, guard, sidecar_socket="/nowhere")(scope, None, send)
    return sent


@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize(("path", "how", "status", "expected"), CASES)
async def test_asgi(guard, path, how, status, expected, chunks):
    sent = await ask_asgi(guard, path, how, status, chunks=chunks)
    assert sent[0]["status"] == expected
    body = b"".join(message.get("body", b"") for message in sent[1:])
    assert [message["type"] for message in sent].count("http.response.start") == 1
    if expected == 500:
        assert json.loads(body)["code"] == "AUTHORIZATION_MISSING"
        assert not any(name == b"x-secret" for name, _ in sent[0]["headers"])
        assert len(sent) == 2
    else:
        assert body == b"secret" * chunks


async def test_a_websocket_does_not_get_around_it(guard):
    """It opens only where the policy declares one, and there no operation leaves its resource to the application."""

    async def app(_scope, _receive, send):
        await send({"type": "websocket.accept"})

    sent = []

    async def send(message):
        sent.append(message["type"])

    async def receive():
        return {"type": "websocket.connect"}

    for path in ("/read", "/plain"):
        sent.clear()
        scope = {
            "type": "websocket", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": [],
            "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2), "extensions": {"everyhop.peer": PEER},
        }  # fmt: skip
        await asgi.EveryhopMiddleware(app, guard, sidecar_socket="/nowhere")(scope, receive, send)
        assert sent == ["websocket.close"]


def ask_wsgi(guard, path, how, status, form):
    closed = []

    class Parts:
        def __init__(self, parts):
            self.parts = iter(parts)

        def __iter__(self):
            return self.parts

        def close(self):
            closed.append(True)

    def app(_environ, start_response):
        def late():
            check(how)
            start_response(f"{status} Whatever", [("x-secret", "s")])
            yield b"secret"

        if form == "generator":
            return Parts(late())
        check(how)
        write = start_response(f"{status} Whatever", [("x-secret", "s")])
        if form == "write":
            write(b"secret")
            return []
        return Parts([b"secret"]) if form == "iterator" else [b"secret"]

    started, written = [], []

    def start_response(line, headers, exc_info=None):
        started.append((int(line[:3]), headers))
        return written.append

    environ = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "", "RAW_URI": path,
        "REMOTE_ADDR": "127.0.0.1", "everyhop.peer": PEER,
    }  # fmt: skip
    answer = wsgi.EveryhopMiddleware(app, guard, sidecar_socket="/nowhere")(environ, start_response)
    body = b"".join(answer)
    if hasattr(answer, "close"):
        answer.close()
    assert closed == ([True] if form in {"iterator", "generator"} else [])
    return started, b"".join(written) + body


@pytest.mark.parametrize("form", ["list", "iterator", "generator", "write"])
@pytest.mark.parametrize(("path", "how", "status", "expected"), CASES)
def test_wsgi(guard, path, how, status, expected, form):
    started, body = ask_wsgi(guard, path, how, status, form)
    assert [found for found, _ in started] == [expected]
    if expected == 500:
        assert json.loads(body)["code"] == "AUTHORIZATION_MISSING"
        assert "x-secret" not in dict(started[0][1])
    else:
        assert body == b"secret"


@pytest.mark.parametrize(("path", "how", "status", "expected"), [c for c in CASES if c[2] not in {204, 304}])
async def test_aiohttp(guard, path, how, status, expected, monkeypatch):
    from aiohttp.test_utils import TestClient, TestServer

    monkeypatch.setattr(for_aiohttp, "_peer_of", lambda _: PEER)

    async def view(_request):
        check(how)
        return web.Response(status=status, body=b"secret")

    app = web.Application(middlewares=[for_aiohttp.server_middleware(guard, sidecar_socket="/nowhere")])
    app.router.add_get(path, view)
    async with TestClient(TestServer(app)) as client:
        answer = await client.get(path)
        assert answer.status == expected
        assert (b"secret" in await answer.read()) is (expected != 500)
