# SPDX-License-Identifier: Apache-2.0
"""Mutual TLS 1.3 with SVIDs, for programs that run without a sidecar: contexts that rotate, peers that are checked.

Each connection is made with the identity and the bundle of that moment, so nothing is restarted at a rotation.
The check of the peer's SPIFFE ID is part of the handshake: a connection that did not pass it carries no byte, whoever
uses the context and however.
"""

from __future__ import annotations

import os
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, cast

from everyhop.core.errors import EveryhopError, InputError
from everyhop.sdk.checked import CheckedObject, CheckedSocket, Demand, MomentContext
from everyhop.spiffe.ids import SpiffeId
from everyhop.x509.certificates import certificates_to_pem

if TYPE_CHECKING:
    import socket

    from everyhop.sdk.context import ContextSource
    from everyhop.sdk.identities import X509Identity
    from everyhop.sdk.sources import X509Source

Callers: TypeAlias = "Iterable[SpiffeId | str] | Callable[[SpiffeId], bool] | ContextSource"

_PARTIAL_CHAIN: Final = ssl.VerifyFlags(
    0x80000
)  # X509_V_FLAG_PARTIAL_CHAIN: every authority of a bundle is a root


class RotatingContext(ssl.SSLContext):
    """An ``ssl.SSLContext`` that makes each connection with the identity and bundle of that moment.

    It goes wherever a context goes.  What libraries would load into it or switch off in it has no effect: roots,
    certificates, modes and names are the identity's business; only ALPN can be set.
    """

    def __new__(cls, *_: Any, server: bool, **__: Any) -> Self:
        """Make the outer context; it holds no key and no root, and is never used for a handshake."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)

    tells_its_task: bool = False
    """Whether a connection makes itself known to the task that asks for its protocol; for hypercorn alone."""

    def __init__(self, source: X509Source, allows: Callable[[SpiffeId], bool], *, server: bool) -> None:
        self._source = source
        self._allows = allows
        self._server = server
        self._lock = threading.Lock()
        self._alpn: tuple[str, ...] = ()
        self._made: tuple[X509Identity, tuple[str, ...], MomentContext] | None = None

    @property
    def x5t(self) -> str:
        """Return the thumbprint of the certificate that a connection made now would show."""
        return self._source.svid.x5t

    def wrap_socket(self, sock: socket.socket, *args: Any, **named: Any) -> ssl.SSLSocket:
        """Wrap a socket with the identity of this moment; nothing is resumed."""
        named.pop("session", None)
        return self.inner().wrap_socket(sock, *args[:5], **named)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002  # the base's signature
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Wrap a pair of buffers with the identity of this moment; nothing is resumed."""
        del session
        return self.inner().wrap_bio(incoming, outgoing, server_side, server_hostname)

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Offer these application protocols on connections made from now on."""
        self._alpn = tuple(alpn_protocols)

    def load_verify_locations(self, *args: Any, **named: Any) -> None:
        """Do nothing: trust comes from the bundle and from nowhere else."""

    def load_cert_chain(self, *args: Any, **named: Any) -> None:
        """Do nothing: the identity comes from the agent and from nowhere else."""

    def load_default_certs(self, *args: Any, **named: Any) -> None:
        """Do nothing: trust comes from the bundle and from nowhere else."""

    def inner(self) -> MomentContext:
        """Return the context of this moment, made once a rotation; without identity one that refuses."""
        try:
            identity = self._source.svid
        except EveryhopError as error:
            return self._refusing(error)
        with self._lock:
            made = self._made
            if made is None or made[0] is not identity or made[1] != self._alpn:
                inner = _inner(identity, self._alpn, server=self._server)
                inner.demand = Demand(identity.bundle.trust_domain, self._allows)
                inner.outer = self
                inner.tells_its_task = self.tells_its_task
                made = self._made = (identity, self._alpn, inner)
            return made[2]

    def _refusing(self, error: EveryhopError) -> MomentContext:
        inner = _bare(server=self._server)
        inner.refusal = error
        inner.outer = self
        return inner


@dataclass(frozen=True, slots=True)
class _OfThisMoment:
    """A source that never changes."""

    svid: X509Identity


def server_context(source: X509Source, callers: Callers) -> RotatingContext:
    """Return a context for servers: TLS 1.3, a certificate of the trust domain demanded, rotation by itself.

    ``callers`` are the SPIFFE IDs to let in, a predicate of one, or a workload (or context): then whoever may call
    any operation of it.  Whatever is let in here is still to be checked per request by the guard.
    """
    return RotatingContext(source, _allowing(callers), server=True)


def client_context(source: X509Source, server: SpiffeId | str, *, rotating: bool = True) -> RotatingContext:
    """Return a context for calls to exactly one service: TLS 1.3, its SPIFFE ID and no other.

    Host names are not looked at: the SPIFFE ID says who is there.  With ``rotating`` false every connection is made
    with the identity of this moment, for a pool whose tokens are bound to that certificate; raises as
    ``source.svid`` does.
    """
    wanted = SpiffeId.parse(server) if isinstance(server, str) else server
    if not rotating:
        source = cast("X509Source", _OfThisMoment(source.svid))
    return RotatingContext(source, lambda found: found == wanted, server=False)


def _allowing(callers: Callers) -> Callable[[SpiffeId], bool]:
    if hasattr(callers, "context"):
        source = cast("ContextSource", callers)
        return lambda found: any(
            str(found) in one.callers or str(found) in one.deciding for one in source.context.operations
        )
    if callable(callers):
        predicate = callers
        return lambda found: predicate(found) is True
    if isinstance(callers, str):
        raise InputError("callers are a collection of SPIFFE IDs, not one text")
    allowed = frozenset(one if isinstance(one, SpiffeId) else SpiffeId.parse(one) for one in callers)
    if not allowed:
        raise InputError("no caller would be allowed", hint="name their SPIFFE IDs, or give the workload")
    return allowed.__contains__


def _bare(*, server: bool) -> MomentContext:
    """Return a context with everything decided but the identity."""
    inner = MomentContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    inner.sslobject_class = CheckedObject
    inner.sslsocket_class = CheckedSocket
    inner.check_hostname = False
    inner.verify_mode = ssl.CERT_REQUIRED
    inner.verify_flags |= _PARTIAL_CHAIN
    inner.minimum_version = ssl.TLSVersion.TLSv1_3
    inner.options |= ssl.OP_NO_TICKET
    if server:
        inner.num_tickets = 0  # a resumed session would be believed on yesterday's bundle
    return inner


def _inner(identity: X509Identity, alpn: tuple[str, ...], *, server: bool) -> MomentContext:
    inner = _bare(server=server)
    inner.load_verify_locations(cadata=certificates_to_pem(identity.bundle.x509_authorities).decode("ascii"))
    if alpn:
        inner.set_alpn_protocols(alpn)
    _load_identity(inner, identity)
    return inner


def _load_identity(context: ssl.SSLContext, identity: X509Identity) -> None:
    """Load chain and key through a file without a name: the library reads keys from files only."""
    with _nameless_file() as file:
        file.write(identity.chain_pem + identity.key_pem.reveal())
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")


def _nameless_file() -> Any:
    """Return a file in memory, or where the kernel refuses one, a 0600 file without a name."""
    try:
        return os.fdopen(os.memfd_create("everyhop", os.MFD_CLOEXEC), "wb")
    except OSError:
        return tempfile.TemporaryFile()
