# SPDX-License-Identifier: Apache-2.0
"""Secrets for sidecars: Envoy's secret discovery service on the agent's Unix socket.

Only the Envoy of a living launch is answered, and only with the SVID of its own service, the bundle of the trust
domain and the access tokens of its own service.  Keys and tokens exist in the agent's and in Envoy's memory, never on a disk.  What a sidecar has taken
over is known (an ACK per secret), because an authority may sign only once everyone who checks its signatures
holds it.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import AttestationError, InputError, NotFound
from everyhop.dataplane import _names as names
from everyhop.dataplane.ads import ConfigDiscovery
from everyhop.dataplane.lanes import generation_of_svid, label, token_of_secret
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
    from collections.abc import Callable

    from everyhop.agent.changes import Changes
    from everyhop.agent.identities import Hold
    from everyhop.agent.model import X509Identity
    from everyhop.dataplane.ports import Identities, Launches, TokenSecrets, Workloads
    from everyhop.spiffe.bundle import Bundle
    from everyhop.spiffe.ids import SpiffeId
    from everyhop.wire.peers import PeerInfo

log = logging.getLogger(__name__)

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
        self,
        *,
        identities: Identities,
        launches: Launches,
        workloads: Workloads,
        changes: Changes,
        tokens: TokenSecrets | None = None,
        is_withheld: Callable[[str], bool] = lambda _spiffe_id: False,
    ) -> None:
        """Serve what these hold; without ``tokens`` no sidecar carries any.  All of them bump ``changes``.

        Nothing is given to an identity that ``is_withheld`` tells of.
        """
        self._is_withheld = is_withheld
        self._identities = identities
        self._tokens = tokens
        self._launches = launches
        self._workloads = workloads
        self._changes = changes
        self._acknowledged: dict[str, tuple[_Stream, int]] = {}
        self._confirmed: dict[tuple[str, str], set[int]] = {}
        self.configs = ConfigDiscovery(launches, changes, self.is_confirmed)

    def acknowledged_bundle(self, instance: str) -> int:
        """Return the sequence of the bundle that a sidecar has confirmed; 0 while it has none or is not connected."""
        held = self._acknowledged.get(instance)
        return 0 if held is None else held[1]

    def is_confirmed(self, instance: str, secret: str) -> bool:
        """Tell whether a sidecar that is connected has confirmed a secret."""
        return bool(self._confirmed.get((instance, secret)))

    async def stream(self, call: Call[DiscoveryRequest, DiscoveryResponse]) -> None:
        """Serve one StreamSecrets call until either side ends it.

        Raises AttestationError for a peer that is no sidecar (any more), InputError for an unknown secret.
        """
        request = await call.receive_first()
        if request is None:
            return
        stream = _Stream(call.peer, request.node.id)
        try:
            await call.converse(request, partial(self._take, stream), self._push_changes(stream, call))
        finally:
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
        if not wanted or not all(map(_is_known, wanted)):
            raise InputError("ask for 'svid', 'bundle' or a token")
        if wanted != stream.wanted:
            self._forget_confirmed(stream)
            stream.wanted, stream.sent = wanted, b""
            self._changes.bump()  # wakes the task that answers
        if stream.nonce == 0 or request.response_nonce != str(stream.nonce):
            return
        if request.HasField("error_detail"):
            log.warning(
                "sidecar %s rejects its %s: %s",
                stream.instance,
                "+".join(sorted(wanted)),
                request.error_detail.message[:_MAX_SHOWN],
            )
            return
        for name in wanted:
            self._confirmed.setdefault((stream.instance, name), set()).add(id(stream))
        stream.confirmed = stream.nonce
        self._note_held(stream)
        if wanted - {names.SDS_SVID, names.SDS_BUNDLE}:
            self.configs.look_again(stream.instance)

    async def _push(self, stream: _Stream, call: Call[DiscoveryRequest, DiscoveryResponse]) -> None:
        """Send what is new; wait for the next change when something is not there yet."""
        spiffe_id = self._identity_of(stream)
        if stream.held_for != spiffe_id:
            hold = self._identities.hold(spiffe_id)
            if stream.hold is not None:
                stream.hold.close()
            stream.hold, stream.held_for = hold, spiffe_id
        bundle = self._identities.bundle
        secrets = [self._secret(name, spiffe_id) for name in sorted(stream.wanted)]
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

    def _secret(self, name: str, spiffe_id: SpiffeId) -> Secret | None:
        """Return a secret by name, None while it is not there (any more).

        A certificate and a token of a generation are given while it is the one in use: what is under way on the
        connections of the one before needs nothing new.
        """
        if name == names.SDS_BUNDLE:
            return None if self._identities.bundle is None else bundle_secret(self._identities.bundle)
        if name == names.SDS_SVID:
            identity = self._identities.current(spiffe_id)
            return None if identity is None else svid_secret(identity)
        identity = None if self._tokens is None else self._tokens.generation(spiffe_id)
        if self._tokens is None or identity is None:
            return None
        generation, audience = token_of_secret(name) or (generation_of_svid(name), None)
        if generation != label(identity.x5t):
            return None
        if audience is None:
            return svid_secret(identity, name)
        token = self._tokens.token_for(spiffe_id, *audience, identity.x5t)
        return None if token is None else token_secret(name, token)

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
        if self._is_withheld(str(service.spiffe_id)):
            raise AttestationError(f"{service.spiffe_id} is quarantined")
        return service.spiffe_id

    def _forget_confirmed(self, stream: _Stream) -> None:
        for name in stream.wanted:
            holders = self._confirmed.get((stream.instance, name), set())
            holders.discard(id(stream))
            if not holders:
                self._confirmed.pop((stream.instance, name), None)

    def _forget(self, stream: _Stream) -> None:
        self._forget_confirmed(stream)
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


def _is_known(name: str) -> bool:
    if name in {names.SDS_SVID, names.SDS_BUNDLE}:
        return True
    return generation_of_svid(name) is not None or token_of_secret(name) is not None


def token_secret(name: str, token: str) -> Secret:
    """Return an access token as the value of an ``Authorization`` header."""
    secret = Secret(name=name)
    secret.generic_secret.secret.inline_string = f"Bearer {token}"
    return secret


def svid_secret(identity: X509Identity, name: str = names.SDS_SVID) -> Secret:
    """Return an X509-SVID with its key as Envoy's ``TlsCertificate``, both PEM."""
    secret = Secret(name=name)
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
