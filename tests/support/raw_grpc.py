# SPDX-License-Identifier: Apache-2.0
"""A gRPC client small enough to misuse: blocking, one stream at a time, every header under control."""

from __future__ import annotations

import contextlib
import socket
import struct

import h2.config
import h2.connection
import h2.events

WORKLOAD_HEADER = ("workload.spiffe.io", "true")


class RawGrpc:
    """One connection.  ``events`` of the open stream: ("message", bytes), ("status", code, text), ("end",)."""

    def __init__(self, path, *, timeout=10.0):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        self.sock.connect(str(path))
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True, header_encoding="utf-8", validate_outbound_headers=False
            )
        )
        self.h2.initiate_connection()
        self._data = b""
        self._queue = []
        try:
            self.flush()
        except OSError:
            self.close()
            raise

    def flush(self):
        self.sock.sendall(self.h2.data_to_send())

    def open(
        self, method, message=b"", *, metadata=(WORKLOAD_HEADER,), headers=None, end=True, compressed=False
    ):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(
            stream,
            headers
            if headers is not None
            else [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", method),
                (":authority", "localhost"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                *metadata,
            ],
        )
        if message is not None:
            self.h2.send_data(stream, struct.pack(">BI", compressed, len(message)) + message, end_stream=end)
        elif end:
            self.h2.end_stream(stream)
        self.flush()
        return stream

    def next(self):
        """Return the next event; ("end",) when the server has closed the connection."""
        while not self._queue:
            try:
                received = self.sock.recv(65536)
            except ConnectionError:
                received = b""
            if not received:
                return ("end",)
            for event in self.h2.receive_data(received):
                self._take(event)
            self.flush_quietly()
        return self._queue.pop(0)

    def flush_quietly(self):
        with contextlib.suppress(OSError):  # the server may have closed; what it sent before is still read
            self.flush()

    def _take(self, event):
        if isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self._data += event.data
            while len(self._data) >= 5 and len(self._data) >= 5 + (
                size := struct.unpack(">I", self._data[1:5])[0]
            ):
                self._queue.append(("message", self._data[5 : 5 + size]))
                self._data = self._data[5 + size :]
        elif isinstance(event, h2.events.TrailersReceived | h2.events.ResponseReceived):
            headers = dict(event.headers)
            if "grpc-status" in headers:
                self._queue.append(("status", int(headers["grpc-status"]), headers.get("grpc-message", "")))
            elif headers.get(":status", "200") != "200":
                self._queue.append(("http", int(headers[":status"])))
        elif isinstance(event, h2.events.StreamReset):
            self._queue.append(("reset", int(event.error_code)))
        elif isinstance(event, h2.events.ConnectionTerminated):
            self._queue.append(("goaway", int(event.error_code)))

    def ask(self, method, message=b"", **options):
        """Open a stream and return its events up to a status, a reset or the end; the last one is the outcome."""
        self.open(method, message, **options)
        found = []
        while True:
            event = self.next()
            found.append(event)
            if event[0] != "message":
                return found

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()
