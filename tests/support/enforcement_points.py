# SPDX-License-Identifier: Apache-2.0
"""Every place in which the SDK enforces, asked the same question: this peer, these headers; which status and code?

``POINTS`` maps a name to a function ``(guard, peer, headers of each call) -> [(status, code)]``.  The calls are
``POST /v1/charges`` (gRPC: ``/shop.v1.Payments/Charge``); a call that passes gives ``(200, "")``.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import tempfile
from base64 import urlsafe_b64decode
from concurrent.futures import ThreadPoolExecutor

from everyhop.integrations._arrival import PEER_KEY
from everyhop.sdk.model import Refusal, Request

PATH = "/v1/charges"
GRPC_PATH = "/shop.v1.Payments/Charge"
GRPC_STATUS = {"UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "INVALID_ARGUMENT": 400, "UNAVAILABLE": 503}
METADATA_BYTES = 64 * 1024


def sidecar_headers(peer):
    """What a sidecar says of a peer."""
    digest = urlsafe_b64decode(peer.x5t + "=").hex()
    certificate = f"By=spiffe://shop.example/service/payments;Hash={digest};URI={peer.spiffe_id}"
    return [("x-everyhop-caller", peer.spiffe_id), ("x-forwarded-client-cert", certificate)]


def guard_alone(guard, peer, calls):
    def ask(headers):
        raw = [(name.encode(), value.encode()) for name, value in headers]
        try:
            guard.check(Request(method="POST", raw_path=PATH.encode(), headers=raw, peer=peer))
        except Refusal as refusal:
            return refusal.status, refusal.code
        return 200, ""

    return [ask(headers) for headers in calls]


# -- ASGI


async def ask_asgi(app, peer, headers, *, path=PATH, body=b"", **scope):
    """Call an ASGI application in this process; give status and body."""
    sent = []
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        return waiting.pop() if waiting else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    await app(
        {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "https",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"payments"), *((n.encode(), v.encode()) for n, v in headers)],
            "server": ("127.0.0.1", 443),
            "client": ("127.0.0.1", 5000),
            "extensions": {} if peer is None else {PEER_KEY: peer},
            **scope,
        },
        receive,
        send,
    )
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def code_of(status, body):
    return (200, "") if status == 200 else (status, json.loads(body)["code"])


def asgi_calls(app, peer, calls):
    async def run():
        return [code_of(*await ask_asgi(app, peer, headers)) for headers in calls]

    return asyncio.run(run())


def asgi(guard, peer, calls):
    from everyhop.integrations.asgi import EveryhopMiddleware

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    return asgi_calls(EveryhopMiddleware(app, guard), peer, calls)


def fastapi(guard, peer, calls):
    from fastapi import FastAPI

    from everyhop.integrations.fastapi import protect

    app = FastAPI()
    app.post(PATH)(lambda: "ok")
    protect(app, guard)
    return asgi_calls(app, peer, calls)


# -- WSGI


def ask_wsgi(app, peer, headers, *, path=PATH, body=b"", **more):
    """Call a WSGI application in this process; give status and body."""
    environ = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "REQUEST_URI": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "payments",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "HTTP_HOST": "payments",
    }
    if peer is not None:
        environ[PEER_KEY] = peer
    for name, value in headers:
        key = "HTTP_" + name.upper().replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    seen = []
    answer = app({**environ, **more}, lambda status, headers, error=None: seen.append(int(status[:3])))
    try:
        found = b"".join(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    return seen[-1], found


def wsgi_calls(app, peer, calls):
    return [code_of(*ask_wsgi(app, peer, headers)) for headers in calls]


def wsgi(guard, peer, calls):
    from everyhop.integrations.wsgi import EveryhopMiddleware

    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"ok"]

    return wsgi_calls(EveryhopMiddleware(app, guard), peer, calls)


def flask(guard, peer, calls):
    from flask import Flask

    from everyhop.integrations.flask import Everyhop

    app = Flask("payments")
    app.post(PATH)(lambda: "ok")
    Everyhop(app, guard)
    return wsgi_calls(app, peer, calls)


# -- Django


class GuardOfTheMoment:
    """Django reads its settings once a process, so they name this one."""

    guard = None

    def check(self, request):
        return self.guard.check(request)

    def check_body(self, verified, content_types, body):
        self.guard.check_body(verified, content_types, body)

    @property
    def max_body(self):
        return self.guard.max_body


DJANGO_GUARD = GuardOfTheMoment()


def django_urls():
    from types import ModuleType

    from django.http import HttpResponse
    from django.urls import path

    urls = ModuleType("everyhop_test_urls")
    urls.urlpatterns = [path("v1/charges", lambda request: HttpResponse(b"ok"))]
    return urls


def configure_django():
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=django_urls(),
            MIDDLEWARE=["everyhop.integrations.django.EveryhopMiddleware"],
            EVERYHOP={"GUARD": DJANGO_GUARD},
            ALLOWED_HOSTS=["*"],
            SECRET_KEY="test",
            USE_TZ=True,
            LOGGING_CONFIG=None,
        )
        django.setup()


def django_wsgi(guard, peer, calls):
    configure_django()
    from django.core.handlers.wsgi import WSGIHandler

    DJANGO_GUARD.guard = guard
    return wsgi_calls(WSGIHandler(), peer, calls)


def django_asgi(guard, peer, calls):
    configure_django()
    from django.core.handlers.asgi import ASGIHandler

    DJANGO_GUARD.guard = guard
    return asgi_calls(ASGIHandler(), peer, calls)


# -- gRPC, on a Unix socket that is the workload's own


def grpc_handlers(behaviour):
    import grpc

    handler = grpc.unary_unary_rpc_method_handler(behaviour)
    return grpc.method_handlers_generic_handler("shop.v1.Payments", {"Charge": handler})


def grpc_code(error):
    trailers = dict(error.trailing_metadata() or ())
    return GRPC_STATUS[error.code().name], trailers.get("everyhop-code", "")


def grpc_metadata(peer, headers):
    said = [] if peer is None else sidecar_headers(peer)
    return [(name.lower(), value) for name, value in [*said, *headers]]


def grpc_sync(guard, peer, calls):
    import grpc

    from everyhop.integrations.grpc import ServerInterceptor

    options = [
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
    ]
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ehgrpc") as directory:
        path = f"{directory}/app.sock"
        interceptor = ServerInterceptor(guard, sidecar_socket=path)
        with ThreadPoolExecutor(2) as executor:
            server = grpc.server(executor, interceptors=[interceptor], options=options)
            server.add_generic_rpc_handlers((grpc_handlers(lambda request, context: b"ok"),))
            server.add_insecure_port(f"unix:{path}")
            server.start()
            found = []
            with grpc.insecure_channel(f"unix:{path}", options=options) as channel:
                ask = channel.unary_unary(GRPC_PATH)
                for headers in calls:
                    try:
                        ask(b"", metadata=grpc_metadata(peer, headers), timeout=20)
                        found.append((200, ""))
                    except grpc.RpcError as error:
                        found.append(grpc_code(error))
            server.stop(0).wait()
    return found


def grpc_aio(guard, peer, calls):
    import grpc

    from everyhop.integrations.grpc_aio import ServerInterceptor

    options = [
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
    ]

    async def behaviour(request, context):
        return b"ok"

    async def run(path):
        server = grpc.aio.server(
            interceptors=[ServerInterceptor(guard, sidecar_socket=path)], options=options
        )
        server.add_generic_rpc_handlers((grpc_handlers(behaviour),))
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        found = []
        async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:
            ask = channel.unary_unary(GRPC_PATH)
            for headers in calls:
                try:
                    await ask(b"", metadata=grpc.aio.Metadata(*grpc_metadata(peer, headers)), timeout=20)
                    found.append((200, ""))
                except grpc.aio.AioRpcError as error:
                    found.append(grpc_code(error))
        await server.stop(0)
        return found

    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ehgrpc") as directory:
        return asyncio.run(run(f"{directory}/app.sock"))


# -- aiohttp, on a Unix socket that is the workload's own


def aiohttp(guard, peer, calls):
    from aiohttp import ClientSession, UnixConnector, web

    from everyhop.integrations.aiohttp import server_middleware

    async def charge(request):
        return web.Response(body=b"ok")

    async def run(path):
        app = web.Application(middlewares=[server_middleware(guard, sidecar_socket=path)])
        app.router.add_post(PATH, charge)
        runner = web.AppRunner(app, max_field_size=METADATA_BYTES, max_line_size=METADATA_BYTES)
        await runner.setup()
        await web.UnixSite(runner, path).start()
        found = []
        async with ClientSession(connector=UnixConnector(path)) as session:
            for headers in calls:
                said = [] if peer is None else sidecar_headers(peer)
                async with session.post(f"http://payments{PATH}", headers=[*said, *headers]) as answer:
                    found.append(code_of(answer.status, await answer.read()))
        await runner.cleanup()
        return found

    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ehaio") as directory:
        return asyncio.run(run(f"{directory}/app.sock"))


POINTS = {
    "guard": guard_alone,
    "asgi": asgi,
    "wsgi": wsgi,
    "fastapi": fastapi,
    "flask": flask,
    "django_wsgi": django_wsgi,
    "django_asgi": django_asgi,
    "grpc": grpc_sync,
    "grpc_aio": grpc_aio,
    "aiohttp": aiohttp,
}
