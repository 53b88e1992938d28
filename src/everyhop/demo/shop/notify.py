# SPDX-License-Identifier: Apache-2.0
"""The twin of ``notify.js`` for machines without Node: the same doors, the same answers."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import socketserver
from http.server import BaseHTTPRequestHandler
from typing import Final

_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


class Notify(BaseHTTPRequestHandler):
    """Takes notifications, and greets WebSocket callers."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:  # the base class's name
        """Take one notification."""
        self._note()
        self.rfile.read(int(self.headers.get("content-length", "0")))
        answer = {
            "service": "notify",
            "runtime": f"python {platform.python_version()}",
            "caller": self.headers.get("x-everyhop-caller"),
            "saw": [[name.lower(), value] for name, value in self.headers.items()],
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:  # the base class's name
        """Accept a WebSocket, send one text frame that names the caller, and close."""
        self._note()
        key = self.headers.get("sec-websocket-key", "") + _GUID
        accept = base64.b64encode(hashlib.sha1(key.encode(), usedforsecurity=False).digest()).decode()
        self.send_response(101)
        self.send_header("upgrade", "websocket")
        self.send_header("connection", "upgrade")
        self.send_header("sec-websocket-accept", accept)
        self.end_headers()
        text = f"hello {self.headers.get('x-everyhop-caller')}".encode()
        self.wfile.write(bytes([0x81, len(text)]) + text + b"\x88\x00")
        self.close_connection = True

    def _note(self) -> None:
        mark = self.headers.get("x-demo-mark")
        print(json.dumps({"method": self.command, "path": self.path, "mark": mark}), flush=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Say nothing: the base class wants an address, and a Unix socket has none."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """An HTTP server on a Unix socket."""

    daemon_threads = True


if __name__ == "__main__":
    Server(os.environ["EVERYHOP_SOCKET"], Notify).serve_forever()
