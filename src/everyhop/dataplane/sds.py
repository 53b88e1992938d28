# SPDX-License-Identifier: Apache-2.0
"""Secrets for sidecars: Envoy's secret discovery service on the agent's Unix socket.

Only the Envoy of a living launch is answered, and only with the SVID of its own service and the bundle of the
trust domain.  Keys exist in the agent's and in Envoy's memory, never on a disk.  What a sidecar has taken
over is known (an ACK per secret), because an authority may sign only once everyone who checks its signatures
holds it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import AttestationError, InputError, NotFound
from everyhop.dataplane import _names as names
from everyhop.dataplane.ads import ConfigDiscovery
from everyhop.wire.envoy import (
    SECRET_TYPE_URL,
    SPIFFE_VALIDATOR_NAME,
    SPIFFE_VALIDATOR_TYPE_URL,
    STREAM_SECRETS,
    DiscoveryRequest,
    DiscoveryResponse,
    Secret,
    SPIFFECertValidatorConfig,
)
from everyhop.wire.envoy_config import DELTA_RESOURCES, DeltaDiscoveryRequest, DeltaDiscoveryResponse
from everyhop.wire.rpc import Call, Cardinality, Method, Service
from everyhop.wire.transport import Limits, PeerServer
from everyhop.x509.certificates import certificates_to_pem

if TYPE_CHECKING:
    from everyhop.agent.changes import Changes
    from everyhop.agent.identities import Hold
    from everyhop.agent.model import X509Identity
    from everyhop.dataplane.ports import Identities, Launches, Workloads
    from everyhop.spiffe.bundle import Bundle
    from everyhop.spiffe.ids import SpiffeId
    from everyhop.wire.peers import PeerInfo

log = logging.getLogger(__name__)

_FIRST_REQUEST_SECONDS: Final = 10.0
_KNOWN: Final = frozenset({names.SDS_SVID, names.SDS_BUNDLE})
_MAX_SHOWN: Final = 300
_MAX_UNSENT_BYTES: Final = 64 * 1024 * 1024  # a policy of 10,000 operations takes several MiB


@dataclass(slots=True)
class _Stream:
    """One stream: what was asked for, what was sent, what was taken over."""

    peer: PeerInfo
    instance: str
    wanted: frozenset[str] = frozenset()
    sent: bytes = b""
    nonce: int = 0
    confirmed: int = -1
    sequence: int = 0
    hold: Hold | None = None
    held_for: SpiffeId | None = None


class SecretDiscovery:
    """Answers sidecars, and knows what they hold.  All use is from one event loop."""

    def __init__(
        self, *, identities: Identities, launches: Launches, workloads: Workloads, changes: Changes
    ) -> None:
        self._identities = identities
        self._launches = launches
        self._workloads = workloads
        self._changes = changes
        self._acknowledged: dict[str, tuple[_Stream, int]] = {}
        self.configs = ConfigDiscovery(launches, changes)

    def acknowledged_bundle(self, instance: str) -> int:
        """Return the sequence of the bundle that a sidecar has confirmed; 0 while it has none or is not connected."""
        held = self._acknowledged.get(instance)
        return 0 if held is None else held[1]

    async def stream(self, call: Call[DiscoveryRequest, DiscoveryResponse]) -> None:
        """Serve one StreamSecrets call until either side ends it.

        Raises AttestationError for a peer that is no sidecar (any more), InputError for an unknown secret.
        """
        async with asyncio.timeout(_FIRST_REQUEST_SECONDS):
            request = await call.receive()
        if request is None:
            return
        stream = _Stream(call.peer, request.node.id)
        pushing = asyncio.ensure_future(self._push_changes(stream, call))
        try:
            while request is not None:
                self._take(stream, request)
                request = await call.receive_unless(pushing)
        finally:
            pushing.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await pushing
            self._forget(stream)

    async def _push_changes(self, stream: _Stream, call: Call[DiscoveryRequest, DiscoveryResponse]) -> None:
        """Send what is wanted whenever it has changed."""
        while True:
            version = self._changes.version
            if stream.wanted:
                await self._push(stream, call)
            await self._changes.beyond(version)

    def _take(self, stream: _Stream, request: DiscoveryRequest) -> None:
        """Note what a request asks for, and what it confirms or rejects."""
        wanted = frozenset(request.resource_names)
        if not wanted or not wanted <= _KNOWN:
            raise InputError("ask for 'svid' or 'bundle'")
        if wanted != stream.wanted:
            stream.wanted, stream.sent = wanted, b""
            self._changes.bump()  # wakes the task that answers
        if not request.response_nonce or request.response_nonce != str(stream.nonce):
            return
        if request.HasField("error_detail"):
            log.warning(
                "sidecar %s rejects its %s: %s",
                stream.instance,
                "+".join(sorted(wanted)),
                request.error_detail.message[:_MAX_SHOWN],
            )
        elif names.SDS_BUNDLE in wanted:
            stream.confirmed = stream.nonce
            self._note_held(stream)

    async def _push(self, stream: _Stream, call: Call[DiscoveryRequest, DiscoveryResponse]) -> None:
        """Send what is new; wait for the next change when something is not there yet."""
        spiffe_id = self._identity_of(stream)
        if stream.held_for != spiffe_id:
            hold = self._identities.hold(spiffe_id)
            if stream.hold is not None:
                stream.hold.close()
            stream.hold, stream.held_for = hold, spiffe_id
        secrets = []
        bundle = self._identities.bundle
        if names.SDS_SVID in stream.wanted:
            identity = self._identities.current(spiffe_id)
            secrets.append(None if identity is None else svid_secret(identity))
        if names.SDS_BUNDLE in stream.wanted:
            secrets.append(None if bundle is None else bundle_secret(bundle))
        if None in secrets:
            return
        content = [secret.SerializeToString(deterministic=True) for secret in secrets if secret is not None]
        if b"\0".join(content) == stream.sent:
            # A bundle that differs only in JWT keys is the same to a sidecar, which holds it already.
            if bundle is not None and stream.sequence != (bundle.sequence or 0):
                stream.sequence = bundle.sequence or 0
                if stream.confirmed == stream.nonce:
                    self._note_held(stream)
            return
        stream.sent = b"\0".join(content)
        stream.nonce += 1
        stream.sequence = (bundle.sequence or 0) if bundle is not None else 0
        response = DiscoveryResponse(
            version_info=hashlib.sha256(stream.sent).hexdigest()[:16],
            type_url=SECRET_TYPE_URL,
            nonce=str(stream.nonce),
        )
        for secret in content:
            response.resources.add(type_url=SECRET_TYPE_URL, value=secret)
        await call.send(response)

    def _note_held(self, stream: _Stream) -> None:
        """Count the bundle that was sent last as held by the sidecar."""
        if names.SDS_BUNDLE in stream.wanted:
            self._acknowledged[stream.instance] = (stream, stream.sequence)
            self._changes.bump()

    def _identity_of(self, stream: _Stream) -> SpiffeId:
        """Return the identity of the sidecar's service under the policy in force; judged anew at each push."""
        launch = self._launches.check_sidecar(stream.peer, stream.instance)
        snapshot = self._workloads.snapshot
        service = None if snapshot is None else snapshot.services.get(launch.service)
        if service is None:
            raise AttestationError(f"the policy declares no service {launch.service!r}")
        return service.spiffe_id

    def _forget(self, stream: _Stream) -> None:
        if stream.hold is not None:
            stream.hold.close()
        held = self._acknowledged.get(stream.instance)
        if held is not None and held[0] is stream:
            del self._acknowledged[stream.instance]


def secrets_server(discovery: SecretDiscovery) -> PeerServer:
    """Return the gRPC server for sidecars: secrets and configuration.  Start it in the event loop that made it."""
    methods = [
        Method(
            path=STREAM_SECRETS,
            cardinality=Cardinality.STREAM_STREAM,
            request=DiscoveryRequest,
            reply=DiscoveryResponse,
            handler=discovery.stream,
        ),
        Method(
            path=DELTA_RESOURCES,
            cardinality=Cardinality.STREAM_STREAM,
            request=DeltaDiscoveryRequest,
            reply=DeltaDiscoveryResponse,
            handler=discovery.configs.stream,
        ),
    ]
    return PeerServer([Service(methods)], limits=Limits(max_unsent_bytes=_MAX_UNSENT_BYTES))


def svid_secret(identity: X509Identity) -> Secret:
    """Return an X509-SVID with its key as Envoy's ``TlsCertificate``, both PEM."""
    secret = Secret(name=names.SDS_SVID)
    secret.tls_certificate.certificate_chain.inline_bytes = identity.chain_pem
    secret.tls_certificate.private_key.inline_bytes = identity.key_pem.reveal()
    return secret


def bundle_secret(bundle: Bundle) -> Secret:
    """Return a bundle as a validation context of Envoy's SPIFFE validator.

    The validator looks for a chain to the authorities of the very trust domain that the peer's URI names, and
    refuses leaves that are CAs.  A bundle without authorities trusts nobody.  Raises NotFound for such a
    bundle, because Envoy would reject it and go on with the one before.
    """
    if not bundle.x509_authorities:
        raise NotFound("the bundle has no X.509 authority")
    secret = Secret(name=names.SDS_BUNDLE)
    config = SPIFFECertValidatorConfig()
    domain = config.trust_domains.add(name=bundle.trust_domain.name)
    domain.trust_bundle.inline_bytes = certificates_to_pem(bundle.x509_authorities)
    validator = secret.validation_context.custom_validator_config
    validator.name = SPIFFE_VALIDATOR_NAME
    validator.typed_config.type_url = SPIFFE_VALIDATOR_TYPE_URL
    validator.typed_config.value = config.SerializeToString(deterministic=True)
    return secret
