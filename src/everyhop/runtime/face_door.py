# SPDX-License-Identifier: Apache-2.0
"""What answers behind the server's face, composed: discovery for everybody, OAuth and AuthZEN for those known."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from everyhop.api.authzen_app import AuthzenDoor, base_urls
from everyhop.api.authzen_clients import Peps
from everyhop.api.oauth_app import oauth_app
from everyhop.api.oauth_clients import Clients
from everyhop.api.oauth_discovery import TOKEN_PATH, Discovery, Endpoints
from everyhop.api.oauth_endpoints import OAuthEndpoints
from everyhop.api.oauth_refusals import RefusalLog
from everyhop.authzen import PageTokens
from everyhop.authzen.paging import KEY_BYTES
from everyhop.control.authzen_point import DecisionPoints
from everyhop.control.bounded import EFFECT_SECONDS, within
from everyhop.control.decision_journal import DecisionJournal
from everyhop.core.errors import SvidError, Unavailable
from everyhop.core.secret import Secret
from everyhop.runtime.face import face_url, issuer_of
from everyhop.runtime.system import SystemClock, SystemEntropy
from everyhop.spiffe.bundle import decode_bundle
from everyhop.spiffe.ids import TrustDomain
from everyhop.spiffe.jwt_svid import validate_jwt_svid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from concurrent.futures import Executor
    from datetime import datetime

    from starlette.applications import Starlette
    from starlette.routing import Route

    from everyhop.apikeys import ApiKeys
    from everyhop.auditlog import RecordStore
    from everyhop.control.feed import Feed
    from everyhop.control.responding import BlocksInForce
    from everyhop.control.shown_credentials import CredentialWatch
    from everyhop.issuing import TokenJournal, TokenService
    from everyhop.policy.model import Snapshot
    from everyhop.runtime.layout import StateLayout
    from everyhop.runtime.settings import Settings
    from everyhop.spiffe.bundle import Bundle
    from everyhop.tokens.replay import ReplayGuard

T = TypeVar("T")

LONG_SECONDS: Final = 10.0
"""For what may wait for somebody else's issuer, or search; its records still wait for two seconds at most."""


class Work(Protocol):
    """Runs a blocking call beside the event loop."""

    def __call__(self, call: Callable[[], T]) -> Awaitable[T]:
        """Return what ``call`` returns."""


class PolicyClients:
    """The services of the policy in force as OAuth clients."""

    def __init__(
        self, *, trust_domain: TrustDomain, snapshot: Callable[[], Snapshot], bundle: Callable[[], Bundle]
    ) -> None:
        self._trust_domain = trust_domain
        self._snapshot = snapshot
        self._bundle = bundle

    def service_of(self, spiffe_id: str) -> str | None:
        """Return the service that owns a SPIFFE ID, None when the policy declares none."""
        service = self._snapshot().service_of(spiffe_id)
        return None if service is None else service.name

    def svid_subject(self, token: str, *, audiences: frozenset[str], now: datetime) -> str:
        """Return the SPIFFE ID of a JWT-SVID for exactly one of ``audiences``; raises InputError or TrustError.

        One that is for others as well could be replayed by each of them (rfc7523bis section 3).
        """
        bundle = self._bundle()
        refused = SvidError("no audience is expected")
        for audience in sorted(audiences):
            try:
                svid = validate_jwt_svid(token, bundle, audience=audience, now=now)
            except SvidError as error:
                refused = error
                continue
            if len(svid.audience) != 1:
                raise SvidError("the assertion is for others as well")
            return str(svid.spiffe_id)
        raise refused


def oauth_door(
    layout: StateLayout,
    settings: Settings,
    *,
    trust_domain: TrustDomain,
    tokens: TokenService,
    journal: TokenJournal,
    replay: ReplayGuard,
    snapshot: Callable[[], Snapshot],
    feed: Feed,
    records: RecordStore,
    api_keys: ApiKeys,
    blocks: BlocksInForce,
    pool: Executor,
    exchange_pool: Executor,
    authzen_pool: Executor,
    watch: CredentialWatch | None = None,
    further: Sequence[Route] = (),
) -> Starlette:
    """Return the app for :func:`everyhop.runtime.face_server.face_service`.

    ``pool`` is for strangers alone, so that no number of them keeps agents waiting; an exchange may wait for
    somebody else's issuer and has ``exchange_pool``, questions to the decision point have ``authzen_pool``.
    ``further`` are routes of other doors behind the face.
    """
    clock, entropy = SystemClock(), SystemEntropy()
    endpoints = Endpoints(issuer=issuer_of(layout, settings), local=face_url(layout, settings))
    registry = PolicyClients(
        trust_domain=trust_domain, snapshot=snapshot, bundle=lambda: _bundle_of(feed, trust_domain)
    )
    work = _worker(pool, EFFECT_SECONDS)
    refusals = RefusalLog(journal, clock)
    authzen = AuthzenDoor(
        peps=Peps(service_of=registry.service_of, tokens=tokens, keys=api_keys, clock=clock, replay=replay),
        sessions=DecisionPoints(
            snapshot=snapshot,
            blocks=blocks,
            journal=DecisionJournal(records, entropy=entropy, prefix="authzen"),
            clock=clock,
            entropy=entropy,
        ).open,
        tokens=PageTokens(Secret(entropy.token_bytes(KEY_BYTES))),
        refusals=refusals,
        endpoints=endpoints,
        names=base_urls(endpoints.local, ("localhost", *settings.api_names)),
        clock=clock,
        blocks=blocks,
        work=_worker(authzen_pool, LONG_SECONDS),
        watch=watch,
    )
    return oauth_app(
        endpoints=endpoints,
        discovery=Discovery(
            endpoints=endpoints,
            truth=lambda: work(tokens.truth),
            max_age_seconds=int(settings.jwks_max_age.total_seconds()),
        ),
        clients=OAuthEndpoints(
            tokens=tokens,
            clients=Clients(
                registry=registry,
                clock=clock,
                replay=replay,
                audiences=endpoints.urls("") | endpoints.urls(TOKEN_PATH),
            ),
            refusals=refusals,
            endpoints=endpoints,
            trust_domain=trust_domain.name,
            work=work,
            work_long=_worker(exchange_pool, LONG_SECONDS),
            blocks=blocks,
            clock=clock,
            watch=watch,
        ),
        further=(*authzen.routes(), *further),
    )


def _worker(pool: Executor, seconds: float) -> Work:
    async def work(call: Callable[[], T]) -> T:
        return await within(pool, call, seconds=seconds)

    return work


def _bundle_of(feed: Feed, trust_domain: TrustDomain) -> Bundle:
    truth = feed.truth
    if truth is None:
        raise Unavailable("there is no bundle yet")
    return _decoded(trust_domain, truth.bundle)


@lru_cache(maxsize=2)
def _decoded(trust_domain: TrustDomain, document: bytes) -> Bundle:
    return decode_bundle(trust_domain, document)
