# SPDX-License-Identifier: Apache-2.0
"""A small API server of Kubernetes over TLS: discovery, lists in pages with ``continue`` tokens, client certificates and tokens.

It keeps what was asked of it, so that a test can tell that nothing but GET was.
"""

from __future__ import annotations

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PLURALS = {
    "AuthorizationPolicy": "authorizationpolicies",
    "PeerAuthentication": "peerauthentications",
    "NetworkPolicy": "networkpolicies",
    "Namespace": "namespaces",
    "Deployment": "deployments",
}


class ApiServer:
    """Serves ``objects`` until it is closed.

    ``token`` is the bearer token that it believes (None: any caller), ``expires`` how many times a ``continue`` token is refused
    with 410, ``forbidden`` plurals that nobody may list, ``authority`` PEM of those whose client certificates are demanded.
    """

    def __init__(
        self, objects: list[dict[str, Any]], chain: Path, key: Path, *, token: str | None = None, page: int = 2,
        expires: int = 0, forbidden: frozenset[str] = frozenset(), authority: Path | None = None,
        answers: Mapping[str, bytes] | None = None,
    ) -> None:  # fmt: skip
        self.asked: list[tuple[str, str]] = []
        self.objects, self.token, self.page, self.expires = objects, token, page, expires
        self.forbidden, self.answers = forbidden, dict(answers or {})
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        if authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(authority)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:
                server.asked.append(("GET", self.path))
                if server.token is not None and self.headers.get("authorization") != f"Bearer {server.token}":
                    self._send(401, b"{}")
                    return
                status, body = server.answer(self.path)
                self._send(status, body)

            def do_POST(self) -> None:
                server.asked.append(("POST", self.path))
                self._send(405, b"{}")

            do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815  # the library's names

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def answer(self, target: str) -> tuple[int, bytes]:
        url = urlsplit(target)
        if url.path in self.answers:
            return 200, self.answers[url.path]
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        if parts[0] == "apis" and len(parts) == 2:
            return self._group(parts[1])
        version, rest = ("v1", parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
        if not rest:
            return self._resources(version)
        return self._list(version, rest[0], query)

    def _group(self, group: str) -> tuple[int, bytes]:
        versions = sorted(
            {one["apiVersion"] for one in self.objects if one["apiVersion"].startswith(group + "/")}
        )
        if not versions:
            return 404, b'{"kind": "Status"}'
        entries = [{"groupVersion": version} for version in versions]
        return 200, json.dumps({"versions": entries, "preferredVersion": entries[-1]}).encode()

    def _resources(self, version: str) -> tuple[int, bytes]:
        kinds = sorted({one["kind"] for one in self.objects if one["apiVersion"] == version})
        found = [{"name": f"{PLURALS[kind]}/status", "kind": kind} for kind in kinds]
        found += [{"name": PLURALS[kind], "kind": kind} for kind in kinds]
        return 200, json.dumps({"resources": found}).encode()

    def _list(self, version: str, plural: str, query: Mapping[str, str]) -> tuple[int, bytes]:
        if plural in self.forbidden:
            return 403, b"{}"
        items = [
            one for one in self.objects if one["apiVersion"] == version and PLURALS[one["kind"]] == plural
        ]
        start = int(query.get("continue", "0"))
        if start and self.expires:
            self.expires -= 1
            return 410, b"{}"
        end = start + min(self.page, int(query.get("limit", "500")))
        shown = [
            {key: value for key, value in one.items() if key not in {"apiVersion", "kind"}}
            for one in items[start:end]
        ]
        metadata = {"continue": str(end)} if end < len(items) else {}
        return 200, json.dumps({"kind": "List", "metadata": metadata, "items": shown}).encode()
