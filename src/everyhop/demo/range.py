# SPDX-License-Identifier: Apache-2.0
"""What an attack gets to work with: places, identities, and ways to send bytes."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from everyhop.demo.identities import Forger, Identity, decode_identity, open_signer
from everyhop.demo.raw import (
    Reply,
    alert_after_handshake,
    describe_error,
    dial,
    read_reply,
    request,
    secure,
)
from everyhop.demo.treasury import Treasury

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Sequence

    from everyhop.demo.stage import Stage

MARK: str = "x-demo-mark"
"""A header that the sidecars know nothing of; the applications log it."""


class Range:
    """The trust domain as attackers find it.  ``mark`` is carried by every request of the current attempt."""

    def __init__(self, stage: Stage, status: dict[str, Any]) -> None:
        self.stage = stage
        self.mark = "0"
        self._status = status
        self._identities: dict[str, Identity] = {}

    # -- who and where

    def ingress(self, service: str) -> tuple[str, int]:
        """Return where the sidecar of a service listens."""
        host, _, port = self.instance(service)["ingress"].rpartition(":")
        return host, int(port)

    def instance(self, service: str) -> dict[str, Any]:
        """Return the first instance of a service as ``status`` shows it."""
        found: dict[str, Any] = self._status["services"][service]["instances"][0]
        return found

    def spiffe_id(self, service: str) -> str:
        """Return the SPIFFE ID of a service."""
        return str(self._status["services"][service]["spiffe_id"])

    def identity(self, service: str) -> Identity:
        """Return a real SVID of a service, as the owner of the state directory may fetch it."""
        if service not in self._identities:
            answer = self.stage.agent.post("/v1/svid", {"service": service})
            self._identities[service] = decode_identity(answer)
        return self._identities[service]

    @cached_property
    def forger(self) -> Forger:
        """Return the maker of identities that nobody should have."""
        return Forger(open_signer(self.stage.layout), self.identity("storefront").bundle)

    @cached_property
    def treasury(self) -> Treasury:
        """Return the maker of tokens, real and forged."""
        return Treasury(self.stage)

    # -- sending

    def connect(
        self, target: str, identity: Identity, *, alpn: Sequence[str] = ("http/1.1",)
    ) -> ssl.SSLSocket:
        """Open mutual TLS to a service's sidecar; raises OSError."""
        context = identity.context()
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return secure(dial(self.ingress(target)), context, name=target)

    def show(self, target: str, identity: Identity, data: bytes | None = None) -> Reply:
        """Show an identity to a service's sidecar: the alert, or else the answer to ``data``."""
        try:
            with self.connect(target, identity) as connection:
                refused = alert_after_handshake(connection)
                if refused is not None:
                    return Reply(end=refused)
                connection.sendall(data or self.request("GET", "/orders", target))
                return read_reply(connection)
        except OSError as error:
            return Reply(end=describe_error(error))

    def request(
        self,
        method: str,
        target: str | bytes,
        host: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> bytes:
        """Write a request that carries the mark."""
        return request(method, target, host=host, headers=[(MARK, self.mark), *headers], body=body)

    def raw(
        self, caller: str, target: str, data: bytes, *, patience: float = 3.0, head: bool = False
    ) -> Reply:
        """Send exactly these bytes to a service's sidecar with the caller's real identity."""
        try:
            with self.connect(target, self.identity(caller)) as connection:
                connection.sendall(data)
                return read_reply(connection, patience=patience, head=head)
        except OSError as error:
            return Reply(end=describe_error(error))

    def call(
        self,
        caller: str,
        target: str,
        method: str,
        path: str | bytes,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Reply:
        """Make one request with the caller's real identity; method and path go out as given."""
        data = self.request(method, path, target, headers=headers, body=body)
        return self.raw(caller, target, data, head=method == "HEAD")

    def outside(
        self,
        target: str,
        method: str,
        path: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Reply:
        """Make one request at the edge of a service, as a client without an identity."""
        host, _, port = self.instance(target)["edge"].rpartition(":")
        data = self.request(method, path, f"{host}:{port}", headers=headers, body=body)
        return _over_tls((host, int(port)), self.forger.nobody().context(), data)

    def server(self, method: str, path: str, form: bytes, *, caller: str | None) -> Reply:
        """Make one request to the server's own face, with the identity of ``caller`` or without any."""
        place = urlsplit(self._status["urls"]["api"])
        identity = self.forger.nobody() if caller is None else self.identity(caller)
        headers = [("content-type", "application/x-www-form-urlencoded")] if form else []
        data = self.request(method, path, place.netloc, headers=headers, body=form)
        return _over_tls((place.hostname or "", place.port or 0), identity.context(), data)

    def plain(self, target: str, data: bytes) -> Reply:
        """Send bytes to a service's sidecar without TLS."""
        try:
            with dial(self.ingress(target)) as connection:
                connection.sendall(data)
                return read_reply(connection)
        except OSError as error:
            return Reply(end=describe_error(error))

    def local(self, address: tuple[str, int] | str, data: bytes) -> Reply:
        """Send bytes to a port or Unix socket of this machine."""
        try:
            with dial(address) as connection:
                connection.sendall(data)
                return read_reply(connection)
        except OSError as error:
            return Reply(end=describe_error(error))

    def dial_ingress(self, target: str) -> socket.socket:
        """Open a bare TCP connection to a service's sidecar."""
        return dial(self.ingress(target))

    # -- what arrived

    def marks(self) -> dict[str, str]:
        """Return the marks that reached an application, with its name."""
        return {
            str(line["mark"]): name
            for name in ("storefront", "orders", "payments", "ledger", "notify")
            for line in self.stage.output(name)
            if line.get("mark") is not None
        }


def _over_tls(address: tuple[str, int], context: ssl.SSLContext, data: bytes) -> Reply:
    context.set_alpn_protocols(["http/1.1"])
    try:
        with secure(dial(address), context, name=address[0]) as connection:
            connection.sendall(data)
            return read_reply(connection)
    except OSError as error:
        return Reply(end=describe_error(error))
