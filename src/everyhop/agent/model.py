# SPDX-License-Identifier: Apache-2.0
"""What the agent knows of processes and identities, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from everyhop.x509.certificates import certificates_to_pem
from everyhop.x509.keys import private_key_to_pem
from everyhop.x509.thumbprint import x5t_s256

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from everyhop.core.secret import Secret
    from everyhop.spiffe.bundle import Bundle
    from everyhop.spiffe.ids import SpiffeId
    from everyhop.wire.processes import ProcessRef


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """What the kernel says of one process.

    ``uid`` and ``gid`` are those of the connection; ``groups`` the supplementary ids.  Names are None (or
    missing) where the machine has no entry.  ``path`` is absolute, ``sha256`` 64 hex digits of the executable.
    ``ancestors`` starts with the process itself.  ``unknown`` says of each fact that could not be established
    why ("path", "sha256"), in words for an operator.
    """

    pid: int
    uid: int
    gid: int
    user: str | None
    group: str | None
    groups: tuple[int, ...]
    group_names: tuple[str, ...]
    path: str | None
    sha256: str | None
    ancestors: tuple[ProcessRef, ...]
    unknown: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "unknown", MappingProxyType(dict(self.unknown)))


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Identity:
    """An X509-SVID with its key.

    ``chain`` is DER, leaf first, without the root; ``key`` is PKCS#8 DER.  ``authority`` names the signing
    authority where the server told.  Times are aware UTC; ``renew_at`` lies about half way.
    """

    spiffe_id: SpiffeId
    chain: tuple[bytes, ...]
    key: Secret
    authority: str | None
    not_before: datetime
    expires_at: datetime
    renew_at: datetime

    @property
    def x5t(self) -> str:
        """Return the thumbprint that tokens are bound to: ``x5t#S256`` of the leaf (RFC 8705 section 3.1)."""
        return x5t_s256(self.chain[0])

    @property
    def chain_der(self) -> bytes:
        """Return the certificates joined, as the Workload API sends them."""
        return b"".join(self.chain)

    @property
    def chain_pem(self) -> bytes:
        """Return the certificates as PEM, leaf first."""
        return certificates_to_pem(self.chain)

    @property
    def key_pem(self) -> Secret:
        """Return the key as PKCS#8 PEM."""
        return private_key_to_pem(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtIdentity:
    """A JWT-SVID; ``token`` is a bearer secret and never logged."""

    spiffe_id: SpiffeId
    token: str = field(repr=False)
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One identity of a workload: the service (its hint) and the SVID."""

    service: str
    identity: X509Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Context:
    """All that one workload is entitled to, most specific first, with the bundle to check others by."""

    grants: tuple[Grant, ...]
    bundle: Bundle
