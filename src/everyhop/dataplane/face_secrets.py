# SPDX-License-Identifier: Apache-2.0
"""Key and bundle for the server's face: Envoy's secret discovery service on a socket of the server's own.

So the face depends on no agent.  Only one process is answered: the Envoy that the server's own supervisor started.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import AttestationError, InputError, NotFound
from everyhop.dataplane import _names as names
from everyhop.dataplane.face import FACE
from everyhop.dataplane.sds import svid_secret
from everyhop.wire.envoy import SECRET_TYPE_URL, STREAM_SECRETS, DiscoveryRequest, DiscoveryResponse, Secret
from everyhop.wire.processes import read_stat
from everyhop.wire.rpc import Call, Cardinality, Method, Service
from everyhop.wire.transport import PeerServer
from everyhop.x509.certificates import certificates_to_pem

if TYPE_CHECKING:
    from everyhop.agent.changes import Changes
    from everyhop.dataplane.ports import Identities
    from everyhop.spiffe.bundle import Bundle
    from everyhop.spiffe.ids import SpiffeId
    from everyhop.wire.peers import PeerInfo

log = logging.getLogger(__name__)

_KNOWN: Final = frozenset({names.SDS_SVID, names.SDS_BUNDLE})
_MAX_SHOWN: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceProcess:
    """How to know the face: it runs as this user, and whoever started us started it.

    Another process of the same user can open the sockets, but cannot become a child of ``parent``.
    """

    parent: int
    uid: int

    @classmethod
    def sibling(cls) -> FaceProcess:
        """Return the face of a server that was started by the same process as the face."""
        return cls(parent=os.getppid(), uid=os.getuid())

    def check(self, peer: PeerInfo) -> None:
        """Raise AttestationError when a peer is not the face."""
        if peer.uid != self.uid:
            raise AttestationError(f"process {peer.pid} runs as another user (uid {peer.uid})")
        if read_stat(peer.pid).parent != self.parent or not peer.is_alive():
            raise AttestationError(f"process {peer.pid} is not the server's face")


@dataclass(slots=True)
class _Stream:
    """One stream: what was asked for, what was sent, what was taken over."""

    wanted: frozenset[str] = frozenset()
    sent: bytes = b""
    nonce: int = 0
    sequence: int = 0


class FaceSecrets:
    """Answers the face, and knows which bundle it holds.  All use is from one event loop."""

    def __init__(
        self, *, process: FaceProcess, spiffe_id: SpiffeId, identities: Identities, changes: Changes
    ) -> None:
        self._process = process
        self._spiffe_id = spiffe_id
        self._identities = identities
        self._changes = changes
        self._held: tuple[_Stream, int] | None = None

    @property
    def acknowledged_bundle(self) -> int | None:
        """Return the sequence of the bundle that the face has confirmed; None while it is not connected."""
        return None if self._held is None else self._held[1]

    async def stream(self, call: Call[DiscoveryRequest, DiscoveryResponse]) -> None:
        """Serve one StreamSecrets call until either side ends it.

        Raises AttestationError for a peer that is not the face, InputError for an unknown secret.
        """
        self._process.check(call.peer)
        request = await call.receive_first()
        if request is None:
            return
        if request.node.id != FACE:
            raise AttestationError("the secrets of this socket are for the server's face")
        stream = _Stream()
        try:
            await call.converse(request, partial(self._take, stream), self._push_changes(stream, call))
        finally:
            if self._held is not None and self._held[0] is stream:
                self._held = None

    async def _push_changes(self, stream: _Stream, call: Call[DiscoveryRequest, DiscoveryResponse]) -> None:
        with self._identities.hold(self._spiffe_id):
            while True:
                version = self._changes.version
                await self._push(stream, call)
                await self._changes.beyond(version)

    def _take(self, stream: _Stream, request: DiscoveryRequest) -> None:
        wanted = frozenset(request.resource_names)
        if not wanted or not wanted <= _KNOWN:
            raise InputError("ask for 'svid' or 'bundle'")
        if wanted != stream.wanted:
            stream.wanted, stream.sent = wanted, b""
            self._changes.bump()  # wakes the task that answers
        if not request.response_nonce or request.response_nonce != str(stream.nonce):
            return
        if request.HasField("error_detail"):
            log.error(
                "the face rejects its %s: %s", sorted(wanted), request.error_detail.message[:_MAX_SHOWN]
            )
        elif names.SDS_BUNDLE in wanted:
            self._held = (stream, stream.sequence)
            self._changes.bump()

    async def _push(self, stream: _Stream, call: Call[DiscoveryRequest, DiscoveryResponse]) -> None:
        """Send what is new; wait for the next change when something is not there yet."""
        secrets = self._secrets(stream.wanted)
        if not secrets:
            return
        sequence = self._sequence()
        content = b"\0".join(secrets)
        if content == stream.sent:
            if self._held is not None and self._held[0] is stream:
                self._held = (stream, sequence)  # a bundle that differs only in what Envoy does not see
            return
        stream.sent, stream.sequence = content, sequence
        stream.nonce += 1
        response = DiscoveryResponse(
            version_info=hashlib.sha256(content).hexdigest()[:16],
            type_url=SECRET_TYPE_URL,
            nonce=str(stream.nonce),
        )
        for secret in secrets:
            response.resources.add(type_url=SECRET_TYPE_URL, value=secret)
        await call.send(response)

    def _secrets(self, wanted: frozenset[str]) -> list[bytes]:
        """Return what is wanted, encoded; empty while a part of it is not there."""
        identity, bundle = self._identities.current(self._spiffe_id), self._identities.bundle
        found: list[Secret] = []
        if names.SDS_SVID in wanted and identity is not None:
            found.append(svid_secret(identity))
        if names.SDS_BUNDLE in wanted and bundle is not None:
            found.append(authorities_secret(bundle))
        if len(found) != len(wanted):
            return []
        return [secret.SerializeToString(deterministic=True) for secret in found]

    def _sequence(self) -> int:
        bundle = self._identities.bundle
        return 0 if bundle is None else bundle.sequence or 0


def authorities_secret(bundle: Bundle) -> Secret:
    """Return a bundle as the authorities of Envoy's ordinary validator.

    The SPIFFE validator of a sidecar demands a certificate of everybody, and here most come without.  That the name
    in a certificate is one SPIFFE ID of the trust domain is checked by whoever reads it from the header.  Raises
    NotFound for a bundle without authorities, because with none Envoy would look at no certificate at all.
    """
    if not bundle.x509_authorities:
        raise NotFound("the bundle has no X.509 authority")
    secret = Secret(name=names.SDS_BUNDLE)
    secret.validation_context.trusted_ca.inline_bytes = certificates_to_pem(bundle.x509_authorities)
    return secret


def face_secrets_server(secrets: FaceSecrets) -> PeerServer:
    """Return the gRPC server for the face.  Start it in the event loop that made it."""
    method = Method(
        path=STREAM_SECRETS,
        cardinality=Cardinality.STREAM_STREAM,
        request=DiscoveryRequest,
        reply=DiscoveryResponse,
        handler=secrets.stream,
    )
    return PeerServer([Service([method])])
