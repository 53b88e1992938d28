# SPDX-License-Identifier: Apache-2.0
"""The AuthZEN endpoints on a Unix socket, over a policy text and a real audit log; the face is played by a header."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
from starlette.applications import Starlette
from tests.support.identity import FakeClock, TestEntropy

from everyhop.api.authzen_app import AuthzenDoor, base_urls
from everyhop.api.authzen_clients import Peps
from everyhop.api.http import http_server, serve_until_stopped
from everyhop.api.oauth_discovery import Endpoints
from everyhop.apikeys import ApiKeyPrincipal
from everyhop.apikeys.model import ApiKeyRefused
from everyhop.authzen import PageTokens
from everyhop.control.authzen_point import DecisionPoints
from everyhop.control.decision_journal import DecisionJournal
from everyhop.control.responding import BlocksInForce
from everyhop.core.errors import TokenError
from everyhop.core.secret import Secret
from everyhop.policy import parse_policy
from everyhop.storage import open_storage
from everyhop.tokens.codes import TokenCode
from everyhop.tokens.replay import MemoryReplayGuard
from everyhop.wire.sockets import UnixListener

BASE = "https://127.0.0.1:8443"
HASH = "ab" * 32


class Keys:
    """API keys by their text: the scopes of each."""

    def __init__(self, clock: FakeClock) -> None:
        self.known: dict[str, frozenset[str]] = {}
        self._clock = clock

    def authenticate(self, presented: str, source: str | None = None) -> ApiKeyPrincipal:
        del source
        if presented not in self.known:
            raise ApiKeyRefused("unknown")
        return ApiKeyPrincipal(
            lookup=presented[3:11],
            owner="test",
            environment="live",
            kind="key",
            scopes=self.known[presented],
            expires_at=self._clock.now(),
        )


class NoTokens:
    """Knows no token."""

    def accept(self, token: str, expected: object) -> None:
        del token, expected
        raise TokenError(TokenCode.TOKEN_INVALID, "no token of ours")


class PlainFace(httpx.HTTPTransport):
    """Sends what is for https without TLS: the face has ended that before the socket."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(scheme="http")
        return super().handle_request(request)


class AuthzenUnderTest:
    """The endpoints; ``put`` changes the policy in force, ``as_service`` and ``with_key`` give clients of PEPs."""

    def __init__(self, policy: str, directory: Path) -> None:
        self.socket = directory / "authzen.sock"
        self.clock = FakeClock()
        self.keys = Keys(self.clock)
        self.notes: list[dict[str, object]] = []
        self.storage = open_storage(directory / "db", entropy=TestEntropy())
        self._clients: list[httpx.Client] = []
        self.put(policy)
        self.journal = DecisionJournal(self.storage.records, entropy=TestEntropy(), prefix="authzen")
        points = DecisionPoints(
            snapshot=lambda: self.snapshot,
            journal=self.journal,
            clock=self.clock,
            entropy=TestEntropy(),
        )
        self.pool = ThreadPoolExecutor(4)
        door = AuthzenDoor(
            blocks=BlocksInForce(),
            peps=Peps(
                service_of=self._service_of,
                tokens=NoTokens(),  # type: ignore[arg-type]  # it gives none
                keys=self.keys,
                clock=self.clock,
                replay=MemoryReplayGuard(self.clock),
            ),
            sessions=points.open,
            tokens=PageTokens(Secret(b"k" * 32)),
            refusals=SimpleNamespace(note=lambda **values: self.notes.append(values)),
            endpoints=Endpoints(issuer=BASE, local=BASE),
            names=base_urls(BASE, ("localhost",)),
            clock=self.clock,
            work=lambda call: asyncio.get_running_loop().run_in_executor(self.pool, call),
        )
        self.app = Starlette(routes=door.routes())

    def put(self, policy: str) -> None:
        self.snapshot = parse_policy({"policy.yaml": policy.encode()})

    def _service_of(self, spiffe_id: str) -> str | None:
        owner = self.snapshot.service_of(spiffe_id)
        return None if owner is None else owner.name

    def _client(self, headers: dict[str, str]) -> httpx.Client:
        transport = PlainFace(uds=str(self.socket))
        client = httpx.Client(transport=transport, base_url=BASE, headers=headers, timeout=20)
        self._clients.append(client)
        return client

    def as_service(self, name: str) -> httpx.Client:
        """Return a client with the certificate of a service."""
        spiffe_id = f"spiffe://shop.example/service/{name}"
        value = f"By=spiffe://shop.example/everyhop/server;Hash={HASH};URI={spiffe_id}"
        return self._client({"x-forwarded-client-cert": value})

    def with_key(self, key: str, *scopes: str) -> httpx.Client:
        """Return a client with an API key of these scopes."""
        self.keys.known[key] = frozenset(scopes)
        return self._client({"authorization": f"Bearer {key}"})

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.pool.shutdown()
        self.storage.close()


@contextlib.contextmanager
def authzen_under_test(policy: str, directory: Path) -> Iterator[AuthzenUnderTest]:
    """Serve for as long as the block lasts, in a thread of its own."""
    made = AuthzenUnderTest(policy, directory)
    server = http_server(made.app)
    with contextlib.closing(made), contextlib.closing(UnixListener.bind(made.socket, mode=0o600)) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(serve_until_stopped(server, listener.sock)))
        thread.start()
        try:
            yield made
        finally:
            server.stop()
            thread.join(10)
