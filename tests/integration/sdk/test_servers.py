# SPDX-License-Identifier: Apache-2.0
"""Mutual TLS without a sidecar under the servers people run: each request knows the peer of its own connection."""

import asyncio
import json
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest
from tests.support.leftovers import collect_leftovers

from everyhop.core.errors import TrustError, Unavailable
from everyhop.sdk import (
    asgi_peer,
    client_context,
    grpc_peer,
    grpc_server_credentials,
    hypercorn_config,
    peer_of,
    server_context,
    uvicorn_config,
    wsgi_peer,
)
from everyhop.testing import Authority, FixedX509Source

SHOP = Authority("shop.example")
ORDERS = "spiffe://shop.example/service/orders"
CALLERS = [f"spiffe://shop.example/service/{name}" for name in ("storefront", "reporting")]


def source(name):
    return FixedX509Source(SHOP.issue(name))


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await asyncio.sleep(0.005)  # let others in between
    try:
        peer = asgi_peer(scope)
        seen = None if peer is None else [peer.spiffe_id, peer.x5t]
    except TrustError as error:
        seen = error.message
    body = json.dumps(seen).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(autouse=True)
def no_leftovers():
    yield
    collect_leftovers()


@asynccontextmanager
async def uvicorn_server(identity):
    import uvicorn

    port = free_port()
    configuration = uvicorn_config(
        application, identity, CALLERS, port=port, log_level="critical", lifespan="off"
    )
    server = uvicorn.Server(configuration)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn offers nothing to wait for
        await asyncio.sleep(0.01)
    yield port
    server.should_exit = True
    await task
    await asyncio.sleep(0.05)  # for the last words of its connections


@asynccontextmanager
async def hypercorn_server(identity):
    from hypercorn.asyncio import serve

    port, stop = free_port(), asyncio.Event()
    configuration = hypercorn_config(identity, CALLERS)
    configuration.bind = [f"127.0.0.1:{port}"]
    configuration.errorlog = configuration.accesslog = None
    task = asyncio.create_task(serve(application, configuration, shutdown_trigger=stop.wait))
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        await asyncio.sleep(0.02)
    yield port
    stop.set()
    await task


async def ask(port, identity, times=1, path="/"):
    """What the server says on one connection made with an identity."""
    context = client_context(identity, ORDERS)
    context.set_alpn_protocols(["http/1.1"])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="orders")
    answers = []
    try:
        for _ in range(times):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: orders\r\nX-Everyhop-Caller: x\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            )
            answers.append(json.loads(await reader.readexactly(length)))
    finally:
        writer.close()
        with suppress(ssl.SSLError, OSError):
            await writer.wait_closed()
    return answers


SERVERS = pytest.mark.parametrize("server", [uvicorn_server, hypercorn_server])


@SERVERS
async def test_each_request_knows_its_own_connection(server):
    identity = source("orders")
    clients = [source("storefront"), source("reporting"), source("storefront")]
    async with server(identity) as port:
        answers = await asyncio.gather(*(ask(port, client, times=20) for client in clients * 4))
    for client, answer in zip(clients * 4, answers, strict=True):
        assert answer == [[str(client.svid.spiffe_id), client.svid.x5t]] * 20


@SERVERS
async def test_strangers_get_no_answer(server):
    async with server(source("orders")) as port:
        for stranger in (source("intruder"), FixedX509Source(Authority("shop.example").issue("storefront"))):
            with pytest.raises((ssl.SSLError, OSError, asyncio.IncompleteReadError)):
                await ask(port, stranger)
        bare = ssl.create_default_context()
        bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
        with pytest.raises((ssl.SSLError, OSError, asyncio.IncompleteReadError)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=bare)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readexactly(1)
        plain_reader, plain_writer = await asyncio.open_connection("127.0.0.1", port)
        plain_writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" not in await plain_reader.read(1000)
        plain_writer.close()


@SERVERS
async def test_rotation_and_withdrawal_without_restart(server):
    identity, client = source("orders"), source("storefront")

    class Rotating:
        svid = identity.svid

    rotating = Rotating()
    async with server(rotating) as port:
        assert await ask(port, client)
        SHOP.rotate()
        rotating.svid, client.svid = SHOP.issue("orders"), SHOP.issue("storefront")
        assert await ask(port, client) == [[CALLERS[0], client.svid.x5t]]

        class Gone:
            def __get__(self, *_):
                raise Unavailable("withdrawn")

        Rotating.svid = Gone()
        del rotating.svid
        with pytest.raises((ssl.SSLError, OSError, asyncio.IncompleteReadError)):
            await ask(port, client)


# -- blocking servers


@contextmanager
def wsgi_server(identity):
    from werkzeug.serving import make_server

    def app(environ, start_response):
        peer = wsgi_peer(environ)
        body = json.dumps([peer.spiffe_id, peer.x5t]).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=server_context(identity, CALLERS))
    server.log = lambda *_: None
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def get(port, identity):
    import http.client

    connection = http.client.HTTPSConnection(
        "127.0.0.1", port, context=client_context(identity, ORDERS), timeout=10
    )
    try:
        connection.request("GET", "/")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def test_werkzeug_rotates_its_listening_socket_too(capfd):
    identity, clients = source("orders"), [source("storefront"), source("reporting")]
    with wsgi_server(identity) as port:
        with ThreadPoolExecutor(8) as pool:
            for client, answer in zip(
                clients * 10, pool.map(lambda c: get(port, c), clients * 10), strict=True
            ):
                assert answer == [str(client.svid.spiffe_id), client.svid.x5t]
        SHOP.rotate(forget=True)
        identity.svid = SHOP.issue("orders")
        new = source("storefront")
        assert get(port, new) == [CALLERS[0], new.svid.x5t]
        with pytest.raises((ssl.SSLError, OSError)):
            get(port, clients[0])
        with pytest.raises((ssl.SSLError, OSError)):
            get(port, source("intruder"))


def test_environ_from_the_client_is_no_connection():
    assert wsgi_peer({"HTTP_WERKZEUG_SOCKET": "x", "werkzeug.socket": "x", "gunicorn.socket": None}) is None
    assert asgi_peer({"type": "http", "headers": [], "state": {"everyhop.connection": "x"}}) is None
    assert asgi_peer({"type": "http", "headers": []}) is None


# -- other clients


async def test_httpx_aiohttp_and_requests_take_the_context():
    import aiohttp
    import httpx
    import requests
    from requests.adapters import HTTPAdapter

    client = source("storefront")
    context = client_context(client, ORDERS)
    expected = [CALLERS[0], client.svid.x5t]

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args, **named):
            super().init_poolmanager(*args, ssl_context=context, **named)

        def cert_verify(self, *args):
            pass

    def by_requests(url):
        with requests.Session() as session:
            session.trust_env = False
            session.mount("https://", Adapter())
            return session.get(url, timeout=10).json()

    def by_httpx(url):
        with httpx.Client(verify=context, trust_env=False) as session:
            return session.get(url).json()

    async with uvicorn_server(source("orders")) as port:
        url = f"https://127.0.0.1:{port}/"
        assert await asyncio.to_thread(by_requests, url) == expected
        assert await asyncio.to_thread(by_httpx, url) == expected
        async with httpx.AsyncClient(verify=context, trust_env=False) as session:
            assert (await session.get(url)).json() == expected
        async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as answer:
            assert await answer.json() == expected
        wrong = client_context(client, CALLERS[1])
        with pytest.raises(httpx.ConnectError):
            async with httpx.AsyncClient(verify=wrong, trust_env=False) as session:
                await session.get(url)


# -- gRPC


def test_grpc_servers_rotate_and_know_the_peer():
    grpc = pytest.importorskip("grpc")
    identity = source("orders")
    seen = []

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            def answer(request, context):
                try:
                    seen.append(grpc_peer(context.auth_context(), identity))
                except TrustError as error:
                    seen.append(error)
                return request

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Handler()])
    port = server.add_secure_port("127.0.0.1:0", grpc_server_credentials(identity))
    server.start()

    def call(client):
        """A call with gRPC's own client; it takes the server's certificate for what TLS's oldest field says."""
        import subprocess
        import sys

        program = f"""
import ssl, socket, sys, os
from h2.connection import H2Connection
from h2.config import H2Configuration
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.set_alpn_protocols(["h2"])
fd = os.memfd_create("k"); os.write(fd, sys.stdin.buffer.read())
context.load_cert_chain(f"/proc/self/fd/{{fd}}")
tls = context.wrap_socket(socket.create_connection(("127.0.0.1", {port})), server_hostname="orders")
h2 = H2Connection(H2Configuration(client_side=True)); h2.initiate_connection()
h2.send_headers(1, [(":method","POST"),(":scheme","https"),(":path","/a.B/C"),(":authority","orders"),("te","trailers"),("content-type","application/grpc")])
h2.send_data(1, bytes(5), end_stream=True)
tls.sendall(h2.data_to_send())
status = None
while status is None:
    data = tls.recv(65536)
    if not data: break
    for event in h2.receive_data(data):
        for name, value in getattr(event, "headers", None) or []:
            if name in ("grpc-status", b"grpc-status"): status = value
    tls.sendall(h2.data_to_send())
print(status)
"""
        material = client.svid.chain_pem + client.svid.key_pem.reveal()
        return subprocess.run(
            [sys.executable, "-c", program], input=material, capture_output=True, timeout=60, check=False
        )

    try:
        client = source("storefront")
        assert call(client).stdout, call(client).stderr
        assert (seen[-1].spiffe_id, seen[-1].x5t) == (CALLERS[0], client.svid.x5t)
        SHOP.rotate(forget=True)
        identity.svid = SHOP.issue("orders")
        count = len(seen)
        answer = call(client)  # its authority is gone
        assert answer.stdout == b"None\n" or b"Error" in answer.stderr
        assert len(seen) == count
        new = source("reporting")
        assert call(new).stdout
        assert seen[-1].spiffe_id == CALLERS[1]
    finally:
        server.stop(0).wait()


def test_grpc_peer_without_and_with_a_bad_chain():
    identity = source("orders")
    assert grpc_peer({}, identity) is None
    good = SHOP.issue("storefront")
    assert grpc_peer({"x509_pem_cert": [good.chain_pem]}, identity).spiffe_id == CALLERS[0]
    other = Authority("shop.example").issue("storefront")
    for auth in (
        {"x509_pem_cert": [other.chain_pem]},
        {"x509_pem_cert": [good.chain_pem], "x509_pem_cert_chain": [other.chain_pem]},
        {"x509_pem_cert": [good.chain_pem + other.chain_pem]},
    ):
        with pytest.raises(TrustError):
            grpc_peer(auth, identity)


def test_peer_of_wants_a_connection_of_ours():
    with socket.socket() as plain, pytest.raises(TrustError):
        peer_of(plain)
