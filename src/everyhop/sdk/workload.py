# SPDX-License-Identifier: Apache-2.0
"""The workload that this process is: its identity, its context, its tokens, over one connection to the agent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Self

from everyhop.core.errors import InputError, SvidError, Unavailable
from everyhop.sdk.clock import SystemClock
from everyhop.sdk.context import ServiceContext
from everyhop.sdk.doors import Doors
from everyhop.sdk.feed import Feed
from everyhop.sdk.held import Held
from everyhop.sdk.loops import BackgroundRunner, HereRunner, refuse_own_loop
from everyhop.sdk.reporting import Reporter
from everyhop.sdk.sources import BundleSource, JwtSource, X509Source
from everyhop.sdk.token_source import TokenSource
from everyhop.sdk.watching import Watcher
from everyhop.tokens.keyset import parse_jwks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from concurrent.futures import Future

    from everyhop.core.clock import Clock
    from everyhop.sdk.clients import AsyncWorkloadApiClient
    from everyhop.sdk.events import AuditEvent
    from everyhop.sdk.identities import X509Update
    from everyhop.sdk.loops import Runner
    from everyhop.sdk.model import Decided
    from everyhop.spiffe.ids import SpiffeId, TrustDomain
    from everyhop.wire.tokens import ContextUpdate

READY_SECONDS: Final = 30.0


class Workload:
    """This process as a workload of the trust domain.  Made by :func:`connect` or :func:`aconnect`.

    Everything in it is the latest that the agent gave; ``with`` (or ``async with``) ends it.
    """

    def __init__(
        self,
        runner: Runner,
        socket: str | None,
        *,
        spiffe_id: SpiffeId | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock: Clock = clock or SystemClock()
        self._feed: Final = Feed(runner, socket)
        self._wanted = spiffe_id
        self._context: Held[ServiceContext] = Held("service context")
        self.x509: Final = X509Source(feed=self._feed, spiffe_id=spiffe_id, clock=clock)
        self.bundles: Final = BundleSource(feed=self._feed, clock=clock)
        self.jwt: Final = JwtSource(feed=self._feed, spiffe_id=spiffe_id, clock=clock, bundles=self.bundles)
        self.tokens: Final = TokenSource(self._feed, self.x509, self, self._clock)
        self._feed.parts.append(self._watch_context)
        self._reporter: Final[Reporter[Decided]] = Reporter(runner, _send_decisions, spiffe_id=spiffe_id)
        self._events: Final[Reporter[AuditEvent]] = Reporter(
            runner, _send_events, what="audit events", spiffe_id=spiffe_id
        )
        self._feed.parts += [self._reporter.run, self._events.run]
        self._thumbprints: list[set[str]] = [set(), set()]
        self.x509.on_update(self._rotated)
        self._feed.start()

    @property
    def context(self) -> ServiceContext:
        """Return the service context in force.

        Raises Unavailable while there is none, AccessDenied after a withdrawal.
        """
        self._feed.start()
        return self._context.get()

    @property
    def service(self) -> str:
        """Return the name of the service in the policy."""
        return self.context.service

    @property
    def spiffe_id(self) -> SpiffeId:
        """Return the SPIFFE ID in use."""
        return self.x509.svid.spiffe_id

    @property
    def trust_domain(self) -> TrustDomain:
        """Return the trust domain."""
        return self.spiffe_id.trust_domain

    def note_decision(self, decided: Decided) -> None:
        """Hand a decision to the agent for the audit log, in the background; never blocks and never raises."""
        self._reporter.put(decided)

    @property
    def lost_decisions(self) -> int:
        """Return how many decisions of this process never reached the agent."""
        return self._reporter.lost

    @property
    def takes_events(self) -> bool:
        """Tell whether audit events go anywhere: False for an agent that does not offer it, and after the end."""
        return not self._events.is_over

    @property
    def lost_events(self) -> int:
        """Return how many audit events of this process never reached the agent."""
        return self._events.lost

    def note_event(self, event: AuditEvent, *, lost: int = 0) -> None:
        """Hand an audit event to the agent in the background; never blocks and never raises.

        ``lost`` is how many were lost before this one.
        """
        if lost:
            self._events.lose(lost)
        self._events.put(event)

    def submit_event(self, event: AuditEvent) -> Future[None]:
        """Hand an audit event to the agent now; done when it is on the node's disk.

        Raises Unavailable, here or from the future, when the agent does not take it.
        """
        spiffe_id = "" if self._wanted is None else str(self._wanted)

        async def hand_on(client: AsyncWorkloadApiClient) -> None:
            moment = time.time_ns() // 1000
            if await client.report_events([(moment, event)], spiffe_id=spiffe_id, durable=True):
                raise Unavailable("the agent has no room for more events of this service")

        return self._feed.submit(hand_on)

    def on_context(self, listener: Callable[[ServiceContext | None], None]) -> Callable[[], None]:
        """Call ``listener`` with each new context, None for a withdrawal; return what ends it."""
        return self._context.on_update(listener)

    def wait_ready(self, timeout: float | None = READY_SECONDS) -> Self:
        """Wait for identity and context; raise why there is none after ``timeout`` seconds."""
        refuse_own_loop(self._feed.runner)
        self.x509.wait_ready(timeout)
        self._context.wait(timeout)
        return self

    async def ready(self, seconds: float | None = READY_SECONDS) -> Self:
        """Do the same for asyncio."""
        await self.x509.ready(seconds)
        await self._context.wait_async(seconds)
        return self

    def close(self) -> None:
        """Stop watching and end the connection."""
        refuse_own_loop(self._feed.runner)
        self._feed.close()

    async def aclose(self) -> None:
        """Do the same inside the event loop that the workload was made in."""
        await self._feed.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def _watch_context(self, client: AsyncWorkloadApiClient) -> None:
        def stream() -> AsyncGenerator[ContextUpdate, None]:
            return client.raw_context(self._wanted)

        await Watcher(self._context, stream, self._read_context).run()

    def _read_context(self, message: ContextUpdate) -> ServiceContext:
        """Parse a context and everything that would be made of it, so that what is put in force works."""
        context = ServiceContext.parse(message.document)
        parse_jwks(context.jwks)
        Doors(context)
        if self._wanted is not None and context.spiffe_id != self._wanted:
            raise SvidError(f"a context of {context.spiffe_id}, and this process is {self._wanted}")
        held = self._context.peek()
        if held is not None and context.trust_domain != held.trust_domain:
            raise InputError("a context of another trust domain than the one before")
        return context

    def _rotated(self, update: X509Update | None) -> None:
        """Keep the tokens of the present and the previous certificate: its connections may live on for a while."""
        now = set() if update is None else {one.x5t for one in update.identities}
        if now != self._thumbprints[-1]:
            self._thumbprints = [self._thumbprints[-1], now]
        keep = frozenset(now | self._thumbprints[0]) if now else frozenset()
        self.tokens.on_rotation(keep, self.x509.svid.x5t if now else None)


async def _send_decisions(
    client: AsyncWorkloadApiClient, batch: Sequence[tuple[int, Decided]], *, dropped: int, spiffe_id: str
) -> int:
    return await client.report(batch, dropped=dropped, spiffe_id=spiffe_id)


async def _send_events(
    client: AsyncWorkloadApiClient, batch: Sequence[tuple[int, AuditEvent]], *, dropped: int, spiffe_id: str
) -> int:
    return await client.report_events(batch, dropped=dropped, spiffe_id=spiffe_id)


def connect(
    socket: str | None = None,
    *,
    spiffe_id: SpiffeId | None = None,
    timeout: float | None = READY_SECONDS,
) -> Workload:
    """Return this process as a workload, ready to use; for programs with threads.

    ``socket`` is ``unix:///path`` (default: SPIFFE_ENDPOINT_SOCKET).  Waits at most ``timeout`` seconds for
    identity and context, then raises Unavailable or AccessDenied.
    """
    workload = Workload(BackgroundRunner(), socket, spiffe_id=spiffe_id)
    try:
        return workload.wait_ready(timeout)
    except BaseException:
        workload.close()
        raise


async def aconnect(
    socket: str | None = None,
    *,
    spiffe_id: SpiffeId | None = None,
    seconds: float | None = READY_SECONDS,
) -> Workload:
    """Return this process as a workload living in the running event loop; otherwise as :func:`connect`."""
    workload = Workload(HereRunner(), socket, spiffe_id=spiffe_id)
    try:
        return await workload.ready(seconds)
    except BaseException:
        await workload.aclose()
        raise
