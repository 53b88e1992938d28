# SPDX-License-Identifier: Apache-2.0
"""An application for tests on a Unix socket: HTTP/1.1, HTTP/2 (gRPC with trailers), WebSocket, or plain bytes.

It answers with what it saw.  Whether it speaks HTTP at all is decided by the first bytes, so one socket serves
every kind of service.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os

import h2.config
import h2.connection
import h2.events

_GREETING = b"PRI * HTTP/2.0"
_VERBS = (b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC", b"TRAC")
_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Echo:
    """A running application; ``seen`` and ``requests`` are what reached it."""

    def __init__(self):
        self.seen = []
        self.requests = []
        self.connections = 0
        self.server = None

    def close(self):
        self.server.close()

    def _note(self, method, target, headers):
        raw = [(name.lower().encode("latin-1"), value.encode("utf-8")) for name, value in headers]
        self.requests.append((method, target.encode("latin-1"), raw))

    async def handle(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            first = await reader.read(4)
            if first and _GREETING.startswith(first):
                await self._http2(first, reader, writer)
            elif first in _VERBS:
                await self._http1(first, reader, writer)
            elif first:
                await self._bytes(first, reader, writer)
        writer.close()

    async def _bytes(self, first, reader, writer):
        chunk = first
        while chunk:
            self.seen.append(chunk)
            writer.write(b"echo:" + chunk)
            await writer.drain()
            chunk = await reader.read(4096)

    async def _http1(self, first, reader, writer):
        while True:
            head = first + await reader.readuntil(b"\r\n\r\n")
            first = b""
            lines = head.decode("latin-1").split("\r\n")
            headers = [tuple(line.split(": ", 1)) for line in lines[1:] if line]
            found = {name.lower(): value for name, value in headers}
            body = b""
            if "content-length" in found:
                body = await reader.readexactly(int(found["content-length"]))
            elif found.get("transfer-encoding") == "chunked":
                while size := int((await reader.readline()).strip(), 16):
                    body += await reader.readexactly(size)
                    await reader.readline()
                await reader.readline()
            self.seen.append(lines[0])
            method, target, _ = lines[0].split(" ")
            self._note(method, target, headers)
            if found.get("upgrade") == "websocket":
                await self._websocket(found, reader, writer)
                return
            if "/slow" in lines[0]:
                await asyncio.sleep(1.0)
            answer = json.dumps(
                {"line": lines[0], "headers": headers, "body": body.decode("latin-1")}
            ).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nserver: echo\r\n")
            writer.write(f"x-seen-decision: {found.get('x-everyhop-decision')}\r\ncontent-length: ".encode())
            writer.write(f"{len(answer)}\r\n\r\n".encode())
            if not lines[0].startswith("HEAD"):
                writer.write(answer)
            await writer.drain()

    async def _websocket(self, headers, reader, writer):
        digest = hashlib.sha1((headers.get("sec-websocket-key", "") + _MAGIC).encode()).digest()
        accept = base64.b64encode(digest).decode()
        writer.write(
            f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        while chunk := await reader.read(4096):
            writer.write(b"ws:" + chunk)
            await writer.drain()

    async def _http2(self, first, reader, writer):
        connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        connection.initiate_connection()
        chunk = first
        requests = {}
        while chunk:
            for event in connection.receive_data(chunk):
                if isinstance(event, h2.events.RequestReceived):
                    requests[event.stream_id] = [list(event.headers), b""]
                elif isinstance(event, h2.events.DataReceived):
                    requests[event.stream_id][1] += event.data
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    self._answer(connection, event.stream_id, *requests.pop(event.stream_id))
            writer.write(connection.data_to_send())
            await writer.drain()
            chunk = await reader.read(65536)

    def _answer(self, connection, stream, headers, body):
        found = dict(headers)
        self.seen.append(f"{found[':method']} {found[':path']} HTTP/2")
        self._note(found[":method"], found[":path"], headers)
        answer = json.dumps({"headers": headers, "body": body.decode("latin-1")}).encode()
        framed = b"\0" + len(answer).to_bytes(4, "big") + answer
        kind = found.get("content-type", "text/plain")
        seen = ("x-seen-decision", found.get("x-everyhop-decision", ""))
        connection.send_headers(stream, [(":status", "200"), ("content-type", kind), seen])
        connection.send_data(stream, framed)
        connection.send_headers(stream, [("grpc-status", "0"), ("x-trailer", "kept")], end_stream=True)


async def serve_echo(path):
    """Serve at a Unix socket until closed."""
    app = Echo()
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    app.server = await asyncio.start_unix_server(app.handle, os.fspath(path), limit=1024 * 1024)
    return app
