# SPDX-License-Identifier: Apache-2.0
"""What the agent needs from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from everyhop.agent.minting import TokenWish
    from everyhop.agent.model import ProcessFacts
    from everyhop.wire.peers import PeerInfo


class X509Result(Protocol):
    """The server's answer to one request: a chain (DER, leaf first) with its end, or ``error``."""

    @property
    def chain(self) -> Sequence[bytes]:
        """Return the chain; empty when refused."""

    @property
    def expires_at(self) -> datetime | None:
        """Return the end of the leaf (aware UTC)."""

    @property
    def authority(self) -> str | None:
        """Return the id of the authority that signed."""

    @property
    def error(self) -> str | None:
        """Return why it was refused, None when it was not."""


class JwtResult(Protocol):
    """A token with its validity."""

    @property
    def token(self) -> str:
        """Return the compact JWS."""

    @property
    def issued_at(self) -> datetime:
        """Return its start (aware UTC)."""

    @property
    def expires_at(self) -> datetime:
        """Return its end (aware UTC)."""


class ControlPlane(Protocol):
    """The server, as far as identities are concerned.

    Both raise Unavailable when it cannot be reached, and AccessDenied when it refuses.
    """

    async def sign_x509(self, requests: list[tuple[str, bytes]]) -> Sequence[X509Result]:
        """Sign one CSR (DER) per SPIFFE ID; results keep the order of the requests."""

    async def sign_jwt(self, spiffe_id: str, audience: tuple[str, ...]) -> JwtResult:
        """Issue one JWT-SVID."""


class MintedResult(Protocol):
    """One access token."""

    @property
    def token(self) -> str:
        """Return the compact JWS."""

    @property
    def jti(self) -> str:
        """Return its id."""

    @property
    def expires_at(self) -> int:
        """Return its end in epoch seconds."""


class MintOutcome(Protocol):
    """The server's answer to one wish: as many tokens as were asked for, or ``error``."""

    @property
    def tokens(self) -> Sequence[MintedResult]:
        """Return the tokens; empty when refused."""

    @property
    def error(self) -> str | None:
        """Return why it was refused, None when it was not."""


class TokenMinter(Protocol):
    """The server, as far as access tokens are concerned."""

    async def mint(self, wishes: Sequence[tuple[TokenWish, int]]) -> Sequence[MintOutcome]:
        """Mint so many tokens for each wish; outcomes keep the order.  Raises Unavailable."""


class ProcessInspector(Protocol):
    """Establishes what the kernel knows of a peer."""

    async def inspect(self, peer: PeerInfo, *, path: bool, sha256: bool) -> ProcessFacts:
        """Return the facts of a living peer; the executable is looked at only as far as asked for.

        Raises AttestationError when the peer is gone or was replaced while it was looked at.
        """
