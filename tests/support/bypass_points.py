# SPDX-License-Identifier: Apache-2.0
"""Enforcement points that the attempts of ``tests/vectors/bypass_attempts.py`` are made at: real servers, real sockets.

A point is a context manager with ``name``, ``wire`` (what it speaks), ``checks_body``, ``states`` (what can be done to
it) and ``send(attempt) -> Seen``.  Another one is one more class, and a line in ``points()``.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.support.envoy_pair import Mesh, wait_for
from tests.support.http2_client import Http2Client, StreamReset
from tests.vectors.bypass_attempts import GRPC, HTTP1, HTTP2, POLICY

from everyhop.core.errors import Unavailable
from everyhop.sdk import grpc_server_credentials, hypercorn_config, server_context, uvicorn_config
from everyhop.sdk.guard import Guard
from everyhop.testing import Authority, FixedX509Source, Issuer, service_context

WITHDRAWN = POLICY.replace("operations: [public, submit, note, live, charge]", "operations: [submit]")
CALLERS = [
    f"spiffe://shop.example/service/{name}"
    for name in (
        "storefront",
        "storefront-evil",
        "storefron",
        "Storefront",
        "storefront.",
        "stranger",
        "storefront/x",
    )
]
_GRPC_STATUS = {"0": 200, "3": 400, "7": 403, "8": 413, "12": 404, "14": 503, "16": 401}
_ENVOYS_STATUS = {**_GRPC_STATUS, "13": 400}  # Envoy makes INTERNAL of its own 400
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What came of an attempt.

    ``status`` is 0 when the connection or the stream ended without an answer; ``code`` is the problem's, empty where
    the answer was none of ours.  ``reached`` are the requests that arrived at the application: (method, target,
    headers).  ``recorded`` are the decisions of this attempt: (allowed, status or None, code or reason, id).
    """

    status: int
    code: str
    reached: tuple
    recorded: tuple


# -- the wires


def http1_bytes(attempt):
    """Return the request as it goes over a connection."""
    lines = [b" ".join((attempt.method, attempt.target, attempt.version))]
    lines += [b"Host: " + host for host in attempt.host]
    lines += [name + b": " + value for name, value in attempt.headers]
    names = {name.lower() for name, _ in attempt.headers}
    if attempt.body and not names & {b"content-length", b"transfer-encoding"}:
        lines.append(b"Content-Length: %d" % len(attempt.body))
    return b"\r\n".join([*lines, b"", b""]) + attempt.body


def ask_http1(connection, attempt):
    """Make an attempt; give (status, headers, body), status 0 when there is no answer."""
    try:
        connection.sendall(http1_bytes(attempt))
        answer = http.client.HTTPResponse(connection, method=attempt.method.decode("latin-1"))
        answer.begin()
        body = b"" if answer.status == 101 else answer.read()
    except (OSError, http.client.HTTPException):
        return 0, {}, b""
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def ask_http2(connection, attempt, *, grpc=False):
    """Make an attempt as an HTTP/2 stream, or as a gRPC call."""
    method, body = attempt.method, attempt.body
    headers = [(name.lower(), value) for name, value in attempt.headers]
    headers += [(b"host", host) for host in attempt.host[1:]]
    if grpc:
        method = b"POST" if method == b"GET" else method
        headers += [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
        body = bytes(5)
    authority = attempt.host[0] if attempt.host else None
    try:
        client = connection if isinstance(connection, Http2Client) else Http2Client(connection)
        status, answered, body, trailers = client.request(
            method, attempt.target, authority=authority, headers=headers, body=body
        )
    except (StreamReset, OSError):
        return 0, {}, b""
    return status, {**answered, **trailers}, body


def code_in(body):
    """Return the code of a problem, empty where it is none."""
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    return str(found.get("code", "")) if isinstance(found, dict) else ""


def read_grpc(status, headers, table):
    """Return (status, code) of a gRPC call as its HTTP twin would have them; 500 for what is no refusal."""
    told = headers.get("grpc-status")
    if told is None:
        return (status if status != 200 else 500), ""
    return table.get(told, 500), headers.get("everyhop-code", "")


# -- the SDK's points


class Truth:
    """The context of the moment, which a test can take away."""

    def __init__(self):
        issuer = Issuer()
        self.states = {
            "": self._context(POLICY, issuer),
            "withdrawn": self._context(WITHDRAWN, issuer),
        }
        self.state = ""

    @staticmethod
    def _context(policy, issuer):
        return service_context(policy, "orders", issuer)

    @property
    def context(self):
        if self.state == "down":
            raise Unavailable("no policy")
        return self.states[self.state]


class SdkPoint:
    """A server with TLS of its own, the SDK in front of an application that notes what arrives."""

    wire = HTTP1
    checks_body = True
    takes_websockets = True
    states = frozenset({"down", "withdrawn"})
    name = ""

    def __init__(self):
        self.authority = Authority("shop.example")
        self.identity = FixedX509Source(self.authority.issue("orders"))
        self.truth = Truth()
        self.reached = []
        self.decided = []
        self.guard = Guard(self.truth, decisions=self.decided.append)
        self._contexts = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        self.port = self._stack.enter_context(self.serve())
        return self

    def __exit__(self, *exc_info):
        self._stack.close()

    def arrived(self, method, target, headers):
        """Note a request, called by the application."""
        self.reached.append((method, target, [(name.lower(), value) for name, value in headers]))

    def connect(self, caller):
        """Return a connection on which ``caller`` has shown a certificate."""
        context = self._contexts.get(caller)
        if context is None:
            context = self._contexts[caller] = self._context(caller)
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return context.wrap_socket(raw)
        except BaseException:
            raw.close()
            raise

    def _context(self, caller):
        identity = self.authority.issue(caller)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with tempfile.NamedTemporaryFile() as file:
            file.write(identity.chain_pem + identity.key_pem.reveal())
            file.flush()
            context.load_cert_chain(file.name)
        context.set_alpn_protocols(["http/1.1"] if self.wire == HTTP1 else ["h2"])
        return context

    def send(self, attempt):
        """Make an attempt on a connection of its own."""
        self.truth.state = attempt.state
        arrived, decided = len(self.reached), len(self.decided)
        try:
            with self.connect(attempt.caller) as connection:
                client = connection if self.wire == HTTP1 else Http2Client(connection)
                if attempt.before is not None:
                    assert self.ask(client, attempt.before)[0] == 200
                    arrived, decided = len(self.reached), len(self.decided)
                status, headers, body = self.ask(client, attempt)
                if status == 101:  # the request itself is decided after that
                    wait_for(lambda: len(self.decided) > decided, what="a decision")
        except OSError:  # of the handshake
            status, headers, body = 0, {}, b""
        finally:
            self.truth.state = ""
        code = code_in(body)
        if self.wire == GRPC:
            status, code = read_grpc(status, headers, _GRPC_STATUS) if status else (0, "")
        recorded = tuple(
            (one.allowed, one.status, one.code, one.decision_id) for one in self.decided[decided:]
        )
        return Seen(status=status, code=code, reached=tuple(self.reached[arrived:]), recorded=recorded)

    def ask(self, client, attempt):
        """Make an attempt on a connection."""
        if self.wire == HTTP1:
            return ask_http1(client, attempt)
        return ask_http2(client, attempt, grpc=self.wire == GRPC)


@contextlib.contextmanager
def in_a_loop(start):
    """Run ``start(stop)``, an async generator that yields a port, in the loop of another thread."""
    ready, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()
    found = []

    async def run():
        async for port in start(stop):
            found.append(port)
            ready.set()
            await stop.wait()

    def serve():
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(run())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(20)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Recorder:
    """ASGI: notes each request that arrives, then lets the application answer."""

    def __init__(self, app, point):
        self.app, self.point = app, point

    async def __call__(self, scope, receive, send):
        if scope["type"] != "lifespan":
            self.point.arrived(scope.get("method", "GET"), scope["raw_path"], scope["headers"])
        await self.app(scope, receive, send)


async def answering(scope, receive, send):
    """The smallest application."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


class Asgi(SdkPoint):
    """An ASGI application under uvicorn, or hypercorn by HTTP/1.1 or HTTP/2."""

    def __init__(self, server, framework, wire=HTTP1):
        super().__init__()
        self.server, self.framework, self.wire = server, framework, wire
        self.name = f"{framework} ({server}{', HTTP/2' if wire == HTTP2 else ''})"
        self.takes_websockets = framework != "Django"  # it fails on every one by itself

    def serve(self):
        app = getattr(self, f"_{self.framework.lower()}")()
        return in_a_loop(lambda stop: getattr(self, f"_{self.server}")(app))

    async def _uvicorn(self, app):
        import uvicorn

        port = free_port()
        configuration = uvicorn_config(
            app, self.identity, CALLERS, port=port, log_level="critical", lifespan="off"
        )
        server = uvicorn.Server(configuration)
        server.capture_signals = contextlib.nullcontext
        task = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110  # uvicorn offers nothing to wait for
            await asyncio.sleep(0.01)
        yield port
        server.should_exit = True
        await task

    async def _hypercorn(self, app):
        from hypercorn.asyncio import serve

        port, stop = free_port(), asyncio.Event()
        configuration = hypercorn_config(self.identity, CALLERS)
        configuration.bind = [f"127.0.0.1:{port}"]
        configuration.errorlog = configuration.accesslog = None
        configuration.alpn_protocols = ["http/1.1"] if self.wire == HTTP1 else ["h2"]
        task = asyncio.create_task(serve(app, configuration, shutdown_trigger=stop.wait))
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            await asyncio.sleep(0.02)
        yield port
        stop.set()
        await task

    # -- frameworks

    def _asgi(self):
        from everyhop.integrations.asgi import EveryhopMiddleware

        return EveryhopMiddleware(Recorder(answering, self), self.guard)

    def _starlette(self):
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.responses import PlainTextResponse
        from starlette.routing import Mount, Route, WebSocketRoute

        from everyhop.integrations.asgi import EveryhopMiddleware

        async def ok(request):
            return PlainTextResponse("ok")

        async def room(socket):
            await socket.accept()

        every = [Route("/{rest:path}", ok, methods=METHODS), WebSocketRoute("/{rest:path}", room)]
        return Starlette(
            routes=[Mount("/mounted", routes=every), *every],
            middleware=[Middleware(EveryhopMiddleware, guard=self.guard), Middleware(Recorder, point=self)],
        )

    def _fastapi(self):
        from fastapi import FastAPI

        from everyhop.integrations.fastapi import protect

        app = FastAPI()
        app.api_route("/{rest:path}", methods=METHODS)(lambda: "ok")
        app.add_middleware(Recorder, point=self)
        protect(app, self.guard)
        return app

    def _django(self):
        from django.core.handlers.asgi import ASGIHandler

        self._stack.enter_context(django_with(self))
        return ASGIHandler()


# -- Django, which reads its settings from one place


class RecordingDjango:
    """A Django middleware: notes what came past everyhop's."""

    point = None

    sync_capable, async_capable = True, False

    def __init__(self, get_response):
        self._next = get_response

    def __call__(self, request):
        target = (
            request.scope["raw_path"]
            if hasattr(request, "scope")
            else request.META["REQUEST_URI"].encode("latin-1")
        )
        headers = [
            (name.encode(), value.encode("latin-1", "replace")) for name, value in request.headers.items()
        ]
        self.point.arrived(request.method, target, headers)
        return self._next(request)


def django_ok(request, **_):
    from django.http import HttpResponse

    return HttpResponse(b"ok")


@contextlib.contextmanager
def django_with(point):
    """Put this point's guard and a route for everything into Django's settings."""
    from types import ModuleType

    from django.test import override_settings
    from django.urls import re_path
    from tests.support.enforcement_points import configure_django

    configure_django()
    urls = ModuleType("everyhop_bypass_urls")
    urls.urlpatterns = [re_path(r"^.*$", django_ok)]
    recording = f"{__name__}.RecordingDjango"
    RecordingDjango.point = point
    with override_settings(
        ROOT_URLCONF=urls,
        MIDDLEWARE=["everyhop.integrations.django.EveryhopMiddleware", recording],
        EVERYHOP={"GUARD": point.guard},
    ):
        yield


class Wsgi(SdkPoint):
    """A WSGI application under Werkzeug's server."""

    def __init__(self, framework):
        super().__init__()
        self.framework = framework
        self.name = f"{framework} (werkzeug)"

    @contextlib.contextmanager
    def serve(self):
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *_arguments):
                pass

        app = getattr(self, f"_{self.framework.lower()}")()
        context = server_context(self.identity, CALLERS)
        server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet, ssl_context=context)
        server.log = lambda *_: None
        server.handle_error = lambda *_: None  # a handshake that fails
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def note(self, environ):
        headers = [
            (name[5:].replace("_", "-").encode(), value.encode("latin-1"))
            for name, value in environ.items()
            if name.startswith("HTTP_")
        ]
        self.arrived(environ["REQUEST_METHOD"], environ["REQUEST_URI"].encode("latin-1"), headers)

    def _wsgi(self):
        from everyhop.integrations.wsgi import EveryhopMiddleware

        def app(environ, start_response):
            self.note(environ)
            start_response("200 OK", [("Content-Length", "2")])
            return [b"ok"]

        return EveryhopMiddleware(app, self.guard)

    def _flask(self):
        from flask import Flask, request

        from everyhop.integrations.flask import Everyhop

        app = Flask("orders")

        def before():
            self.note(request.environ)
            return "ok"

        app.before_request(before)
        Everyhop(app, self.guard)
        return app

    def _django(self):
        from django.core.handlers.wsgi import WSGIHandler

        self._stack.enter_context(django_with(self))
        return WSGIHandler()


class Aiohttp(SdkPoint):
    """aiohttp and its own server."""

    name = "aiohttp"

    def serve(self):
        return in_a_loop(lambda stop: self._serve())

    async def _serve(self):
        from aiohttp import web

        from everyhop.integrations.aiohttp import server_middleware

        @web.middleware
        async def note(request, handler):
            self.arrived(
                request.method, request.raw_path.encode("utf-8", "surrogateescape"), request.raw_headers
            )
            return web.Response(body=b"ok")

        app = web.Application(middlewares=[server_middleware(self.guard), note])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        port = free_port()
        await web.TCPSite(
            runner, "127.0.0.1", port, ssl_context=server_context(self.identity, CALLERS)
        ).start()
        yield port
        await runner.cleanup()


class GrpcThreads(SdkPoint):
    """gRPC with threads."""

    name, wire, checks_body = "gRPC (threads)", GRPC, False

    def handlers(self, behaviour):
        import grpc

        class Every(grpc.GenericRpcHandler):
            def service(self, details):
                return grpc.unary_unary_rpc_method_handler(behaviour(details))

        return Every()

    def note(self, details, context):
        metadata = [
            (name.encode(), value.encode() if isinstance(value, str) else value)
            for name, value in context.invocation_metadata()
        ]
        self.arrived("POST", details.method.encode("utf-8", "surrogateescape"), metadata)

    @contextlib.contextmanager
    def serve(self):
        import grpc

        from everyhop.integrations.grpc import ServerInterceptor

        def behaviour(details):
            def answer(request, context):
                self.note(details, context)
                return b"ok"

            return answer

        with ThreadPoolExecutor(4) as executor:
            server = grpc.server(
                executor,
                interceptors=[ServerInterceptor(self.guard, source=self.identity)],
                handlers=[self.handlers(behaviour)],
            )
            port = server.add_secure_port("127.0.0.1:0", grpc_server_credentials(self.identity))
            server.start()
            yield port
            server.stop(0).wait()


class GrpcAsyncio(GrpcThreads):
    """gRPC with asyncio."""

    name = "gRPC (asyncio)"

    def serve(self):
        return in_a_loop(lambda stop: self._serve())

    async def _serve(self):
        import grpc

        from everyhop.integrations.grpc_aio import ServerInterceptor

        def behaviour(details):
            async def answer(request, context):
                self.note(details, context)
                return b"ok"

            return answer

        server = grpc.aio.server(interceptors=[ServerInterceptor(self.guard, source=self.identity)])
        server.add_generic_rpc_handlers((self.handlers(behaviour),))
        port = server.add_secure_port("127.0.0.1:0", grpc_server_credentials(self.identity))
        await server.start()
        yield port
        await server.stop(0)


# -- Envoy


class Envoy:
    """The ingress of a real sidecar, by one of its three wires."""

    checks_body = False
    takes_websockets = True
    states = frozenset({"withdrawn"})

    def __init__(self, wire):
        self.wire = wire
        self.name = {HTTP1: "Envoy", HTTP2: "Envoy (HTTP/2)", GRPC: "Envoy (gRPC)"}[wire]
        self._stack = contextlib.ExitStack()
        self._contexts = {}

    def __enter__(self):
        self.mesh = self._stack.enter_context(Mesh(POLICY))
        self.sidecar = self.mesh.sidecar("orders")
        self.app = self.mesh.apps["orders"]
        return self

    def __exit__(self, *exc_info):
        self._stack.close()

    def connect(self, caller):
        context = self._contexts.get(caller)
        if context is None:
            uri = caller if "://" in caller else self.mesh.spiffe_id(caller)
            alpn = ("http/1.1",) if self.wire == HTTP1 else ("h2",)
            context = self._contexts[caller] = self.mesh.client(uri=uri, alpn=alpn)
        return self.mesh.connect("orders", context)

    def send(self, attempt):
        """Make an attempt on a connection of its own."""
        if attempt.state:
            self._apply(WITHDRAWN)
        try:
            return self._send(attempt)
        finally:
            if attempt.state:
                self._apply(POLICY)

    def _apply(self, policy):
        self.mesh.apply(policy)
        configs, wanted = self.mesh.secrets.configs, self.mesh.snapshot.hash
        wait_for(lambda: configs.enforced("orders") == wanted, what="the policy")

    def _send(self, attempt):
        arrived, lines = len(self.app.requests), len(self.sidecar.lines())
        try:
            with self.connect(attempt.caller) as connection:
                client = connection if self.wire == HTTP1 else Http2Client(connection)
                if attempt.before is not None:
                    assert self._ask(client, attempt.before)[0] == 200
                    self.sidecar.lines(lines + 1)
                    arrived, lines = len(self.app.requests), lines + 1
                status, headers, body = self._ask(client, attempt)
        except OSError:
            status, headers, body = 0, {}, b""
        code = code_in(body) if status != 200 else ""
        if self.wire == GRPC:
            status, code = read_grpc(status, headers, _ENVOYS_STATUS) if status else (0, "")
        records = self.sidecar.lines(lines + 1)[lines:]
        recorded = tuple(
            (one.decision == "allow", one.status, one.reason, one.id)
            for one in records
            if one.kind.value == "decision"
        )
        return Seen(status=status, code=code, reached=tuple(self.app.requests[arrived:]), recorded=recorded)

    def _ask(self, client, attempt):
        if self.wire == HTTP1:
            return ask_http1(client, attempt)
        return ask_http2(client, attempt, grpc=self.wire == GRPC)


def points():
    """Return every enforcement point, not yet started, by name."""
    made = [
        *(Envoy(wire) for wire in (HTTP1, HTTP2, GRPC)),
        *(
            Asgi(server, framework)
            for server in ("uvicorn", "hypercorn")
            for framework in ("ASGI", "Starlette", "FastAPI", "Django")
        ),
        Asgi("hypercorn", "ASGI", HTTP2),
        *(Wsgi(framework) for framework in ("WSGI", "Flask", "Django")),
        Aiohttp(),
        GrpcThreads(),
        GrpcAsyncio(),
    ]
    return {point.name: point for point in made}


__all__ = ["Seen", "points", "wait_for"]
