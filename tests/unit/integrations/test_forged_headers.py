# SPDX-License-Identifier: Apache-2.0
"""Whoever reaches the application on a port instead of its own socket may say what he likes and is nobody."""

import asyncio
import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.support.enforcement_points import GRPC_PATH, PATH, grpc_code, grpc_handlers

from everyhop.sdk.guard import Guard
from everyhop.testing import Issuer, service_context

POLICY = """
version: 1
trust_domain: shop.example
services:
  orders: {workload: [{run: true}]}
  payments:
    workload: [{run: true}]
    operations: {charge: POST /v1/charges, gcharge: {grpc: shop.v1.Payments/Charge}}
allow:
  - {from: orders, to: payments, operations: [charge, gcharge]}
"""
CALLER = "spiffe://shop.example/service/orders"
FORGED = {
    "x-everyhop-caller": CALLER,
    "x-everyhop-operation": "charge",
    "x-everyhop-decision": "d",
    "x-everyhop-user": "alice",
    "x-forwarded-client-cert": f"Hash={'a' * 64};URI={CALLER}",
    "x-forwarded-for": "127.0.0.1",
    "forwarded": "for=unix",
}


@pytest.fixture
def checks():
    return Guard(service_context(POLICY, "payments", Issuer()), decisions=lambda decided: None)


@pytest.fixture(autouse=True)
def sidecar(own_socket, monkeypatch):
    """There is a sidecar, and its socket is bound: only the port is the wrong door."""
    monkeypatch.setenv("EVERYHOP_SOCKET", own_socket)


def ask(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", PATH, body=b"", headers=FORGED)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())["code"]
    finally:
        connection.close()


def test_werkzeug(checks):
    from flask import Flask
    from werkzeug.serving import WSGIRequestHandler, make_server

    from everyhop.integrations.flask import Everyhop

    class Quiet(WSGIRequestHandler):
        def log(self, *_arguments):
            pass

    app = Flask("payments")
    app.post(PATH)(lambda: "ok")
    Everyhop(app, checks)
    server = make_server("127.0.0.1", 0, app, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        assert ask(server.port) == (403, "MISSING_IDENTITY")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_uvicorn(checks):
    import uvicorn

    from everyhop.integrations.asgi import EveryhopMiddleware

    async def app(scope, receive, send):
        raise AssertionError

    config = uvicorn.Config(
        EveryhopMiddleware(app, checks),
        host="127.0.0.1",
        port=0,
        log_config=None,
        lifespan="off",
        forwarded_allow_ips="*",
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        assert await asyncio.to_thread(ask, port) == (403, "MISSING_IDENTITY")
    finally:
        server.should_exit = True
        await serving


async def test_aiohttp(checks):
    from aiohttp import web

    from everyhop.integrations.aiohttp import server_middleware

    app = web.Application(middlewares=[server_middleware(checks)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await (site := web.TCPSite(runner, "127.0.0.1", 0)).start()
        port = site._server.sockets[0].getsockname()[1]
        assert await asyncio.to_thread(ask, port) == (403, "MISSING_IDENTITY")
    finally:
        await runner.cleanup()


def test_grpc(checks):
    import grpc

    from everyhop.integrations.grpc import ServerInterceptor

    with ThreadPoolExecutor(2) as executor:
        server = grpc.server(executor, interceptors=[ServerInterceptor(checks)])
        server.add_generic_rpc_handlers((grpc_handlers(lambda request, context: b"ok"),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(GRPC_PATH)(b"", metadata=tuple(FORGED.items()), timeout=10)
        server.stop(0).wait()
    assert grpc_code(caught.value) == (403, "MISSING_IDENTITY")


async def test_grpc_aio(checks):
    import grpc

    from everyhop.integrations.grpc_aio import ServerInterceptor

    server = grpc.aio.server(interceptors=[ServerInterceptor(checks)])
    server.add_generic_rpc_handlers((grpc_handlers(lambda request, context: b"ok"),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(GRPC_PATH)(b"", metadata=tuple(FORGED.items()), timeout=10)
    await server.stop(0)
    assert grpc_code(caught.value) == (403, "MISSING_IDENTITY")
