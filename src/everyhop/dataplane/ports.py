# SPDX-License-Identifier: Apache-2.0
"""What the secret discovery service needs of the agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from everyhop.agent.identities import Hold
    from everyhop.agent.launches import Launch
    from everyhop.agent.model import X509Identity
    from everyhop.policy.model import Snapshot
    from everyhop.spiffe.bundle import Bundle
    from everyhop.spiffe.ids import SpiffeId
    from everyhop.wire.peers import PeerInfo


class Identities(Protocol):
    """The SVIDs and the bundle of this node (:class:`everyhop.agent.identities.IdentityCache`)."""

    @property
    def bundle(self) -> Bundle | None:
        """Return the bundle in force, None while starting."""

    def hold(self, spiffe_id: SpiffeId) -> Hold:
        """Need an identity from now on."""

    def current(self, spiffe_id: SpiffeId) -> X509Identity | None:
        """Return the SVID held for an id if it is valid now."""


class Launches(Protocol):
    """Who is a sidecar (:class:`everyhop.agent.launches.LaunchRegistry`)."""

    def check_sidecar(self, peer: PeerInfo, instance: str) -> Launch:
        """Return the launch whose secrets a peer may have; raises AttestationError."""


class Workloads(Protocol):
    """The policy in force (:class:`everyhop.agent.service.WorkloadService`)."""

    @property
    def snapshot(self) -> Snapshot | None:
        """Return it, None while starting."""


class TokenSecrets(Protocol):
    """The access tokens of this node's services (:class:`everyhop.agent.service_tokens.ServiceTokens`).

    A token is bound to one certificate, so a sidecar shows both together: the clusters that carry tokens have the
    thumbprint of the certificate in their names, and ask for that very one.
    """

    def generation(self, spiffe_id: SpiffeId) -> X509Identity | None:
        """Return the identity to show where tokens are carried: the newest whose tokens are there."""

    def token_for(self, spiffe_id: SpiffeId, target: str, operation: str | None, x5t: str) -> str | None:
        """Return the token that is held for an audience and a certificate."""
