# SPDX-License-Identifier: Apache-2.0
"""What one sidecar is, as values: where it listens, what it protects, where its files lie."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from everyhop.core.errors import InputError
from everyhop.core.limits import MAX_SOCKET_PATH_BYTES
from everyhop.core.secret import Secret

LOOPBACK: Final = "127.0.0.1"
_MAX_PORT: Final = 65535

Endpoint = tuple[str, int]
"""Host (an IP address) and port of another sidecar's ingress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a sidecar grants to one peer, and to all of them together.  Sizes in bytes, times in seconds."""

    connections: int = 1024
    """Open connections of the ingress; more are closed as they come."""
    streams_per_connection: int = 128
    header_count: int = 64
    header_bytes: int = 16 * 1024
    """All headers of a request together; a whole number of KiB."""
    headers_timeout: float = 5.0
    """From the first byte of a request to the end of its headers."""
    handshake_timeout: float = 5.0
    connect_timeout: float = 2.0
    idle_timeout: float = 300.0
    """Of a connection without requests, and of a stream on which nothing moves."""
    connection_age: float = 1800.0
    """After this a peer connects anew, so that no identity outlives its SVID by more."""
    stream_age: float = 3600.0
    """Longest life of one request, WebSocket or gRPC stream included."""
    tcp_age: float = 12 * 3600.0
    """Longest life of one connection to a tcp service."""
    buffer_bytes: int = 128 * 1024
    """Bytes held per connection and direction."""
    drain: int = 1
    """How long connections live on that a policy change ends."""


@dataclass(frozen=True, slots=True)
class AppSocket:
    """The application listens on a Unix socket."""

    path: Path


@dataclass(frozen=True, slots=True)
class AppPort:
    """The application listens on a loopback port."""

    port: int


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A certificate with its chain and its key, both PEM files that Envoy's user can read."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """One sidecar instance.

    ``directory`` takes the configuration; ``egress_socket`` and the sockets for tcp services lie in one
    directory of the instance's own.  ``app`` is None until the application listens.  ``uid`` is the user that
    Envoy and the workload run as.  ``edge`` is where clients from outside the trust domain call, if anywhere; its
    certificate is the service's SVID unless ``edge_certificate`` names another.  All paths are absolute; sockets at
    most 107 bytes.
    """

    instance: str
    service: str
    node: str
    directory: Path
    ingress: Endpoint
    egress_port: int
    egress_socket: Path
    egress_secret: Secret
    app: AppSocket | AppPort | None
    sds_socket: Path
    access_log: Path
    admin_socket: Path
    uid: int
    limits: Limits = field(default_factory=Limits)
    edge: Endpoint | None = None
    edge_certificate: CertificateFiles | None = None

    def __post_init__(self) -> None:
        sockets = [self.egress_socket, self.sds_socket, self.checks_socket, self.admin_socket]
        if isinstance(self.app, AppSocket):
            sockets.append(self.app.path)
        for path in (self.directory, self.access_log, *sockets):
            if not path.is_absolute():
                raise InputError(f"not an absolute path: {path}")
        for path in sockets:
            if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
                raise InputError(
                    f"the path of a Unix socket has at most {MAX_SOCKET_PATH_BYTES} bytes: {path}"
                )
        ports = [self.ingress[1], self.egress_port]
        ports += [self.app.port] if isinstance(self.app, AppPort) else []
        ports += [self.edge[1]] if self.edge is not None else []
        if not all(0 < port <= _MAX_PORT for port in ports) or len(set(ports)) != len(ports):
            raise InputError(f"the ports of a sidecar are distinct and between 1 and {_MAX_PORT}: {ports}")
        if self.access_log.is_relative_to(self.directory):
            raise InputError("the access log lies outside the configuration, whose directories Envoy watches")

    @property
    def checks_socket(self) -> Path:
        """Return the socket beside ``sds_socket`` at which the agent checks credentials."""
        return self.sds_socket.with_name("authz.sock")

    def tcp_socket(self, target: str) -> Path:
        """Return the Unix socket through which the workload reaches a tcp service.

        It is ``tcp-NAME.sock`` beside the egress socket; where that is too long for a socket address, the name
        is replaced by twelve hex digits of its SHA-256.
        """
        path = self.egress_socket.parent / f"tcp-{target}.sock"
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
            return path
        digest = hashlib.sha256(target.encode()).hexdigest()[:12]
        return self.egress_socket.parent / f"t-{digest}.sock"
