# SPDX-License-Identifier: Apache-2.0
"""The HTTP clients, with and without a sidecar: what they send, to whom, and what they never send."""

import asyncio
import contextlib
import json
import threading

import pytest
from tests.support.leftovers import collect_leftovers

from everyhop.core.errors import AccessDenied
from everyhop.integrations.asgi import EveryhopMiddleware
from everyhop.sdk import Guard, caller, connect, serving, user, uvicorn_config
from everyhop.testing import Authority, FakeAgent, Issuer, verified_call

# uvicorn's loop ends while TLS connections still say good-bye; that is between uvicorn and asyncio.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")

POLICY = """
version: 1
trust_domain: shop.example
services:
  orders: {workload: [{run: true}]}
  ledger: {workload: [{run: true}]}
  payments:
    workload: [{run: true}]
    operations:
      charge: {route: POST /v1/charges, token: required}
      read: GET /v1/charges
allow:
  - {from: orders, to: payments, operations: [charge, read], user: optional}
users: {issuers: [{issuer: 'https://idp.example', audience: shop}]}
"""


class Payments:
    """The callee: says who called, redirects and refuses on demand, and remembers every request."""

    def __init__(self):
        self.seen = []
        self.redirect = None
        self.refuse_next = 0

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.seen.append({"path": scope["path"], "headers": headers, "body": body})
        status, more = 200, []
        if self.refuse_next:
            self.refuse_next -= 1
            status = 401
            more = [(b"www-authenticate", b'Bearer realm="everyhop", error="invalid_token"')]
        elif self.redirect:
            status, more = 307, [(b"location", self.redirect.encode())]
        said = {"caller": caller() and str(caller()), "user": user() and str(user()), "body": body.decode()}
        data = json.dumps(said).encode()
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode()), *more]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": data})


@contextlib.contextmanager
def running(config):
    """Run a uvicorn server in a thread of its own."""
    import uvicorn

    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.01)
        yield server
    finally:
        server.should_exit = True
        thread.join(10)
        del server, thread
        collect_leftovers()


OPTIONS = {"log_config": None, "lifespan": "off", "timeout_graceful_shutdown": 1}


class Town:
    """A trust domain in this process: orders, which calls, and payments, which is called over real mutual TLS."""

    def __init__(self, stack):
        authority, issuer = Authority(), Issuer()
        self.app = Payments()
        self.agent = stack.enter_context(FakeAgent(POLICY, "payments", authority=authority, issuer=issuer))
        self.payments = stack.enter_context(connect(self.agent.socket))
        guard = Guard(self.payments, decisions=lambda decided: None)
        config = uvicorn_config(
            EveryhopMiddleware(self.app, guard), self.payments.x509, self.payments, port=0, **OPTIONS
        )
        server = stack.enter_context(running(config))
        self.port = server.servers[0].sockets[0].getsockname()[1]
        dead = ("127.0.0.1", 1)  # an instance that is gone: the next one is tried
        self.orders_agent = stack.enter_context(
            FakeAgent(
                POLICY,
                "orders",
                authority=authority,
                issuer=issuer,
                endpoints={"payments": (dead, ("127.0.0.1", self.port))},
            )
        )
        self.orders = stack.enter_context(connect(self.orders_agent.socket))
        self.txn = issuer.transaction("alice")


@pytest.fixture(scope="module")
def town():
    with contextlib.ExitStack() as stack:
        yield Town(stack)
    collect_leftovers()


@pytest.fixture
def app(town):
    town.app.seen.clear()
    town.app.redirect, town.app.refuse_next = None, 0
    return town.app


@pytest.fixture
def current(town):
    verified = verified_call("list", user="alice", txn_token=town.txn)
    with serving(verified):
        yield verified


# -- every client behind one face


def in_httpx(options):
    return {"content" if name == "data" else name: value for name, value in options.items()}


def with_httpx(workload, method, url, *, sidecar=None, redirects=False, **options):
    from everyhop.integrations.httpx import client

    with client(workload, sidecar=sidecar, follow_redirects=redirects) as http:
        answer = http.request(method, url, **in_httpx(options))
        return answer.status_code, answer.json()


def with_async_httpx(workload, method, url, *, sidecar=None, redirects=False, **options):
    from everyhop.integrations.httpx import async_client

    async def run():
        async with async_client(workload, sidecar=sidecar, follow_redirects=redirects) as http:
            answer = await http.request(method, url, **in_httpx(options))
            return answer.status_code, answer.json()

    return asyncio.run(run())


def with_requests(workload, method, url, *, sidecar=None, redirects=False, **options):
    from everyhop.integrations.requests import session

    with session(workload, sidecar=sidecar) as http:
        answer = http.request(method, url, allow_redirects=redirects, timeout=10, **options)
        assert not {"authorization", "txn-token"} & {name.lower() for name in answer.request.headers}
        return answer.status_code, answer.json()


def with_aiohttp(workload, method, url, *, sidecar=None, redirects=False, **options):
    from everyhop.integrations.aiohttp import session

    async def run():
        try:
            async with (
                session(workload, sidecar=sidecar) as http,
                http.request(method, url, allow_redirects=redirects, **options) as answer,
            ):
                return answer.status, await answer.json()
        finally:
            await asyncio.sleep(0.05)  # aiohttp does not wait for the end of TLS connections that it closes

    return asyncio.run(run())


CLIENTS = [with_httpx, with_async_httpx, with_requests, with_aiohttp]
each_client = pytest.mark.parametrize("ask", CLIENTS)


@each_client
def test_without_a_sidecar_it_is_mutual_tls_and_a_token(ask, town, app, current):
    status, said = ask(town.orders, "POST", "http://payments/v1/charges?x=1", json={"amount": 7})
    assert (status, said["caller"]) == (200, "spiffe://shop.example/service/orders")
    assert said["user"] == "alice"
    assert json.loads(said["body"]) == {"amount": 7}
    headers = app.seen[-1]["headers"]
    assert headers["host"] == "payments"
    assert headers["traceparent"].split("-")[1] == current.trace.trace_id


@each_client
def test_where_the_policy_asks_for_no_token_there_is_none(ask, town, app):
    status, said = ask(town.orders, "GET", "http://payments.shop.example/v1/charges")
    assert (status, said["user"]) == (200, None)
    assert "authorization" not in app.seen[-1]["headers"]
    assert "txn-token" not in app.seen[-1]["headers"]


@each_client
def test_an_invalid_token_is_replaced_once(ask, town, app):
    minted = town.orders_agent.calls.get("Mint", 0)
    app.refuse_next = 1
    assert ask(town.orders, "POST", "http://payments/v1/charges", data=b"x")[0] == 200
    tokens = [one["headers"]["authorization"] for one in app.seen]
    assert len(tokens) == 2
    assert tokens[0] != tokens[1]
    assert [one["body"] for one in app.seen] == [b"x", b"x"]
    app.refuse_next = 5
    assert ask(town.orders, "POST", "http://payments/v1/charges")[0] == 401
    assert len(app.seen) == 4
    assert town.orders_agent.calls["Mint"] <= minted + 4


@each_client
@pytest.mark.parametrize(
    "url", ["http://evil.example/", "http://127.0.0.1:9/", "https://ledger/", "http://payments.evil.example/"]
)
def test_no_other_host_is_called(ask, town, app, url):
    with pytest.raises(AccessDenied):
        ask(town.orders, "GET", url)


@each_client
@pytest.mark.parametrize("path", ["/v1/other", "/v1/charges/../charges", "/v1//charges"])
def test_what_the_policy_does_not_open_is_not_sent(ask, town, app, path):
    method = "DELETE" if path == "/v1/charges/../charges" else "POST"  # clients tidy paths up themselves
    with pytest.raises(AccessDenied):
        ask(town.orders, method, f"http://payments{path}")
    assert not app.seen


@each_client
def test_a_redirect_leads_nowhere_else(ask, town, app, current):
    app.redirect = "http://evil.example/steal"
    with pytest.raises(AccessDenied):
        ask(town.orders, "POST", "http://payments/v1/charges", redirects=True)
    assert len(app.seen) == 1


@each_client
def test_after_a_rotation_token_and_connection_change_together(ask, town, app):
    assert ask(town.orders, "POST", "http://payments/v1/charges")[0] == 200
    fresh = town.orders_agent.rotate()
    for _ in range(200):
        if town.orders.x509.svid.x5t == fresh.x5t:
            break
        threading.Event().wait(0.02)
    assert ask(town.orders, "POST", "http://payments/v1/charges")[0] == 200
    assert len(app.seen) == 2  # no first try that failed


def test_one_client_lives_through_rotations(town, app):
    from everyhop.integrations.httpx import client

    with client(town.orders) as http:
        for _ in range(3):
            assert http.post("http://payments/v1/charges").status_code == 200
            fresh = town.orders_agent.rotate()
            while town.orders.x509.svid.x5t != fresh.x5t:
                threading.Event().wait(0.02)
        assert http.post("http://payments/v1/charges").status_code == 200
        pools = http._transport._pools._pools["payments"]
        assert len(pools) == 2


def test_a_stranger_in_the_place_of_the_service_gets_nothing(town, app):
    """Whatever listens there must be the service itself, not just somebody of the trust domain."""
    from everyhop.integrations.httpx import client

    with (
        FakeAgent(POLICY, "ledger", authority=town.orders_agent.authority) as agent,
        connect(agent.socket) as ledger,
        running(uvicorn_config(app, ledger.x509, lambda found: True, port=0, **OPTIONS)) as server,
    ):
        port = server.servers[0].sockets[0].getsockname()[1]
        town.orders_agent.change(endpoints={"payments": (("127.0.0.1", port),)})
        try:
            while town.orders.context.targets["payments"].ingress != (f"127.0.0.1:{port}",):
                threading.Event().wait(0.02)
            with client(town.orders) as http, pytest.raises(Exception, match="not allowed"):
                http.post("http://payments/v1/charges")
        finally:
            town.orders_agent.change(endpoints={"payments": (("127.0.0.1", town.port),)})
    assert not app.seen


# -- behind a sidecar


@pytest.fixture
def egress(app, monkeypatch, tmp_path_factory):
    """Something in the place of the sidecar's egress: a Unix socket and a proxy port, both plain HTTP."""
    import tempfile

    import uvicorn

    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ehegress") as directory:
        path = f"{directory}/egress.sock"
        with (
            running(uvicorn.Config(app, uds=path, **OPTIONS)),
            running(uvicorn.Config(app, port=0, **OPTIONS)) as proxy,
        ):
            port = proxy.servers[0].sockets[0].getsockname()[1]
            monkeypatch.setenv("EVERYHOP_EGRESS", path)
            monkeypatch.setenv("http_proxy", f"http://orders:secret@127.0.0.1:{port}")
            yield path


@each_client
def test_behind_a_sidecar_only_user_and_trace_are_sent(ask, town, app, egress, current):
    minted = town.orders_agent.calls.get("Mint", 0)
    status, said = ask(town.orders, "POST", "http://payments/v1/charges", data=b"x")
    assert (status, said["body"]) == (200, "x")
    headers = app.seen[-1]["headers"]
    assert headers["host"] == "payments"
    assert "authorization" not in headers
    assert headers["txn-token"] == town.txn
    assert headers["traceparent"].split("-")[1] == current.trace.trace_id
    assert town.orders_agent.calls.get("Mint", 0) == minted
    with pytest.raises(AccessDenied):
        ask(town.orders, "GET", "http://evil.example/")
    assert len(app.seen) == 1


@each_client
def test_the_environment_can_be_overruled(ask, town, app, egress):
    assert ask(town.orders, "POST", "http://payments/v1/charges", sidecar=False)[1]["caller"] is not None


# -- identity for clients of one's own


def test_httpx_auth_is_on_the_wire_and_nowhere_else(town, current):
    import httpx

    from everyhop.integrations.httpx import EveryhopAuth

    wire = []

    class Recording(httpx.BaseTransport):
        def handle_request(self, request):
            wire.append((request.url.host, dict(request.headers.raw)))
            if request.url.host == "payments":
                return httpx.Response(307, headers={"location": "https://evil.example/"})
            return httpx.Response(200)

    http = httpx.Client(transport=Recording(), auth=EveryhopAuth(town.orders), follow_redirects=True)
    answer = http.post("https://payments/v1/charges", headers={"Authorization": "Bearer forged"})
    (first, sent), (second, leaked) = wire
    assert (first, second) == ("payments", "evil.example")
    assert sent[b"Authorization"].startswith(b"Bearer ey")
    assert sent[b"Txn-Token"] == town.txn.encode()
    assert not {b"authorization", b"txn-token", b"traceparent"} & {name.lower() for name in leaked}
    assert "txn-token" not in answer.history[0].request.headers
    for url in ("https://evil.example/", "http://payments/v1/charges"):  # another host; no TLS
        wire.clear()
        http.get(url, follow_redirects=False)
        assert not {b"authorization", b"txn-token"} & {name.lower() for name in wire[0][1]}


async def test_httpx_auth_for_asyncio(town, current):
    import httpx

    from everyhop.integrations.httpx import EveryhopAuth

    wire = []

    async def handle(request):
        wire.append(dict(request.headers.raw))
        return httpx.Response(401, headers={"www-authenticate": 'Bearer error="invalid_token"'})

    async with httpx.AsyncClient(
        transport=httpx.MockTransport(handle), auth=EveryhopAuth(town.orders)
    ) as http:
        await http.post("https://payments/v1/charges")
        await http.post("https://evil.example/v1/charges")
    assert [b"Authorization" in sent for sent in wire] == [True, True, False]

    async def parts():
        yield b"x"

    class Unread(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            return await handle(request)

    wire.clear()
    async with httpx.AsyncClient(transport=Unread(), auth=EveryhopAuth(town.orders)) as http:
        await http.post("https://payments/v1/charges", content=parts())
    assert len(wire) == 1  # what was streamed cannot be sent again


def test_requests_auth_is_taken_off_again(town, current):
    import requests
    from requests.adapters import BaseAdapter

    from everyhop.integrations.requests import EveryhopAuth

    wire = []

    class Recording(BaseAdapter):
        def send(self, request, **options):
            wire.append((request.url, dict(request.headers)))
            response = requests.Response()
            response.request, response.url, response.connection = request, request.url, self
            response.raw = __import__("io").BytesIO()
            stale = len(wire) == 1
            response.status_code = 401 if stale else 307 if "payments" in request.url else 200
            response.headers.update(
                {"www-authenticate": 'Bearer error="invalid_token"'}
                if stale
                else {"location": "https://evil.example/"}
            )
            return response

        def close(self):
            pass

    http = requests.Session()
    http.mount("https://", Recording())
    http.auth = EveryhopAuth(town.orders)
    answer = http.post("https://payments/v1/charges", data=b"x")
    assert answer.status_code == 200
    (_, first), (_, second), (where, leaked) = wire
    assert first["Authorization"] != second["Authorization"]
    assert first["Txn-Token"] == second["Txn-Token"] == town.txn
    assert where == "https://evil.example/"
    assert not {"authorization", "txn-token", "traceparent"} & {name.lower() for name in leaked}
    wire.clear()
    http.get("https://evil.example/")
    assert not {"Authorization", "Txn-Token"} & set(wire[0][1])
