# SPDX-License-Identifier: Apache-2.0
import asyncio
import tempfile
from pathlib import Path

import pytest
from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod
from grpclib.exceptions import GRPCError, StreamTerminatedError

from everyhop.core.errors import (
    AccessDenied,
    AttestationError,
    ChainError,
    Conflict,
    EveryhopError,
    InputError,
    NotFound,
    SvidError,
    Unavailable,
)
from everyhop.wire import processes, rpc, transport
from everyhop.wire.rpc import Cardinality, GrpcStatus, Method, Service, current_peer
from everyhop.wire.sockets import UnixListener
from everyhop.wire.transport import Limits, PeerServer
from everyhop.wire.workload_pb2 import JWTSVIDRequest, JWTSVIDResponse

ASK, TALK = "/test.Test/Ask", "/test.Test/Talk"


class Server:
    """One method ``Ask`` that does what the test says, one ``Talk`` that answers each message."""

    def __init__(self, directory, **options):
        self.path = directory / "s"
        self.options = options
        self.handler = None

    async def ask(self, call):
        await self.handler(call)

    async def talk(self, call):
        while (message := await call.receive()) is not None:
            await call.send(JWTSVIDResponse(svids=[{"svid": name} for name in message.audience]))

    async def __aenter__(self):
        methods = [
            Method(
                path=path, cardinality=kind, request=JWTSVIDRequest, reply=JWTSVIDResponse, handler=handler
            )
            for path, kind, handler in (
                (ASK, Cardinality.UNARY_UNARY, self.ask),
                (TALK, Cardinality.STREAM_STREAM, self.talk),
            )
        ]
        self.server = PeerServer([Service(methods)], **self.options)
        self.listener = UnixListener.bind(self.path, mode=0o600)
        await self.server.start(self.listener)
        self.channel = Channel(path=str(self.path))
        return self

    async def __aexit__(self, *exc_info):
        self.channel.close()
        await self.server.close()
        self.listener.close()

    async def request(self, *audience):
        method = UnaryUnaryMethod(self.channel, ASK, JWTSVIDRequest, JWTSVIDResponse)
        return await method(JWTSVIDRequest(audience=audience), timeout=5)


@pytest.fixture
async def server():
    with tempfile.TemporaryDirectory(prefix="eh-") as name:
        async with Server(Path(name)) as running:
            yield running


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("no"), GrpcStatus.INVALID_ARGUMENT),
        (SvidError("no"), GrpcStatus.INVALID_ARGUMENT),
        (ChainError("no"), GrpcStatus.INVALID_ARGUMENT),
        (AttestationError("no"), GrpcStatus.PERMISSION_DENIED),
        (AccessDenied("no"), GrpcStatus.PERMISSION_DENIED),
        (Conflict("no"), GrpcStatus.FAILED_PRECONDITION),
        (NotFound("no"), GrpcStatus.NOT_FOUND),
        (Unavailable("no"), GrpcStatus.UNAVAILABLE),
        (EveryhopError("no"), GrpcStatus.INTERNAL),
    ],
)
async def test_errors_become_statuses(server, error, status):
    async def handler(call):
        await call.receive_only()
        raise error

    server.handler = handler
    with pytest.raises(GRPCError) as caught:
        await server.request("a")
    assert (caught.value.status, caught.value.message) == (status, "no")


async def test_what_was_not_expected_tells_the_caller_nothing(server, caplog):
    async def handler(call):
        raise RuntimeError("key=s3cret")

    server.handler = handler
    with pytest.raises(GRPCError) as caught:
        await server.request("a")
    assert (caught.value.status, caught.value.message) == (GrpcStatus.INTERNAL, "internal error")
    assert "s3cret" in caplog.text  # for the operator


async def test_a_timeout_of_ours_is_deadline_exceeded(server):
    async def handler(call):
        raise TimeoutError

    server.handler = handler
    with pytest.raises(GRPCError) as caught:
        await server.request("a")
    assert caught.value.status is GrpcStatus.DEADLINE_EXCEEDED


async def test_a_request_that_never_comes(server, monkeypatch):
    monkeypatch.setattr(rpc, "FIRST_MESSAGE_SECONDS", 0.05)

    async def handler(call):
        await call.receive_only()

    server.handler = handler
    method = UnaryUnaryMethod(server.channel, ASK, JWTSVIDRequest, JWTSVIDResponse)
    with pytest.raises(GRPCError, match="in time"):
        async with method.open() as stream:
            await stream.send_request()
            await stream.recv_message()


async def test_the_handler_knows_its_peer_and_its_metadata(server):
    async def handler(call):
        await call.receive_only()
        assert call.peer is current_peer()
        await call.send(
            JWTSVIDResponse(svids=[{"svid": f"{call.peer.pid} {call.metadata('x')} {call.method}"}])
        )

    server.handler = handler
    method = UnaryUnaryMethod(server.channel, ASK, JWTSVIDRequest, JWTSVIDResponse)
    reply = await method(JWTSVIDRequest(), metadata={"x": "1"})
    (peer,) = server.server.peers
    assert reply.svids[0].svid == f"{peer.pid} ('1',) {ASK}"
    with pytest.raises(LookupError):
        current_peer()


async def test_a_stream_in_both_directions(server):
    method = StreamStreamMethod(server.channel, TALK, JWTSVIDRequest, JWTSVIDResponse)
    async with method.open() as stream:
        for word in ("a", "b"):
            await stream.send_message(JWTSVIDRequest(audience=[word]))
            assert (await stream.recv_message()).svids[0].svid == word
        await stream.end()
        assert await stream.recv_message() is None


async def test_closing_ends_open_calls_and_forgets_their_peers(server):
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(call):
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    server.handler = handler
    asking = asyncio.create_task(server.request("a"))
    await asyncio.wait_for(started.wait(), 5)
    await server.server.close()
    assert cancelled.is_set()
    assert server.server.peers == ()
    with pytest.raises((GRPCError, StreamTerminatedError)):
        await asking


async def test_more_connections_than_allowed():
    with tempfile.TemporaryDirectory(prefix="eh-") as name:
        async with Server(Path(name), limits=Limits(connections=1)) as server:

            async def handler(call):
                await call.receive_only()
                await call.send(JWTSVIDResponse())

            server.handler = handler
            await server.request()
            reader, writer = await asyncio.open_unix_connection(str(server.path))
            with pytest.raises(ConnectionError):
                if await reader.read() == b"":
                    raise ConnectionResetError
            writer.close()
            await server.request()


async def test_only_unix_sockets():
    server = PeerServer([])

    class Transport(asyncio.Transport):
        def get_extra_info(self, name, default=None):
            return None

    with pytest.raises(AttestationError, match="not a Unix socket"):
        server.admit(Transport())


async def test_a_peer_is_watched_without_a_pidfd_too(monkeypatch):
    monkeypatch.setattr(transport, "_LIVENESS_SECONDS", 0.02)

    def refuse(pid, flags=0):
        raise OSError(38, "not implemented")

    monkeypatch.setattr(processes.os, "pidfd_open", refuse)
    with tempfile.TemporaryDirectory(prefix="eh-") as name:
        async with Server(Path(name), kernel_pidfd=False) as server:
            method = StreamStreamMethod(server.channel, TALK, JWTSVIDRequest, JWTSVIDResponse)
            async with method.open() as stream:
                await stream.send_message(JWTSVIDRequest(audience=["a"]))
                assert (await stream.recv_message()).svids[0].svid == "a"
                await asyncio.sleep(0.06)
                (peer,) = server.server.peers
                monkeypatch.setattr(type(peer.process), "is_alive", lambda self: False)
                with pytest.raises((GRPCError, StreamTerminatedError)):
                    await stream.recv_message()
            assert server.server.peers == ()
