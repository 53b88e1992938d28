# SPDX-License-Identifier: Apache-2.0
"""A small service that knows nothing of everyhop but one environment variable: where to bind."""

import json
import os
import socketserver
from http.server import BaseHTTPRequestHandler


class Orders(BaseHTTPRequestHandler):
    """Answers every GET and POST with the same orders, and with who asked."""

    def do_GET(self) -> None:
        """Answer one request; the sidecar has set x-everyhop-caller, whatever the caller sent."""
        caller = self.headers.get("x-everyhop-caller", "nobody we know")
        body = json.dumps({"orders": [7, 8, 9], "you_are": caller}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Answer in the same way."""
        self.do_GET()

    def address_string(self) -> str:
        """Name the peer in the log: a Unix socket has no address."""
        return "sidecar"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """An HTTP server on a Unix socket."""

    daemon_threads = True


if __name__ == "__main__":
    Server(os.environ["EVERYHOP_SOCKET"], Orders).serve_forever()
