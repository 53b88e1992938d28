# SPDX-License-Identifier: Apache-2.0
"""Claim: the middleware costs at most half of what a PyJWT middleware with the same checks costs, seen token or new.

In process, without sockets: Starlette is called as ASGI, Flask as WSGI, both answer ``ok`` to ``GET /orders/7``.  Each
variant does one request after the other; variants take turns in rounds, and a figure is the CPU time of a request in
the best round (medians beside it).  ES256 tokens with ten claims, bound to a certificate.  The PyJWT middleware checks
signature, algorithm, typ, issuer, audience, time, subject = caller, certificate binding and scope, and keeps no cache;
it looks the operation up in a dictionary by method and first segment, while ours classifies the raw path, finds the
operation, looks the rule up, and makes a decision record.  ``seen`` sends one token all the time, ``new`` another each
time.  All variants must answer 200, and 401 or 403 to a token of another operation.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import platform
import statistics
import sys
import time
from contextvars import ContextVar
from importlib.metadata import version

import jwt
from flask import Flask
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from everyhop.integrations._arrival import PEER_KEY
from everyhop.integrations.asgi import EveryhopMiddleware as AsgiMiddleware
from everyhop.integrations.wsgi import EveryhopMiddleware as WsgiMiddleware
from everyhop.sdk import Guard, Peer
from everyhop.testing import Issuer, service_context

BAR = 0.5
POLICY = """
version: 1
trust_domain: bench.example
services:
  storefront: {workload: [{run: true}]}
  orders:
    workload: [{run: true}]
    operations: {read: {route: "GET /orders/{id}", token: required}, create: POST /orders, list: GET /orders}
allow:
  - {from: storefront, to: orders, operations: all}
"""
CALLER = "spiffe://bench.example/service/storefront"
PEER = Peer(spiffe_id=CALLER, x5t="A" * 43)
CURRENT = ContextVar("current", default=None)


class PyJwtChecks:
    """What a careful team writes with PyJWT."""

    def __init__(self, issuer):
        self.keys = {one["kid"]: jwt.PyJWK(one).key for one in issuer.jwks["keys"]}
        self.issuer = issuer.issuer
        self.operations = {("GET", "orders"): "orders.read"}

    def check(self, method, path, authorization, peer):
        """Give the claims, or None."""
        scheme, _, token = authorization.partition(" ")
        try:
            header = jwt.get_unverified_header(token)
            if scheme != "Bearer" or header.get("typ") != "at+jwt":
                return None
            claims = jwt.decode(
                token,
                self.keys[header["kid"]],
                algorithms=["ES256"],
                audience="orders",
                issuer=self.issuer,
                leeway=5,
                options={"require": ["exp", "iat", "sub", "aud", "iss", "jti"]},
            )
        except (jwt.PyJWTError, KeyError):
            return None
        if claims["sub"] != peer.spiffe_id or claims["client_id"] != claims["sub"]:
            return None
        if claims.get("cnf", {}).get("x5t#S256") != peer.x5t:
            return None
        operation = self.operations.get((method, path.split("/")[1]))
        return claims if operation in claims["scope"].split() else None


class PyJwtAsgi:
    def __init__(self, app, checks):
        self.app, self.checks = app, checks

    async def __call__(self, scope, receive, send):
        authorization = next((v for n, v in scope["headers"] if n == b"authorization"), b"").decode()
        peer = scope["extensions"][PEER_KEY]
        claims = self.checks.check(scope["method"], scope["path"], authorization, peer)
        if claims is None:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        before = CURRENT.set(claims)
        try:
            await self.app(scope, receive, send)
        finally:
            CURRENT.reset(before)


class PyJwtWsgi:
    def __init__(self, app, checks):
        self.app, self.checks = app, checks

    def __call__(self, environ, start_response):
        authorization = environ.get("HTTP_AUTHORIZATION", "")
        claims = self.checks.check(
            environ["REQUEST_METHOD"], environ["PATH_INFO"], authorization, environ[PEER_KEY]
        )
        if claims is None:
            start_response("401 Unauthorized", [])
            return [b""]
        before = CURRENT.set(claims)
        try:
            return self.app(environ, start_response)
        finally:
            CURRENT.reset(before)


def starlette():
    async def read(_request):
        return PlainTextResponse("ok")

    return Starlette(routes=[Route("/orders/{id}", read)])


def flask():
    app = Flask("orders")
    app.get("/orders/<name>")(lambda **_: "ok")
    return app


HEADERS = [
    (b"host", b"orders"),
    (b"user-agent", b"bench/1"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
]


async def ask_asgi(app, token):
    status = 0

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        nonlocal status
        status = message.get("status", status)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https",
        "path": "/orders/7",
        "raw_path": b"/orders/7",
        "query_string": b"",
        "root_path": "",
        "headers": [*HEADERS, (b"authorization", b"Bearer " + token.encode())],
        "server": ("127.0.0.1", 443),
        "client": ("127.0.0.1", 5000),
        "extensions": {PEER_KEY: PEER},
    }
    await app(scope, receive, send)
    return status


def ask_wsgi(app, token):
    status = 0

    def start_response(line, _headers, _error=None):
        nonlocal status
        status = int(line[:3])

    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/orders/7",
        "RAW_URI": "/orders/7",
        "QUERY_STRING": "",
        "SERVER_NAME": "orders",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "HTTP_AUTHORIZATION": f"Bearer {token}",
        PEER_KEY: PEER,
        **{f"HTTP_{n.decode().upper().replace('-', '_')}": v.decode() for n, v in HEADERS},
    }
    answer = app(environ, start_response)
    for _ in answer:
        pass
    if hasattr(answer, "close"):
        answer.close()
    return status


def run_asgi(app, tokens):
    async def run():
        began = time.process_time_ns()
        for token in tokens:
            await ask_asgi(app, token)
        return time.process_time_ns() - began

    return asyncio.run(run())


def run_wsgi(app, tokens):
    began = time.process_time_ns()
    for token in tokens:
        ask_wsgi(app, token)
    return time.process_time_ns() - began


def measure(run, variants, tokens, options):
    """Give µs per request by variant: (best, median) over the rounds."""
    samples = {name: [] for name in variants}
    for _ in range(options.rounds):
        for name, (app, chosen) in variants.items():
            given = (
                [next(tokens) for _ in range(options.requests)]
                if chosen is None
                else [chosen] * options.requests
            )
            gc.collect()
            samples[name].append(run(app, given) / options.requests / 1000)
    return {name: (min(found), statistics.median(found)) for name, found in samples.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    issuer = Issuer("bench.example")

    def token(scope="orders.read"):
        return issuer.access("storefront", "orders", scope=[scope], x5t=PEER.x5t)

    def new():
        while True:
            yield token()

    context = service_context(POLICY, "orders", issuer)
    ours = Guard(context, decisions=lambda _: None)
    logged = Guard(context)
    pyjwt = PyJwtChecks(issuer)
    print(f"{platform.processor() or platform.machine()}, CPython {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in ("starlette", "flask", "PyJWT", "cryptography")))
    print(f"{options.requests} requests a round, best of {options.rounds} rounds; µs of CPU per request\n")

    worst = 0.0
    for framework, bare, wrap, peer_wrap, run, ask in (
        (
            "Starlette",
            starlette(),
            AsgiMiddleware,
            PyJwtAsgi,
            run_asgi,
            lambda a, t: asyncio.run(ask_asgi(a, t)),
        ),
        ("Flask", flask(), WsgiMiddleware, PyJwtWsgi, run_wsgi, ask_wsgi),
    ):
        one = token()
        guarded, peer = wrap(bare, ours), peer_wrap(bare, pyjwt)
        for app in (guarded, peer, wrap(bare, logged)):
            assert ask(app, one) == 200
            assert ask(app, token("orders.list")) in {401, 403}
        variants = {
            "none": (bare, one),
            "everyhop, seen token": (guarded, one),
            "everyhop, seen token, logger off": (wrap(bare, logged), one),
            "everyhop, new token": (guarded, None),
            "PyJWT, seen token": (peer, one),
            "PyJWT, new token": (peer, None),
        }
        run(guarded, [one] * 500)
        found = measure(run, variants, new(), options)
        base = found["none"][0]
        print(f"{framework:<36}{'best':>9}{'median':>9}{'added':>9}")
        for name, (best, median) in found.items():
            print(f"  {name:<34}{best:9.1f}{median:9.1f}{best - base:9.1f}")
        for kind in ("seen", "new"):
            added = found[f"everyhop, {kind} token"][0] - base
            theirs = found[f"PyJWT, {kind} token"][0] - base
            ratio = added / theirs
            print(f"  {kind} token: added cost {ratio:.2f}x that of the PyJWT middleware")
            if kind == "seen":
                worst = max(worst, ratio)
        print()
    print(f"bar: a seen token adds at most {BAR}x the PyJWT middleware's cost; worst {worst:.2f}x")
    return 0 if worst <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
