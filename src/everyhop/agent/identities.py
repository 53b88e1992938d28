# SPDX-License-Identifier: Apache-2.0
"""The X509-SVIDs of this node: issued when somebody needs them, renewed at half life, kept while they last.

A valid SVID is never thrown away: with the server down it is served until its own end.  Keys are made here
and never leave the process except to the workload they belong to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Self, final

from everyhop.agent.changes import Changes
from everyhop.agent.model import X509Identity
from everyhop.core.errors import AccessDenied, EveryhopError, SvidError, Unavailable
from everyhop.spiffe.x509_svid import validate_x509_svid
from everyhop.x509.certificates import decode_certificate
from everyhop.x509.csr import build_csr
from everyhop.x509.keys import PrivateKey, encode_private_key, generate_private_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from everyhop.agent.ports import ControlPlane, X509Result
    from everyhop.core.clock import Clock, Entropy
    from everyhop.spiffe.bundle import Bundle
    from everyhop.spiffe.ids import SpiffeId

log = logging.getLogger(__name__)

HALF_LIFE: Final = 0.5
JITTER: Final = 0.1  # of the half life, either way: a node's SVIDs do not all fall due at once
MAX_BATCH: Final = 256
FIRST_RETRY: Final = timedelta(milliseconds=250)
LAST_RETRY: Final = timedelta(seconds=15)
LIFT: Final = "who is, and why: everyhop blocks"
MAX_WAIT_SECONDS: Final = 30.0  # how late a jump of the clock is noticed


@dataclass(slots=True)
class _Entry:
    """What is known of one SPIFFE ID."""

    spiffe_id: SpiffeId
    demand: int = 0
    identity: X509Identity | None = None
    renew_now: bool = False
    failures: int = 0
    retry_at: datetime | None = None
    error: str | None = None
    issued: dict[str, datetime] = field(default_factory=dict)  # thumbprints of SVIDs with their ends


@final
class Hold:
    """A need for one identity: as long as one is open, it is kept fresh.  Close it, or use ``with``."""

    __slots__ = ("_close",)

    def __init__(self, close: Callable[[], None]) -> None:
        self._close: Callable[[], None] | None = close

    def close(self) -> None:
        """Give the need up; twice is once."""
        close, self._close = self._close, None
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class IdentityCache:
    """X509-SVIDs by SPIFFE ID, and the bundle they are served with.

    All use is from one event loop.  :meth:`run` does the work; every change of an identity or of the bundle
    bumps ``changes``.
    """

    def __init__(
        self, *, control: ControlPlane, clock: Clock, entropy: Entropy, changes: Changes | None = None
    ) -> None:
        self.changes = changes or Changes()
        self._control = control
        self._clock = clock
        self._entropy = entropy
        self._entries: dict[SpiffeId, _Entry] = {}
        self._bundle: Bundle | None = None
        self._authority: str | None = None
        self._withheld: frozenset[SpiffeId] = frozenset()
        self._wake = asyncio.Event()
        self._renewing = asyncio.Lock()

    @property
    def bundle(self) -> Bundle | None:
        """Return the bundle in force, None while starting."""
        return self._bundle

    @property
    def authority(self) -> str | None:
        """Return the id of the active X.509 authority, where the server told."""
        return self._authority

    def apply_bundle(self, bundle: Bundle, authority: str | None = None) -> None:
        """Take over a bundle, and the id of the authority that signs now.

        SVIDs of another authority are renewed at once; until then they go on being served.
        """
        self._bundle = bundle
        if authority is not None:
            self._authority = authority
        for entry in self._entries.values():
            entry.renew_now = entry.identity is not None and self._is_of_other_authority(entry.identity)
        self.changes.bump()
        self.retry_now()

    def withhold(self, spiffe_ids: frozenset[SpiffeId]) -> None:
        """Give exactly these identities to nobody from now on: what is held of them is forgotten, key and all."""
        if spiffe_ids == self._withheld:
            return
        self._withheld = spiffe_ids
        for entry in self._entries.values():
            if entry.spiffe_id in spiffe_ids:
                entry.identity, entry.renew_now = None, False
                entry.issued.clear()
        self.changes.bump()
        self.retry_now()

    def retry_now(self) -> None:
        """Forget back-offs, e.g. because the server can be reached again."""
        for entry in self._entries.values():
            entry.retry_at = None
        self._wake.set()

    def hold(self, spiffe_id: SpiffeId) -> Hold:
        """Need an identity from now on."""
        entry = self._entries.setdefault(spiffe_id, _Entry(spiffe_id))
        entry.demand += 1
        self._wake.set()

        def release() -> None:
            entry.demand -= 1

        return Hold(release)

    def current(self, spiffe_id: SpiffeId) -> X509Identity | None:
        """Return the SVID held for an id if it is valid now."""
        entry = self._entries.get(spiffe_id)
        if entry is None or entry.identity is None or entry.identity.expires_at <= self._clock.now():
            return None
        if spiffe_id in self._withheld:
            return None
        return entry.identity

    def issued(self, spiffe_id: SpiffeId, x5t: str) -> bool:
        """Tell whether this agent has had an SVID with this thumbprint issued for an id, and it is still valid."""
        entry = self._entries.get(spiffe_id)
        end = None if entry is None else entry.issued.get(x5t)
        return end is not None and self._clock.now() < end

    def held(self) -> tuple[X509Identity, ...]:
        """Return every SVID that is valid now."""
        found = (self.current(spiffe_id) for spiffe_id in tuple(self._entries))
        return tuple(identity for identity in found if identity is not None)

    async def x509(self, spiffe_id: SpiffeId, *, wait_seconds: float = 10.0) -> X509Identity:
        """Return the SVID of an id, waiting for its first issue.

        Raises Unavailable when there is none within the time; the message says what went wrong last.  Raises
        AccessDenied for one that is withheld.
        """
        with self.hold(spiffe_id):
            try:
                async with asyncio.timeout(wait_seconds):
                    while True:
                        version = self.changes.version
                        if spiffe_id in self._withheld:
                            raise AccessDenied(f"{spiffe_id} is quarantined", hint=LIFT)
                        identity = self.current(spiffe_id)
                        if identity is not None:
                            return identity
                        await self.changes.beyond(version)
            except TimeoutError as error:
                reason = self._entries[spiffe_id].error or "the server has not answered"
                raise Unavailable(f"no X509-SVID for {spiffe_id} yet: {reason}") from error

    async def run(self) -> None:
        """Renew what falls due, until cancelled."""
        while True:
            self._wake.clear()
            await self.renew_due()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_until_due()):
                    await self._wake.wait()

    async def renew_due(self) -> int:
        """Renew everything that is due now in as few calls as possible; return how many were renewed."""
        async with self._renewing:
            now = self._clock.now()
            if self._forget_expired(now):
                self.changes.bump()
            due = [entry for entry in self._entries.values() if self._is_due(entry, now)]
            renewed = 0
            for start in range(0, len(due), MAX_BATCH):
                renewed += await self._renew(due[start : start + MAX_BATCH])
            if renewed:
                self.changes.bump()
            return renewed

    async def _renew(self, entries: Sequence[_Entry]) -> int:
        keys = [generate_private_key() for _ in entries]
        requests = [(str(entry.spiffe_id), build_csr(key)) for entry, key in zip(entries, keys, strict=True)]
        try:
            results = await self._control.sign_x509(requests)
        except EveryhopError as error:
            for entry in entries:
                self._failed(entry, error.message)
            return 0
        if len(results) != len(entries):
            for entry in entries:
                self._failed(entry, "the server answered another number of SVIDs than asked for")
            return 0
        return sum(map(self._accept, entries, keys, results))

    def _accept(self, entry: _Entry, key: PrivateKey, result: X509Result) -> bool:
        """Check one result as a stranger's and take it over; tell whether it was good."""
        try:
            if result.error is not None:
                raise SvidError(result.error)
            identity = self._identity(entry.spiffe_id, key, result)
            if entry.spiffe_id in self._withheld:  # while the server was signing
                raise Unavailable("the identity is quarantined")
        except EveryhopError as error:
            self._failed(entry, error.message)
            return False
        entry.identity = identity
        now = self._clock.now()
        entry.issued = {x5t: end for x5t, end in entry.issued.items() if end > now}
        entry.issued[identity.x5t] = identity.expires_at
        entry.renew_now = self._is_of_other_authority(identity)
        entry.error = None
        if entry.renew_now:  # signed around a change of authority: good, and asked for again with patience
            self._back_off(entry)
        else:
            entry.failures, entry.retry_at = 0, None
        log.info("X509-SVID issued: %s until %s", identity.spiffe_id, identity.expires_at.isoformat())
        return True

    def _identity(self, spiffe_id: SpiffeId, key: PrivateKey, result: X509Result) -> X509Identity:
        if self._bundle is None:
            raise Unavailable("the bundle is not there yet")
        now = self._clock.now()
        svid = validate_x509_svid(result.chain, self._bundle, now)
        if svid.spiffe_id != spiffe_id:
            raise SvidError(f"the server signed {svid.spiffe_id} where {spiffe_id} was asked for")
        if decode_certificate(svid.chain[0]).public_key() != key.public_key():
            raise SvidError("the server signed another key than ours")
        return X509Identity(
            spiffe_id=spiffe_id,
            chain=svid.chain,
            key=encode_private_key(key),
            authority=result.authority,
            not_before=svid.not_before,
            expires_at=svid.not_after,
            renew_at=self._renewal(now, svid.not_after),
        )

    def _renewal(self, now: datetime, expires_at: datetime) -> datetime:
        spread = 1 + JITTER * (2 * self._entropy.fraction() - 1)
        return now + (expires_at - now) * HALF_LIFE * spread

    def _failed(self, entry: _Entry, reason: str) -> None:
        if entry.error != reason:  # the same trouble again is not news
            log.warning("no new X509-SVID for %s: %s", entry.spiffe_id, reason)
        entry.error = reason
        self._back_off(entry)

    def _back_off(self, entry: _Entry) -> None:
        wait = min(FIRST_RETRY * 2 ** min(entry.failures, 10), LAST_RETRY)
        entry.failures += 1
        entry.retry_at = self._clock.now() + wait * (1 + self._entropy.fraction()) / 2

    def _is_of_other_authority(self, identity: X509Identity) -> bool:
        return None not in {identity.authority, self._authority} and identity.authority != self._authority

    def _is_due(self, entry: _Entry, now: datetime) -> bool:
        if entry.demand <= 0 or self._bundle is None or entry.spiffe_id in self._withheld:
            return False
        if entry.retry_at is not None and now < entry.retry_at:
            return False
        return entry.identity is None or entry.renew_now or now >= entry.identity.renew_at

    def _forget_expired(self, now: datetime) -> bool:
        """Drop what has expired, for its key should not linger; tell whether anybody still needs it."""
        missed = False
        for spiffe_id, entry in tuple(self._entries.items()):
            if entry.identity is not None and entry.identity.expires_at <= now:
                entry.identity = None
                missed = missed or entry.demand > 0
            if entry.identity is None and entry.demand <= 0:
                del self._entries[spiffe_id]
        return missed

    def _seconds_until_due(self) -> float:
        now = self._clock.now()
        waits = [MAX_WAIT_SECONDS]
        for entry in self._entries.values():
            if entry.demand <= 0 or self._bundle is None or entry.spiffe_id in self._withheld:
                continue
            moment = entry.retry_at
            if moment is None and entry.identity is not None and not entry.renew_now:
                moment = entry.identity.renew_at
            waits.append((moment - now).total_seconds() if moment is not None else 0.0)
        return max(0.0, min(waits))
