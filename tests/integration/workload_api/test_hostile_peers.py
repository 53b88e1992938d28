# SPDX-License-Identifier: Apache-2.0
"""What one local process sends may cost it its own connection, and nobody else anything."""

import contextlib
import logging
import os
import random
import socket
import struct

import h2.settings
import pytest
from tests.support.agent_under_test import AgentUnderTest
from tests.support.raw_grpc import WORKLOAD_HEADER, RawGrpc

from everyhop.wire.transport import Limits

X509 = "/SpiffeWorkloadAPI/FetchX509SVID"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MINE = f"[{{unix: {{uid: {os.getuid()}}}}}]"


@pytest.fixture
def watcher(agent, caplog):
    """Somebody else, whose stream must live through the test; nothing a stranger sends is an error of ours."""
    with RawGrpc(agent.socket) as client:
        client.open(X509)
        assert client.next()[0] == "message"
        yield client
        agent.rotate()
        assert client.next()[0] == "message"
    with RawGrpc(agent.socket) as fresh:
        fresh.open(X509)
        assert fresh.next()[0] == "message"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def throw(path, *chunks):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(0.05)
        sock.connect(str(path))
        with contextlib.suppress(OSError):
            for chunk in chunks:
                sock.sendall(chunk)
            sock.recv(65536)


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def test_random_bytes(agent, watcher):
    source = random.Random(20261121)
    for round_ in range(120):
        noise = source.randbytes(source.randrange(1, 400))
        if round_ % 3 == 0:
            throw(agent.socket, noise)
        elif round_ % 3 == 1:
            throw(agent.socket, PREFACE, noise)
        else:
            kind = source.randrange(0, 16)
            throw(
                agent.socket,
                PREFACE,
                frame(4, 0, 0, b""),
                frame(kind, source.randrange(256), source.randrange(4), noise),
            )


@pytest.mark.parametrize(
    "headers",
    [
        [(":method", "POST")],
        [(":path", X509)],
        [(":method", "GET"), (":path", X509)],
        [(":method", "POST"), (":path", X509)],
        [(":method", "POST"), (":path", X509), ("content-type", "text/html")],
        [(":method", "POST"), (":path", X509), ("content-type", "application/grpc")],
        [
            (":method", "POST"),
            (":path", "/../" + X509),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ],
        [("x", "y" * 40000)],
        [("\xff", "\xff")],
    ],
)
def test_requests_that_are_no_grpc(agent, watcher, headers):
    with RawGrpc(agent.socket) as client:
        client.open(X509, headers=[*headers, WORKLOAD_HEADER])
        assert client.next()[0] in {"http", "reset", "end", "status", "goaway"}


def test_frames_of_unknown_type_are_ignored(agent):
    with RawGrpc(agent.socket) as client:
        client.sock.sendall(frame(0xFA, 0, 0, b"grease"))
        client.open(X509)
        assert client.next()[0] == "message"


def test_more_streams_than_allowed(directory):
    with AgentUnderTest(directory, limits=Limits(streams_per_connection=4)) as agent:
        agent.apply({"orders": MINE})
        with RawGrpc(agent.socket) as client:
            client.open(X509)
            assert client.next()[0] == "message"
            assert client.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] == 4
            client.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 100
            client.h2.remote_settings.acknowledge()
            for _ in range(4):
                client.open(X509)
            while (event := client.next())[0] == "message":
                pass
            assert event[0] in {"goaway", "end"}
        with RawGrpc(agent.socket) as other:
            other.open(X509)
            assert other.next()[0] == "message"


def test_streams_opened_and_reset_without_end(directory):
    with AgentUnderTest(directory, limits=Limits(resets_per_connection=50)) as agent:
        agent.apply({"orders": MINE})
        with RawGrpc(agent.socket) as client, contextlib.suppress(OSError):
            for _ in range(200):
                stream = client.open(X509)
                client.h2.reset_stream(stream)
                client.flush()
            while client.next()[0] != "end":
                pass
        with RawGrpc(agent.socket) as other:
            other.open(X509)
            assert other.next()[0] == "message"


def test_a_peer_that_never_reads_is_dropped(directory):
    with AgentUnderTest(directory, limits=Limits(max_unsent_bytes=64 * 1024)) as agent:
        agent.apply({"orders": MINE})
        with RawGrpc(agent.socket, timeout=5) as client, pytest.raises(OSError):
            while True:
                client.sock.sendall(frame(6, 0, 0, b"pingpong") * 1000)
        with RawGrpc(agent.socket) as other:
            other.open(X509)
            assert other.next()[0] == "message"


def test_a_peer_that_sends_nothing_holds_up_nobody(agent, watcher):
    idle = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(50)]
    for sock in idle:
        sock.connect(str(agent.socket))
    with RawGrpc(agent.socket) as client:
        client.open(X509)
        assert client.next()[0] == "message"
    for sock in idle:
        sock.close()
