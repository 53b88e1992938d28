# SPDX-License-Identifier: Apache-2.0
"""The ledger: a line protocol that is not HTTP.  ``CREDIT cents`` and ``BALANCE`` answer ``OK balance``."""

from __future__ import annotations

import json
import os
import socketserver
import threading


class Book:
    """One balance in cents."""

    def __init__(self) -> None:
        self.cents = 0
        self.lock = threading.Lock()


BOOK = Book()


class Line(socketserver.StreamRequestHandler):
    """Answers lines until the peer goes."""

    def handle(self) -> None:
        """Serve one connection."""
        for raw in self.rfile:
            words = raw.decode("ascii", "replace").split()
            print(json.dumps({"line": words, "mark": words[-1] if words[-1:] else None}), flush=True)
            with BOOK.lock:
                if len(words) == 2 and words[0] == "CREDIT" and words[1].isdecimal():  # noqa: PLR2004
                    BOOK.cents += int(words[1])
                self.wfile.write(f"OK {BOOK.cents}\n".encode())


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A line server on a Unix socket."""

    daemon_threads = True


if __name__ == "__main__":
    Server(os.environ["EVERYHOP_SOCKET"], Line).serve_forever()
