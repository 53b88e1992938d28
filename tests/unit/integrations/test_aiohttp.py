# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from aiohttp import ClientSession, UnixConnector, WSMsgType, web

from everyhop.integrations.aiohttp import server_middleware
from everyhop.sdk import caller, current, require, user
from everyhop.sdk.model import Refusal


@pytest.fixture
async def ask(guard, tmp_path_factory):
    """Serve on a Unix socket that is the workload's own; give a function that asks."""
    import tempfile

    reached = []

    async def orders(request):
        reached.append(request.path)
        return web.Response(text=f"{caller().service} {user()}")

    async def create(request):
        require("create")

    async def echo(request):
        return web.json_response(await request.json())

    async def socket(request):
        found = web.WebSocketResponse()
        await found.prepare(request)
        await found.send_str(str(user()))
        await found.close()
        return found

    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ehaio") as directory:
        path = f"{directory}/app.sock"
        app = web.Application(middlewares=[server_middleware(guard, sidecar_socket=path)])
        app.add_routes(
            [
                web.get("/orders", orders),
                web.post("/create", create),
                web.post("/echo", echo),
                web.get("/ws", socket),
            ]
        )
        runner = web.AppRunner(app)
        await runner.setup()
        await web.UnixSite(runner, path).start()
        async with ClientSession(connector=UnixConnector(path)) as session:

            async def send(method, target, **options):
                async with session.request(method, f"http://orders{target}", **options) as answer:
                    return answer.status, await answer.text()

            send.session, send.reached = session, reached
            yield send
        await runner.cleanup()


async def test_handlers_know_caller_and_user(ask, guard):
    assert await ask("GET", "/orders?x=1") == (200, "storefront alice")
    assert guard.request.raw_path == b"/orders?x=1"
    assert guard.request.via_sidecar
    assert current() is None


async def test_refusals(ask, guard, refusal):
    status, body = await ask("POST", "/create")
    assert (status, json.loads(body)["code"]) == (403, "ACCESS_DENIED")
    guard.refusal = refusal
    for target in ("/orders", "/nowhere"):
        status, body = await ask("GET", target)
        assert (status, json.loads(body)["code"]) == (401, "TOKEN_EXPIRED")
    assert ask.reached == []


async def test_a_body_is_checked_and_read_again(ask, guard):
    guard.checks_body = True
    assert await ask("POST", "/echo", json={"a": 1}) == (200, '{"a": 1}')
    assert guard.bodies[-1] == (["application/json"], b'{"a": 1}')
    guard.body_refusal = Refusal(422, "BODY_INVALID", "no")
    assert (await ask("POST", "/echo", json={}))[0] == 422
    assert (await ask("POST", "/echo", data=b"x" * 101))[0] == 413


async def test_a_websocket_is_checked_at_the_handshake(ask, guard, refusal):
    async with ask.session.ws_connect("http://orders/ws") as opened:
        message = await opened.receive()
        assert (message.type, message.data) == (WSMsgType.TEXT, "alice")
    guard.refusal = refusal
    with pytest.raises(Exception, match="401"):
        await ask.session.ws_connect("http://orders/ws")
