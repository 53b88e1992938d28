# SPDX-License-Identifier: Apache-2.0
"""What the blocks of the SDK guide are played on: fake agents, and somebody at the other end."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import socket
import tempfile
import threading

from tests.support.enforcement_points import ask_asgi, ask_wsgi, sidecar_headers
from tests.support.leftovers import collect_leftovers

from everyhop.sdk import Guard, Peer, connect, serving, uvicorn_config
from everyhop.testing import Authority, FakeAgent, Issuer, verified_call

STOREFRONT = "spiffe://shop.example/service/storefront"
EXPECTED = "alice by storefront"
OPTIONS = {"log_config": None, "lifespan": "off", "timeout_graceful_shutdown": 1}


class Stage:
    """One authority, one issuer, and an agent for whoever the block is; everything ends with the process."""

    def __init__(self, files):
        self.files = files
        self.ends = contextlib.ExitStack()
        atexit.register(self.ends.close)
        self.authority, self.issuer = Authority(), Issuer("shop.example")
        self.peer = Peer(spiffe_id=STOREFRONT, x5t="A" * 43)
        self.headers = [("txn-token", self.issuer.transaction("alice"))]
        for name in ("EVERYHOP_SOCKET", "EVERYHOP_EGRESS"):
            os.environ.pop(name, None)
        self.agent_of("orders")

    def agent_of(self, service, **endpoints):
        agent = self.new_agent(service, **endpoints)
        os.environ["SPIFFE_ENDPOINT_SOCKET"] = agent.socket
        return agent

    def new_agent(self, service, **endpoints):
        return self.ends.enter_context(
            FakeAgent(self.files, service, authority=self.authority, issuer=self.issuer, endpoints=endpoints)
        )

    def directory(self):
        return self.ends.enter_context(tempfile.TemporaryDirectory(dir="/tmp", prefix="ehguide"))


def serve_asgi(stage, app):
    answer = asyncio.run(ask_asgi(app, stage.peer, stage.headers, path="/orders", method="GET"))
    assert EXPECTED in answer[1].decode(), answer
    refused = asyncio.run(ask_asgi(app, None, stage.headers, path="/orders", method="GET"))
    assert b"MISSING_IDENTITY" in refused[1], refused


def serve_wsgi(stage, app):
    answer = ask_wsgi(app, stage.peer, stage.headers, path="/orders", REQUEST_METHOD="GET")
    assert EXPECTED in answer[1].decode(), answer
    refused = ask_wsgi(app, None, stage.headers, path="/orders", REQUEST_METHOD="GET")
    assert b"MISSING_IDENTITY" in refused[1], refused


def serve_django(stage):
    import django
    from django.core.handlers.wsgi import WSGIHandler

    django.setup()
    app = WSGIHandler()
    answer = ask_wsgi(
        app, stage.peer, stage.headers, path="/orders", REQUEST_METHOD="GET", HTTP_HOST="orders"
    )
    assert EXPECTED in answer[1].decode(), answer
    refused = ask_wsgi(app, None, stage.headers, path="/orders", REQUEST_METHOD="GET", HTTP_HOST="orders")
    assert b"MISSING_IDENTITY" in refused[1], refused


def serve_aiohttp(stage, app):
    import aiohttp
    from aiohttp import web

    async def run():
        runner = web.AppRunner(app)
        await runner.setup()
        sites = socket.socket()
        sites.bind(("127.0.0.1", 0))
        from everyhop.integrations import own_workload
        from everyhop.sdk import server_context

        workload = await asyncio.to_thread(own_workload)
        await web.SockSite(runner, sites, ssl_context=server_context(workload.x509, workload)).start()
        caller = await asyncio.to_thread(connect, stage.new_agent("storefront").socket)
        from everyhop.sdk import client_context

        context = client_context(caller.x509, "spiffe://shop.example/service/orders")
        url = f"https://127.0.0.1:{sites.getsockname()[1]}/orders"
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, ssl=context, headers=dict(stage.headers)) as answer,
        ):
            text = await answer.text()
        await asyncio.to_thread(caller.close)
        await runner.cleanup()
        await asyncio.sleep(0.05)
        return text

    assert asyncio.run(run()) == EXPECTED


def with_socket(stage):
    """Let there be a sidecar, whose socket the block will bind."""
    os.environ["EVERYHOP_SOCKET"] = f"{stage.directory()}/app.sock"


def serve_grpc(stage, server):
    import grpc

    path = os.environ["EVERYHOP_SOCKET"]
    server.add_insecure_port(f"unix:{path}")
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    metadata = [*stage.headers, *sidecar_headers(stage.peer)]
    with grpc.insecure_channel(f"unix:{path}") as channel:
        answer = channel.unary_unary("/shop.v1.Orders/List")(b"", metadata=metadata, timeout=10)
        assert answer.decode() == EXPECTED
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        refused = channel.unary_unary("/shop.v1.Orders/List").future(b"", metadata=metadata, timeout=10)
        assert refused.exception() is not None
        assert dict(refused.trailing_metadata())["everyhop-code"] == "MISSING_IDENTITY"
    server.stop(0).wait()


@contextlib.contextmanager
def running(config):
    import uvicorn

    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        del server, thread
        collect_leftovers()


def with_payments(stage):
    """Serve payments by mutual TLS, make the block orders, and let it act for alice."""
    from everyhop.integrations.asgi import EveryhopMiddleware

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    payments = stage.ends.enter_context(connect(stage.new_agent("payments").socket))
    config = uvicorn_config(
        EveryhopMiddleware(app, Guard(payments)), payments.x509, payments, port=0, **OPTIONS
    )
    port = stage.ends.enter_context(running(config))
    stage.agent_of("orders", payments=(("127.0.0.1", port),))
    stage.ends.enter_context(serving(verified_call("list", user="alice", txn_token=stage.headers[0][1])))


def serve_tls(stage, server):
    import ssl
    import urllib.request

    from everyhop.sdk import client_context

    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with connect(stage.new_agent("storefront").socket) as caller:
        context = client_context(caller.x509, "spiffe://shop.example/service/orders")
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/orders", context=context) as answer:
            assert answer.read().decode() == STOREFRONT
    try:
        urllib.request.urlopen(f"https://127.0.0.1:{port}/orders", context=ssl._create_unverified_context())
    except OSError:
        pass
    else:
        raise AssertionError("served without a certificate")
    server.should_exit = True
    thread.join(10)
