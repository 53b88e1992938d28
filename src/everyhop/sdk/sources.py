# SPDX-License-Identifier: Apache-2.0
"""Sources: identities, bundles and JWT-SVIDs that are always the latest the agent gave and that held.

A source survives everything short of a withdrawal: an agent that is away for hours, updates that do not parse,
rotations.  After a withdrawal it has nothing and says so, until something is granted again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

from everyhop.core.errors import AccessDenied, InputError, SvidError, Unavailable
from everyhop.core.secret import Secret
from everyhop.jose.jws import parse_compact
from everyhop.jose.strict_json import parse_json_object
from everyhop.sdk.clients import Issued
from everyhop.sdk.clock import SystemClock
from everyhop.sdk.feed import Feed
from everyhop.sdk.held import Held
from everyhop.sdk.identities import (
    X509Identity,
    X509Update,
    read_jwt_bundles,
    read_x509_bundles,
    read_x509_update,
)
from everyhop.sdk.loops import BackgroundRunner, HereRunner, refuse_own_loop
from everyhop.sdk.token_cache import TokenCache
from everyhop.sdk.watching import Watcher
from everyhop.spiffe.ids import SpiffeId, TrustDomain
from everyhop.spiffe.jwt_svid import JwtSvid, peek_subject, validate_jwt_svid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from everyhop.core.clock import Clock
    from everyhop.sdk.clients import AsyncWorkloadApiClient
    from everyhop.spiffe.bundle import Bundle
    from everyhop.wire.workload_pb2 import X509SVIDResponse


class _Source:
    """What every source has: a feed of its own or a shared one, a beginning and an end."""

    def __init__(self, feed: Feed | None, socket: str | None, clock: Clock | None) -> None:
        self._owns_feed = feed is None
        self._feed: Final = feed or Feed(_runner(), socket)
        self._clock: Final[Clock] = clock or SystemClock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def close(self) -> None:
        """Stop watching.  A source of a workload ends with the workload."""
        if self._owns_feed:
            self._feed.close()

    async def aclose(self) -> None:
        """Do the same inside the event loop that the source was made in."""
        if self._owns_feed:
            await self._feed.aclose()


class X509Source(_Source):
    """The X509-SVIDs of this process, always the latest.

    ``socket`` is ``unix:///path`` (default: SPIFFE_ENDPOINT_SOCKET); ``spiffe_id`` picks one of several identities.
    Made inside a running event loop it lives there, otherwise in the SDK's background thread.
    """

    def __init__(
        self,
        socket: str | None = None,
        *,
        spiffe_id: SpiffeId | None = None,
        clock: Clock | None = None,
        feed: Feed | None = None,
    ) -> None:
        super().__init__(feed, socket, clock)
        self._wanted = spiffe_id
        self._pinned: TrustDomain | None = None if spiffe_id is None else spiffe_id.trust_domain
        self._held: Held[X509Update] = Held("X509-SVID")
        self._feed.parts.append(self._watch)
        if self._owns_feed:
            self._feed.start()

    @property
    def update(self) -> X509Update:
        """Return everything the agent gave last; raises as :attr:`svid` does."""
        self._feed.start()
        return self._held.get()

    @property
    def svid(self) -> X509Identity:
        """Return the identity to use now.

        Raises Unavailable when there is none yet or it is over, AccessDenied after a withdrawal.
        """
        found = self._pick(self.update)
        if found.not_after <= self._clock.now():
            raise Unavailable(f"the X509-SVID is over since {found.not_after:%Y-%m-%dT%H:%M:%SZ}")
        return found

    @property
    def bundle(self) -> Bundle:
        """Return the authorities of the own trust domain."""
        return self.svid.bundle

    @property
    def thumbprint(self) -> str:
        """Return ``x5t#S256`` of the certificate in use."""
        return self.svid.x5t

    def bundle_for(self, trust_domain: TrustDomain) -> Bundle:
        """Return the authorities of a trust domain; AccessDenied for one that is not trusted."""
        update = self.update
        own = self._pick(update).bundle
        found = own if own.trust_domain == trust_domain else update.federated.get(trust_domain)
        if found is None:
            raise AccessDenied(f"the trust domain {trust_domain} is not trusted here")
        return found

    def wait_ready(self, timeout: float | None = 30.0) -> X509Identity:
        """Wait until there is an identity; raise why there is none after ``timeout`` seconds."""
        refuse_own_loop(self._feed.runner)
        self._feed.start()
        return self._pick(self._held.wait(timeout))

    async def ready(self, seconds: float | None = 30.0) -> X509Identity:
        """Do the same for asyncio."""
        self._feed.start()
        return self._pick(await self._held.wait_async(seconds))

    def on_update(self, listener: Callable[[X509Update | None], None]) -> Callable[[], None]:
        """Call ``listener`` with each update, None for a withdrawal, on the loop's thread; return what ends it."""
        return self._held.on_update(listener)

    async def _watch(self, client: AsyncWorkloadApiClient) -> None:
        await Watcher(self._held, client.raw_x509, self._read).run()

    def _read(self, message: X509SVIDResponse) -> X509Update:
        update = read_x509_update(message, self._clock.now())
        found = self._pick(update)
        if self._pinned is not None and found.spiffe_id.trust_domain != self._pinned:
            raise SvidError(
                f"an identity of {found.spiffe_id.trust_domain}, and this process is of {self._pinned}"
            )
        self._pinned = found.spiffe_id.trust_domain
        return update

    def _pick(self, update: X509Update) -> X509Identity:
        if self._wanted is None:
            return update.default
        for one in update.identities:
            if one.spiffe_id == self._wanted:
                return one
        raise SvidError(f"the update holds no identity {self._wanted}")


class BundleSource(_Source):
    """The authorities of the own and of federated trust domains, always the latest; never merged."""

    def __init__(
        self, socket: str | None = None, *, clock: Clock | None = None, feed: Feed | None = None
    ) -> None:
        super().__init__(feed, socket, clock)
        self._x509: Held[Mapping[TrustDomain, Bundle]] = Held("X.509 bundles")
        self._jwt: Held[Mapping[TrustDomain, Bundle]] = Held("JWT bundles")
        self._feed.parts += [self._watch_x509, self._watch_jwt]
        if self._owns_feed:
            self._feed.start()

    def x509(self, trust_domain: TrustDomain) -> Bundle:
        """Return the CA certificates of a trust domain; AccessDenied for one that is not trusted."""
        self._feed.start()
        return _of(self._x509.get(), trust_domain)

    def jwt(self, trust_domain: TrustDomain) -> Bundle:
        """Return the JWT keys of a trust domain; AccessDenied for one that is not trusted."""
        self._feed.start()
        return _of(self._jwt.get(), trust_domain)

    def wait_ready(self, timeout: float | None = 30.0) -> None:
        """Wait until both kinds are there."""
        refuse_own_loop(self._feed.runner)
        self._feed.start()
        self._x509.wait(timeout)
        self._jwt.wait(timeout)

    async def ready(self, seconds: float | None = 30.0) -> None:
        """Do the same for asyncio."""
        self._feed.start()
        await self._x509.wait_async(seconds)
        await self._jwt.wait_async(seconds)

    async def _watch_x509(self, client: AsyncWorkloadApiClient) -> None:
        await Watcher(self._x509, client.raw_x509_bundles, read_x509_bundles).run()

    async def _watch_jwt(self, client: AsyncWorkloadApiClient) -> None:
        await Watcher(self._jwt, client.raw_jwt_bundles, read_jwt_bundles).run()


class JwtSource(_Source):
    """JWT-SVIDs of this process, cached until they are due, and validation of other workloads' JWT-SVIDs."""

    def __init__(
        self,
        socket: str | None = None,
        *,
        spiffe_id: SpiffeId | None = None,
        clock: Clock | None = None,
        feed: Feed | None = None,
        bundles: BundleSource | None = None,
    ) -> None:
        super().__init__(feed, socket, clock)
        self._wanted = spiffe_id
        self._bundles: Final = bundles or BundleSource(feed=self._feed, clock=clock)
        self._cache: TokenCache[tuple[str, ...]] = TokenCache(
            lambda audience: self._feed.submit(lambda client: self._fetch(client, audience)),
            clock=self._clock,
        )
        if self._owns_feed:
            self._feed.start()

    def fetch(self, *audience: str) -> str:
        """Return a JWT-SVID for these audiences (at least one; one is best)."""
        refuse_own_loop(self._feed.runner)
        return self._cache.get(_audience(audience))

    async def afetch(self, *audience: str) -> str:
        """Do the same for asyncio."""
        return await self._cache.aget(_audience(audience))

    def validate(self, token: str, audience: str) -> JwtSvid:
        """Return whom a JWT-SVID names, checked here against the bundle of its own trust domain.

        Raises InputError, SvidError, or AccessDenied when its trust domain is not trusted.
        """
        bundle = self._bundles.jwt(peek_subject(token).trust_domain)
        return validate_jwt_svid(token, bundle, audience=audience, now=self._clock.now())

    def wait_ready(self, timeout: float | None = 30.0) -> None:
        """Wait until there are bundles to validate with."""
        self._bundles.wait_ready(timeout)

    async def _fetch(self, client: AsyncWorkloadApiClient, audience: Sequence[str]) -> Issued:
        found = (await client.fetch_jwt_svids(audience, self._wanted))[0]
        return Issued(token=found.token, expires_at=expiry_of(found.token))


def expiry_of(token: Secret) -> datetime:
    """Return when a token of our own is over; what it says is not verified.  InputError without ``exp``."""
    claims: dict[str, Any] = parse_json_object(parse_compact(token.reveal().decode("ascii")).payload)
    value = claims.get("exp")
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError("the token has no 'exp'")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InputError("the token's 'exp' is out of range") from error


def _runner() -> HereRunner | BackgroundRunner:
    try:
        return HereRunner()
    except RuntimeError:
        return BackgroundRunner()


def _of(bundles: Mapping[TrustDomain, Bundle], trust_domain: TrustDomain) -> Bundle:
    found = bundles.get(trust_domain)
    if found is None:
        raise AccessDenied(f"the trust domain {trust_domain} is not trusted here")
    return found


def _audience(audience: tuple[str, ...]) -> tuple[str, ...]:
    if not audience:
        raise InputError("a JWT-SVID needs at least one audience")
    return tuple(sorted(set(audience)))
