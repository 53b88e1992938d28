# SPDX-License-Identifier: Apache-2.0
"""Payments: ``http.server`` on the Unix socket, and two ways to a tcp service, both with the standard library only."""

from __future__ import annotations

import base64
import json
import os
import socket
import socketserver
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit


def _by_socket() -> socket.socket:
    """Return a connection to the ledger through the sidecar's Unix socket for it."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(10)
    connection.connect(str(Path(os.environ["EVERYHOP_EGRESS"]).parent / "tcp-ledger.sock"))
    return connection


def _by_connect() -> socket.socket:
    """Return a connection to the ledger by CONNECT through the sidecar's HTTP proxy."""
    proxy = urlsplit(os.environ["HTTP_PROXY"])
    credentials = base64.b64encode(f"{proxy.username}:{unquote(proxy.password or '')}".encode()).decode()
    connection = socket.create_connection((proxy.hostname or "", proxy.port or 0), timeout=10)
    request = f"CONNECT ledger:5432 HTTP/1.1\r\nhost: ledger:5432\r\nproxy-authorization: Basic {credentials}\r\n\r\n"
    connection.sendall(request.encode())
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(1)  # byte by byte: what follows belongs to the tunnel
        if not part:
            raise OSError("the proxy closed the connection")
        head += part
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise OSError(f"the proxy answered {head[:40]!r}")
    return connection


def _ask_ledger(connection: socket.socket, line: str) -> str:
    with connection:
        connection.sendall(line.encode() + b"\n")
        with connection.makefile("r", encoding="ascii") as reader:
            return reader.readline().strip()


class Payments(BaseHTTPRequestHandler):
    """Answers what arrives with what the ledger says."""

    def do_GET(self) -> None:  # the base class's name
        """Answer a health check, or the balance by CONNECT."""
        self._answer(None if self.path == "/healthz" else _ask_ledger(_by_connect(), "BALANCE"))

    def do_POST(self) -> None:  # the base class's name
        """Book a charge through the Unix socket."""
        cents = json.loads(self.rfile.read(int(self.headers.get("content-length", "0")))).get("cents", 0)
        self._answer(_ask_ledger(_by_socket(), f"CREDIT {int(cents)}"))

    def _answer(self, ledger: str | None) -> None:
        mark = self.headers.get("x-demo-mark")
        print(json.dumps({"method": self.command, "path": self.path, "mark": mark}), flush=True)
        answer = {
            "service": "payments",
            "caller": self.headers.get("x-everyhop-caller"),
            "user": self.headers.get("x-everyhop-user"),
            "saw": [[name.lower(), value] for name, value in self.headers.items()],
            "ledger": ledger,
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Say nothing: the base class wants an address, and a Unix socket has none."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """An HTTP server on a Unix socket."""

    daemon_threads = True


if __name__ == "__main__":
    Server(os.environ["EVERYHOP_SOCKET"], Payments).serve_forever()
