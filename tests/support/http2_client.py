# SPDX-License-Identifier: Apache-2.0
"""A small HTTP/2 client that may send what no honest client would; one request at a time."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions


class StreamReset(Exception):  # noqa: N818  # the name of what happened
    """The other side reset the stream or ended the connection."""


class Http2Client:
    """Speaks over a connected socket."""

    def __init__(self, sock):
        self.sock = sock
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()
        self.sock.sendall(self.connection.data_to_send())

    def request(self, method, path, *, authority="orders", headers=(), body=b"", scheme="https"):
        """Return (status, headers, body, trailers); raises StreamReset."""
        stream = self.connection.get_next_available_stream_id()
        pseudo = [(b":method", _raw(method)), (b":path", _raw(path)), (b":scheme", _raw(scheme))]
        if authority is not None:
            pseudo.append((b":authority", _raw(authority)))
        sent = [*pseudo, *((_raw(k), _raw(v)) for k, v in headers)]
        self.connection.send_headers(stream, sent, end_stream=not body)
        if body:
            self.connection.send_data(stream, body, end_stream=True)
        self.sock.sendall(self.connection.data_to_send())
        return self.response(stream)

    def open(self, headers):
        """Send headers and leave the stream open; return its number."""
        stream = self.connection.get_next_available_stream_id()
        self.connection.send_headers(stream, [(_raw(k), _raw(v)) for k, v in headers])
        self.sock.sendall(self.connection.data_to_send())
        return stream

    def send(self, stream, data, *, end=False):
        self.connection.send_data(stream, data, end_stream=end)
        self.sock.sendall(self.connection.data_to_send())

    def response(self, stream, *, until_data=False):
        head, body, trailers = None, b"", {}
        while True:
            chunk = self.sock.recv(65536)
            if not chunk:
                raise StreamReset("connection closed")
            for event in self._events(chunk):
                if isinstance(event, h2.events.ConnectionTerminated) and event.error_code:
                    raise StreamReset(f"GOAWAY {event.error_code}")
                if getattr(event, "stream_id", stream) != stream:
                    continue
                if isinstance(event, h2.events.ResponseReceived):
                    head = _texts(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                    self.connection.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, h2.events.TrailersReceived):
                    trailers = _texts(event.headers)
                elif isinstance(event, h2.events.StreamReset):
                    raise StreamReset(f"RST {event.error_code}")
                elif isinstance(event, h2.events.StreamEnded):
                    self.sock.sendall(self.connection.data_to_send())
                    return int(head[":status"]), head, body, trailers
            self.sock.sendall(self.connection.data_to_send())
            if until_data and (body or (head is not None and until_data == "head")):
                return int(head[":status"]), head, body, trailers

    def _events(self, chunk):
        try:
            return self.connection.receive_data(chunk)
        except h2.exceptions.ProtocolError as error:
            raise StreamReset(f"no HTTP/2 any more: {error}") from error

    def close(self):
        self.sock.close()


def _raw(value):
    return value if isinstance(value, bytes) else value.encode("latin-1")


def _texts(headers):
    return {k.decode("latin-1"): v.decode("latin-1") for k, v in headers}
