# SPDX-License-Identifier: Apache-2.0
"""An HTTP service for tests that answers with what it saw; standard library only, knows nothing of everyhop."""

import json
import os
import signal
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Echo(BaseHTTPRequestHandler):
    """Answers every request with its own description."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        seen = {
            "method": self.command,
            "path": self.path,
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "body": body.decode("latin-1"),
            "pid": os.getpid(),
        }
        answer = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = _answer  # noqa: N815  # names of the base class

    def address_string(self) -> str:
        """Name the peer: a Unix socket has no address."""
        return "peer"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Keep quiet."""


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """An HTTP server on a Unix socket."""

    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    """Serve until SIGTERM, then finish what is open."""
    server: socketserver.BaseServer
    if sys.argv[1] == "port":
        server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Echo)
    else:
        server = UnixServer(os.environ["EVERYHOP_SOCKET"], Echo)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
