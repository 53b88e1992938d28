# SPDX-License-Identifier: Apache-2.0
"""TLS connections whose handshake includes the check of the peer's SPIFFE ID, and the peer that it proved."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

from everyhop.core.errors import EveryhopError, TrustError
from everyhop.sdk.model import Peer
from everyhop.spiffe.ids import SpiffeId, TrustDomain
from everyhop.spiffe.x509_svid import check_leaf
from everyhop.x509.certificates import decode_certificate
from everyhop.x509.thumbprint import x5t_s256

CONNECTION: Final[ContextVar[CheckedObject | None]] = ContextVar("everyhop_connection", default=None)
"""The TLS connection of the server task that runs now.

Set only on contexts of :func:`everyhop.sdk.hypercorn_config`: hypercorn hands a connection on in no other way, but it
serves each in one task, which asks for the protocol first.
"""


@dataclass(frozen=True, slots=True)
class _Proven:
    """What a handshake proved of the peer."""

    peer: Peer
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Demand:
    """What a peer must prove: an identity of this trust domain that is allowed here."""

    trust_domain: TrustDomain
    allows: Callable[[SpiffeId], bool]

    def prove(self, der: bytes | None) -> _Proven:
        """Examine a leaf whose chain OpenSSL has verified; raise SSLCertVerificationError."""
        try:
            if der is None:
                raise TrustError("the peer has no certificate")
            certificate = decode_certificate(der)
            spiffe_id = check_leaf(certificate)
            if spiffe_id.trust_domain != self.trust_domain:
                raise TrustError(f"{spiffe_id} is not of the trust domain {self.trust_domain}")
            if not self.allows(spiffe_id):
                raise TrustError(f"{spiffe_id} is not allowed on this connection")
        except EveryhopError as error:
            raise ssl.SSLCertVerificationError(f"everyhop: {error.message}") from error
        return _Proven(Peer(spiffe_id=str(spiffe_id), x5t=x5t_s256(der)), certificate.not_valid_after_utc)


class MomentContext(ssl.SSLContext):
    """A context of one moment; ``refusal`` says why no connection can be made now."""

    demand: Demand | None = None
    refusal: EveryhopError | None = None
    tells_its_task: bool = False
    outer: ssl.SSLContext


def _before(context: ssl.SSLContext | None) -> MomentContext:
    if not isinstance(context, MomentContext) or context.refusal is not None or context.demand is None:
        why = (
            context.refusal.message
            if isinstance(context, MomentContext) and context.refusal
            else "not a context of ours"
        )
        raise ssl.SSLError(f"everyhop: no TLS connection can be made: {why}")
    return context


class CheckedObject(ssl.SSLObject):
    """A TLS connection in memory (asyncio, anyio) whose handshake includes the check of the peer's SPIFFE ID."""

    proven: _Proven | None = None

    def do_handshake(self) -> None:
        """Complete the handshake and check the peer; raise SSLError."""
        inner = _before(self.context)
        super().do_handshake()
        assert inner.demand is not None  # noqa: S101  # _before has looked
        self.proven = inner.demand.prove(self.getpeercert(binary_form=True))

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002  # the base's name
        """Read; never before the check."""
        _require(self.proven)
        return super().read(len, buffer) if buffer is not None else super().read(len)

    def write(self, data: Any) -> int:
        """Write; never before the check."""
        _require(self.proven)
        return super().write(data)

    def selected_alpn_protocol(self) -> str | None:
        """Return the protocol; where the context says so, the task that asks knows its connection from then on."""
        inner = self.context
        if self.proven is not None and isinstance(inner, MomentContext) and inner.tells_its_task:
            CONNECTION.set(self)
        return super().selected_alpn_protocol()


class CheckedSocket(ssl.SSLSocket):
    """A TLS socket whose handshake includes the check of the peer's SPIFFE ID."""

    proven: _Proven | None = None

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002  # the base's signature
        """Complete the handshake and check the peer; raise SSLError and close."""
        inner = _before(self.context)
        super().do_handshake(block)
        assert inner.demand is not None  # noqa: S101  # _before has looked
        try:
            self.proven = inner.demand.prove(self.getpeercert(binary_form=True))
        except ssl.SSLError:
            self.close()
            raise

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002  # the base's name
        """Read; never before the check."""
        _require(self.proven)
        return super().read(len, buffer)

    def write(self, data: Any) -> int:
        """Write; never before the check."""
        _require(self.proven)
        return super().write(data)

    def send(self, data: Any, flags: int = 0) -> int:
        """Send; never before the check."""
        _require(self.proven)
        return super().send(data, flags)

    def accept(self) -> tuple[ssl.SSLSocket, Any]:
        """Accept on a listening socket, with the identity of this moment and not of when it began to listen."""
        inner = self.context
        # What SSLSocket.accept does, less its use of the context that the listening socket was wrapped with.
        connection, address = super(ssl.SSLSocket, self).accept()
        outer = inner.outer if isinstance(inner, MomentContext) else inner
        return (
            outer.wrap_socket(
                connection,
                server_side=True,
                do_handshake_on_connect=cast("Any", self).do_handshake_on_connect,
                suppress_ragged_eofs=cast("Any", self).suppress_ragged_eofs,
            ),
            address,
        )


def _require(proven: _Proven | None) -> None:
    if proven is None:
        raise ssl.SSLError("everyhop: the handshake of this connection is not complete")


def peer_of(connection: object, *, now: datetime | None = None) -> Peer:
    """Return the verified peer of a TLS connection made with one of our contexts.

    ``connection`` is asyncio's ``ssl_object`` or an ``SSLSocket``.  Raises TrustError for a connection of another
    context, one whose handshake is not complete, and one whose peer's certificate has expired since.
    """
    if not isinstance(connection, CheckedObject | CheckedSocket):
        raise TrustError("the connection was not made with a context of everyhop.sdk")
    proven = connection.proven
    if proven is None:
        raise TrustError("the handshake of the connection is not complete")
    if proven.not_after <= (now or datetime.now(UTC)):
        raise TrustError("the certificate of the peer has expired on this connection")
    return proven.peer
