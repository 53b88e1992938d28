# SPDX-License-Identifier: Apache-2.0
"""The storefront: WSGI with nothing but the standard library, on the Unix socket that everyhop names."""

from __future__ import annotations

import json
import os
import socketserver
import urllib.request
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with what arrived; a checkout places an order on the way."""
    seen = {k[5:].replace("_", "-").lower(): v for k, v in environ.items() if k.startswith("HTTP_")}
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    mark = seen.get("x-demo-mark")
    print(json.dumps({"method": method, "path": path, "mark": mark}), flush=True)
    answer: dict[str, object] = {
        "service": "storefront",
        "caller": seen.get("x-everyhop-caller"),
        "user": seen.get("x-everyhop-user"),
        "saw": [[name, value] for name, value in sorted(seen.items())],
    }
    if method == "POST":
        # urllib finds its proxy, the sidecar, in http_proxy; the name of the service is all there is to know.
        request = urllib.request.Request("http://orders/orders", data=b'{"item": 1}', method="POST")
        if "txn-token" in seen:  # on whose behalf; the next sidecar verifies it, whatever we pass on
            request.add_header("txn-token", seen["txn-token"])
        with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310  # a fixed address
            answer["next"] = json.load(reply)
    body = json.dumps(answer).encode()
    start_response("200 OK", [("content-type", "application/json"), ("content-length", str(len(body)))])
    return [body]


class Server(socketserver.ThreadingMixIn, WSGIServer):
    """``wsgiref`` on a Unix socket; each request in a thread of its own."""

    address_family = socketserver.UnixStreamServer.address_family
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without asking for a host name: there is none."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "storefront", 0
        self.setup_environ()


class Handler(WSGIRequestHandler):
    """Names the peer: a Unix socket has no address."""

    def address_string(self) -> str:
        """Name the only peer there can be."""
        return "sidecar"

    def get_environ(self) -> WSGIEnvironment:
        """Build the environment; the base class wants an address."""
        self.client_address = ("sidecar", 0)
        return super().get_environ()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Say nothing; the application itself logs."""


if __name__ == "__main__":
    server = Server(os.environ["EVERYHOP_SOCKET"], Handler)  # type: ignore[arg-type]  # a path, not (host, port)
    server.set_app(app)
    server.serve_forever()
