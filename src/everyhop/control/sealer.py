# SPDX-License-Identifier: Apache-2.0
"""The agent's seal: an X509-SVID of its own, with which it signs the records of its node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.auditlog.sealing import SealKey, agent_path, seal_records, sealed_hash
from everyhop.core.errors import Unavailable
from everyhop.spiffe import SpiffeId
from everyhop.x509.keys import decode_private_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everyhop.agent import IdentityCache
    from everyhop.auditlog import Record
    from everyhop.auditlog.sealing import Seal
    from everyhop.core.clock import Clock
    from everyhop.spiffe import TrustDomain


class AgentSealer:
    """Seals batches as one agent.  Used from one event loop."""

    def __init__(self, identities: IdentityCache, agent: str, *, clock: Clock) -> None:
        self._identities = identities
        self._path = agent_path(agent)
        self._clock = clock
        self._spiffe_id: SpiffeId | None = None
        self._key: SealKey | None = None

    def identify(self, trust_domain: TrustDomain) -> None:
        """Ask for the agent's SVID from now on; twice is once."""
        if self._spiffe_id is None:
            self._spiffe_id = SpiffeId.parse(f"spiffe://{trust_domain}{self._path}")
            self._identities.hold(self._spiffe_id)

    def seal(self, records: Sequence[Record], previous: bytes) -> tuple[Seal, tuple[bytes, ...]]:
        """Return the seal over records of one producer, without gaps, and the chain to check it with.

        Raises Unavailable while the agent has no SVID that is valid.
        """
        key = self._current()
        leaves = [sealed_hash(record) for record in records]
        first = records[0]
        now = self._clock.now()
        return (
            seal_records(first.producer, first.seq, leaves, previous=previous, now=now, key=key),
            key.chain,
        )

    def _current(self) -> SealKey:
        identity = None if self._spiffe_id is None else self._identities.current(self._spiffe_id)
        if identity is None:
            raise Unavailable("the agent has no SVID to sign its records with yet")
        if self._key is None or self._key.chain != identity.chain:
            self._key = SealKey.of(identity.chain, decode_private_key(identity.key), identity.expires_at)
        return self._key
