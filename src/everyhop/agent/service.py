# SPDX-License-Identifier: Apache-2.0
"""The Workload API's meaning, without its transport: what to send to whom, and when (SPIFFE_Workload_API.md).

A watcher gets everything it is entitled to at once, and again whenever that changes (section 4.3): a rotated
SVID, a new bundle, another policy, a launch that ended.  When nothing is left the watch ends with AccessDenied
(section 5.2.1).
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from everyhop.agent.matching import NoIdentity, entitled, explain, needs_of, quarantined, selectors_of
from everyhop.agent.model import Grant, JwtIdentity, ProcessFacts, X509Context
from everyhop.core.errors import AccessDenied, AttestationError, InputError, SvidError, Unavailable
from everyhop.spiffe.ids import SpiffeId
from everyhop.spiffe.jwt_svid import (
    MAX_AUDIENCE_BYTES,
    MAX_AUDIENCES,
    JwtSvid,
    peek_subject,
    validate_jwt_svid,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from everyhop.agent.changes import Changes
    from everyhop.agent.identities import Hold, IdentityCache
    from everyhop.agent.launches import LaunchRegistry
    from everyhop.agent.ports import ProcessInspector
    from everyhop.agent.tokens import TokenCache
    from everyhop.core.clock import Clock
    from everyhop.policy.model import Selector, Service, Snapshot
    from everyhop.spiffe.bundle import Bundle
    from everyhop.wire.peers import PeerInfo

log = logging.getLogger(__name__)

Grounds: TypeAlias = "tuple[str, int, frozenset[SpiffeId]]"
NO_IDENTITY: Final = "no identity issued; on this machine `everyhop why --pid {pid}` tells the reason"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """A process as the policy sees it: facts, the selectors that hold, the services it is an instance of."""

    facts: ProcessFacts
    selectors: frozenset[Selector]
    services: tuple[Service, ...]
    no_identity: NoIdentity | None

    def to_dict(self) -> dict[str, Any]:
        """Return what ``everyhop why --pid`` shows."""
        return {
            "pid": self.facts.pid,
            "services": [
                {"service": service.name, "spiffe_id": str(service.spiffe_id)} for service in self.services
            ],
            "selectors": [str(selector) for selector in sorted(self.selectors)],
            "unknown": dict(self.facts.unknown),
            "no_identity": None if self.no_identity is None else self.no_identity.to_dict(),
        }


class WorkloadService:
    """Answers workloads.  All parts share one ``changes``; all use is from one event loop."""

    def __init__(
        self,
        *,
        inspector: ProcessInspector,
        launches: LaunchRegistry,
        identities: IdentityCache,
        tokens: TokenCache,
        clock: Clock,
        changes: Changes,
    ) -> None:
        self._inspector = inspector
        self._launches = launches
        self._identities = identities
        self._tokens = tokens
        self._clock = clock
        self._changes = changes
        self._snapshot: Snapshot | None = None
        self._prefetched: dict[SpiffeId, Hold] = {}
        self._withheld: frozenset[SpiffeId] = frozenset()

    @property
    def snapshot(self) -> Snapshot | None:
        """Return the policy in force, None while starting."""
        return self._snapshot

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Take over a policy; every open watch is judged anew under it at once."""
        self._snapshot = snapshot
        self._changes.bump()

    def withhold(self, spiffe_ids: frozenset[SpiffeId]) -> None:
        """Give exactly these identities to nobody from now on; every open watch is judged anew at once."""
        if spiffe_ids != self._withheld:
            self._withheld = spiffe_ids
            self._changes.bump()

    def apply_bundle(self, bundle: Bundle, authority: str | None = None) -> None:
        """Take over a bundle, and the id of the X.509 authority that signs now."""
        self._tokens.keep_only(bundle)
        self._identities.apply_bundle(bundle, authority)

    async def run(self) -> None:
        """Keep the SVIDs of launched services fresh before anybody asks, until cancelled."""
        try:
            while True:
                version = self._changes.version
                self.prefetch()
                await self._changes.beyond(version)
        finally:
            for hold in self._prefetched.values():
                hold.close()
            self._prefetched.clear()

    def prefetch(self) -> None:
        """Need exactly the identities of the services that run now."""
        snapshot = self._snapshot
        names = {launch.service for launch in self._launches.live()}
        wanted = (
            {snapshot.services[n].spiffe_id for n in names if n in snapshot.services} if snapshot else set()
        )
        wanted -= self._withheld
        for spiffe_id in wanted - self._prefetched.keys():
            self._prefetched[spiffe_id] = self._identities.hold(spiffe_id)
        for spiffe_id in self._prefetched.keys() - wanted:
            self._prefetched.pop(spiffe_id).close()

    async def attest(self, peer: PeerInfo) -> Attested:
        """Establish what a peer is under the policy in force.

        Raises Unavailable while starting, AttestationError when the peer is gone.
        """
        snapshot = self._snapshot
        if snapshot is None:
            raise Unavailable("the agent is starting")
        path, sha256 = needs_of(snapshot)
        facts = await self._inspector.inspect(peer, path=path, sha256=sha256)
        selectors = selectors_of(facts, self._launches.services_of(facts.ancestors))
        matching = entitled(snapshot, selectors)
        services = tuple(service for service in matching if service.spiffe_id not in self._withheld)
        no_identity = None
        if not services:
            no_identity = explain(snapshot, selectors, facts.unknown)
            if matching:
                no_identity = quarantined(selectors, matching[0].name)
        return Attested(facts=facts, selectors=selectors, services=services, no_identity=no_identity)

    async def watch_x509(self, peer: PeerInfo) -> AsyncGenerator[X509Context]:
        """Yield all SVIDs and the bundle of a peer, at once and after each change.

        Raises AccessDenied when it is entitled to none (any more), AttestationError when it is gone,
        Unavailable while starting or when an SVID cannot be had.
        """
        last: X509Context | None = None
        async with aclosing(self._watch(peer)) as watch:
            async for attested in watch:
                grounds = self._grounds()
                context = await self._x509_context(attested.services)
                # Waiting for an SVID takes time: what was decided before may not hold any more.
                if context != last and grounds == self._grounds() and peer.is_alive():
                    last = context
                    yield context

    async def watch_bundle(self, peer: PeerInfo) -> AsyncGenerator[Bundle]:
        """Yield the bundle for a peer that has an identity, at once and after each change; raises as above."""
        last: Bundle | None = None
        async with aclosing(self._watch(peer)) as watch:
            async for _ in watch:
                bundle = self._bundle()
                if bundle != last:
                    last = bundle
                    yield bundle

    async def service_of(self, peer: PeerInfo, spiffe_id: str = "") -> Service:
        """Return the service that a peer is: the one asked for, or its first.

        Raises InputError for a malformed id, AccessDenied when it is none, AttestationError when it is gone.
        """
        service = _chosen((await self._entitled(peer)).services, spiffe_id, peer)
        if not peer.is_alive():
            raise AttestationError(f"process {peer.pid} is gone")
        return service

    async def watch_service(self, peer: PeerInfo, spiffe_id: str = "") -> AsyncGenerator[Service]:
        """Yield the service that a peer is, at once and after each change of anything; raises as above."""
        async with aclosing(self._watch(peer)) as watch:
            async for attested in watch:
                yield _chosen(attested.services, spiffe_id, peer)

    async def jwt_svids(
        self, peer: PeerInfo, audience: tuple[str, ...], spiffe_id: str = ""
    ) -> tuple[tuple[str, JwtIdentity], ...]:
        """Return (service, JWT-SVID) for the identity asked for, or for every one (section 6.2.1).

        Raises InputError for a bad audience or id, AccessDenied when the peer is not entitled to it.
        """
        _check_audience(audience)
        wanted = SpiffeId.parse(spiffe_id) if spiffe_id else None
        self._bundle()
        grounds = self._grounds()
        services = (await self._entitled(peer)).services
        if wanted is not None:
            services = tuple(service for service in services if service.spiffe_id == wanted)
            if not services:
                log.warning("JWT-SVID refused: pid %d is not entitled to %s", peer.pid, wanted)
                raise AccessDenied(f"not entitled to {wanted}")
        tokens = [(service.name, await self._tokens.jwt(service.spiffe_id, audience)) for service in services]
        if grounds != self._grounds():  # decided anew meanwhile: only what still holds is handed out
            names = {service.name for service in (await self._entitled(peer)).services}
            tokens = [(name, token) for name, token in tokens if name in names]
        if not tokens:
            raise AccessDenied(NO_IDENTITY.format(pid=peer.pid))
        if not peer.is_alive():
            raise AttestationError(f"process {peer.pid} is gone")
        return tuple(tokens)

    async def validate_jwt(self, peer: PeerInfo, token: str, audience: str) -> JwtSvid:
        """Validate a JWT-SVID for a peer that has an identity (section 6.2.3).

        Raises InputError when an argument is missing or does not parse, SvidError when it is not believed.
        """
        if not audience or not token:
            raise InputError("audience and svid are mandatory")
        await self._entitled(peer)
        bundle = self._bundle()
        subject = peek_subject(token)
        if subject in self._withheld:
            raise SvidError(f"{subject} is quarantined")
        if subject.trust_domain != bundle.trust_domain:  # section 6.3: the bundle of the subject's own
            raise SvidError(f"no bundle for the trust domain {subject.trust_domain}")
        return validate_jwt_svid(token, bundle, audience=audience, now=self._clock.now())

    async def _watch(self, peer: PeerInfo) -> AsyncGenerator[Attested]:
        """Yield at once and after every change; look at the process again when policy or launches changed."""
        attested: Attested | None = None
        judged: Grounds | None = None
        holds: dict[SpiffeId, Hold] = {}
        try:
            while True:
                version = self._changes.version
                grounds = self._grounds()
                if attested is None or grounds != judged:
                    attested, judged = await self._entitled(peer), grounds
                    if grounds != self._grounds():
                        continue
                    self._rehold(holds, attested.services)
                elif not peer.is_alive():
                    raise AttestationError(f"process {peer.pid} is gone")
                yield attested
                await self._changes.beyond(version)
        finally:
            for hold in holds.values():
                hold.close()

    def _grounds(self) -> Grounds:
        """Return what an entitlement rests on besides the process itself."""
        return self._snapshot.hash if self._snapshot else "", self._launches.version, self._withheld

    def _rehold(self, holds: dict[SpiffeId, Hold], services: tuple[Service, ...]) -> None:
        wanted = {service.spiffe_id for service in services}
        for spiffe_id in wanted - holds.keys():
            holds[spiffe_id] = self._identities.hold(spiffe_id)
        for spiffe_id in holds.keys() - wanted:
            holds.pop(spiffe_id).close()

    async def _entitled(self, peer: PeerInfo) -> Attested:
        """Attest a peer and insist on an identity; a refusal is logged with its reason."""
        attested = await self.attest(peer)
        if attested.no_identity is not None:
            log.warning("no identity for pid %d: %s", peer.pid, attested.no_identity.render())
            raise AccessDenied(NO_IDENTITY.format(pid=peer.pid))
        return attested

    async def _x509_context(self, services: tuple[Service, ...]) -> X509Context:
        self._bundle()
        grants = [
            Grant(service=service.name, identity=await self._identities.x509(service.spiffe_id))
            for service in services
        ]
        return X509Context(grants=tuple(grants), bundle=self._bundle())

    def _bundle(self) -> Bundle:
        bundle = self._identities.bundle
        if bundle is None:
            raise Unavailable("the agent is starting")
        return bundle


def _chosen(services: tuple[Service, ...], spiffe_id: str, peer: PeerInfo) -> Service:
    """Return the service asked for, or the first; a peer without any was refused before."""
    if not spiffe_id:
        return services[0]
    wanted = SpiffeId.parse(spiffe_id)
    for service in services:
        if service.spiffe_id == wanted:
            return service
    log.warning("refused: pid %d is not entitled to %s", peer.pid, wanted)
    raise AccessDenied(f"not entitled to {wanted}")


def _check_audience(audience: tuple[str, ...]) -> None:
    if not audience or not all(audience):
        raise InputError("an audience is mandatory, and none may be empty")
    if len(audience) > MAX_AUDIENCES or any(len(a.encode()) > MAX_AUDIENCE_BYTES for a in audience):
        raise InputError(f"at most {MAX_AUDIENCES} audiences of {MAX_AUDIENCE_BYTES} bytes")
    if len(set(audience)) != len(audience):
        raise InputError("an audience is named twice")
