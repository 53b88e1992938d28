# SPDX-License-Identifier: Apache-2.0
"""Answers to an attack: block, quarantine, and their ends; by command or by a detector, on their way at once.

A block is durable and recorded before anybody enforces it, and no longer needed once its end is recorded.  Nobody can
block everything, this server, or what the policy exempts; nobody shortens a block by blocking again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from everyhop.anomaly.looking import find_block
from everyhop.anomaly.model import Block, BlockMode, Blocks, Subject, SubjectKind
from everyhop.auditlog import Event, Kind
from everyhop.authz.table import callers_of, reachable_targets
from everyhop.core.clock import rfc3339
from everyhop.core.errors import Conflict, InputError
from everyhop.issuing.ports import BlockedActor
from everyhop.policy.access import AccessIndex
from everyhop.spiffe import SpiffeId

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
    from concurrent.futures import Executor
    from datetime import datetime

    from everyhop.core.clock import Clock
    from everyhop.policy.model import Snapshot

T = TypeVar("T")
_log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.2
MAX_REASON: Final = 500
RESERVED: Final = "everyhop"
"""The first segment of SPIFFE IDs that are the server's own."""

COMMANDED: Final = "commanded"
DETECTED: Final = "detected"
LIFTED: Final = "lifted"
EXPIRED: Final = "expired"


class BlockStore(Protocol):
    """Keeps blocks for every server of the trust domain; each change is recorded in its own transaction."""

    def sequence(self) -> int:
        """Return the number of the present blocks, cheaply."""

    def load(self) -> Blocks:
        """Return all of them."""

    def put(self, wanted: Block, told: Callable[[Block], Event]) -> tuple[Block, int]:
        """Block; return what is in force now and the new number.  Raises Conflict when there are too many."""

    def lift(self, subject: Subject, told: Callable[[Block], Event]) -> tuple[Block, int]:
        """Unblock; return what was in force and the new number.  Raises NotFound."""

    def expire(self, now: datetime, told: Callable[[Block], Event]) -> Sequence[Block]:
        """Remove what is over; return it."""


class BlocksInForce:
    """The blocks that this process knows of.  Read by every thread, put by :class:`Responder` alone."""

    def __init__(self) -> None:
        self._blocks = Blocks()

    def __call__(self) -> Blocks:
        """Return the present ones."""
        return self._blocks

    def actor(
        self,
        now: datetime,
        *,
        identity: str | None = None,
        subject: str | None = None,
        address: str | None = None,
    ) -> BlockedActor | None:
        """Return the first of those who act that is blocked (the port ``issuing.ports.Blocks``)."""
        block = find_block(self._blocks, now, identity=identity, subject=subject, address=address)
        return None if block is None else BlockedActor(str(block.subject), block.seconds_left(now))

    def put(self, blocks: Blocks) -> None:
        """Replace them, unless what is held is newer."""
        if blocks.sequence >= self._blocks.sequence:
            self._blocks = blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponderPorts:
    """What it stands on.

    ``exempt`` are the subjects that only the owner may block, and only with force; ``publish``
    tells agents the blocks in force; ``end_tokens`` takes back every token of a workload and tells them too.
    """

    store: BlockStore
    held: BlocksInForce
    snapshot: Callable[[], Snapshot]
    clock: Clock
    pool: Executor
    publish: Callable[[], Awaitable[None]]
    end_tokens: Callable[[str], Awaitable[None]]
    exempt: Callable[[], Container[Subject]] = frozenset


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOff:
    """Whom a block touches: the service that is the subject, what it may call, who may call it (names, sorted)."""

    service: str | None = None
    calls: tuple[str, ...] = ()
    called_by: tuple[str, ...] = ()


class Responder:
    """Blocks and unblocks.  Used from one event loop."""

    def __init__(self, ports: ResponderPorts) -> None:
        self._p = ports

    @property
    def blocks(self) -> Blocks:
        """Return the blocks in force."""
        return self._p.held()

    async def start(self) -> None:
        """Take over what is stored; raises Unavailable when the database does not answer."""
        self._p.held.put(await self._work(self._p.store.load))

    async def block(
        self,
        subject: Subject,
        *,
        mode: BlockMode = BlockMode.BLOCK,
        until: datetime | None,
        reason: str,
        by: str,
        finding: str | None = None,
        force: bool = False,
    ) -> Block:
        """Block a subject; durable, recorded and on its way to every enforcement point when this returns.

        ``until`` is aware; None lasts until somebody lifts it.  Returns what is in force now, which may be harder or
        longer.  Raises InputError for a reason or an end that is none, Conflict for a subject that may not be blocked,
        Unavailable when it cannot be made durable.
        """
        now = self._p.clock.now()
        _check_reason(reason)
        if until is not None and until <= now:
            raise InputError("the end of a block is in the future")
        self._check(subject, mode, force=force)
        wanted = Block(
            subject=subject, mode=mode, since=now, until=until, reason=reason, by=by, finding=finding
        )
        action = "quarantine" if mode is BlockMode.QUARANTINE else "block"
        code = COMMANDED if finding is None else DETECTED
        block, sequence = await self._work(
            self._p.store.put, wanted, lambda b: self._event(action, code, b, by, now)
        )
        await self._changed(sequence, {block.subject: block})
        if block.mode is BlockMode.QUARANTINE:
            # After it is in force: what is issued from now on is refused, what was issued before ends here.
            await self._p.end_tokens(subject.value)
        _log.warning(
            "%s: %s",
            action,
            detail_of(subject)["block"],
            extra={"by": by, "until": _until(block), "why": reason},
        )
        return block

    async def unblock(self, subject: Subject, *, reason: str, by: str) -> Block:
        """Lift a block or a quarantine; raises NotFound when there is none, InputError without a reason."""
        now = self._p.clock.now()
        _check_reason(reason)

        def told(block: Block) -> Event:
            return self._event("unblock", LIFTED, block, by, now, why=reason)

        block, sequence = await self._work(self._p.store.lift, subject, told)
        await self._changed(sequence, {subject: None})
        _log.warning("unblock: %s", detail_of(subject)["block"], extra={"by": by, "why": reason})
        return block

    async def run(self) -> None:
        """End what is over, and notice what another server has changed, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.tick()
            except Exception:  # noqa: BLE001  # it must go on, whatever one look met
                _log.exception("blocks could not be looked at; it is tried again")

    async def tick(self) -> None:
        """Do what is due now."""
        now = self._p.clock.now()
        if any(not block.holds(now) for block in self.blocks.by_subject.values()):
            ended = await self._work(
                self._p.store.expire, now, lambda block: self._event("unblock", EXPIRED, block, "server", now)
            )
            for block in ended:
                _log.info("a block has ended: %s", detail_of(block.subject)["block"])
            await self._take_over()
        elif await self._work(self._p.store.sequence) != self.blocks.sequence:
            await self._take_over()

    async def cut_off(self, subject: Subject) -> CutOff:
        """Return whom a block of this subject touches."""
        return await self._work(cut_off, self._p.snapshot(), subject)

    async def _changed(self, sequence: int, changes: Mapping[Subject, Block | None]) -> None:
        """Take a change of our own over; whatever else has changed meanwhile is read anew."""
        held = self.blocks
        if sequence != held.sequence + 1:
            await self._take_over()
            return
        kept = [block for subject, block in held.by_subject.items() if subject not in changes]
        new = [block for block in changes.values() if block is not None]
        self._p.held.put(Blocks.build([*kept, *new], sequence=sequence))
        await self._p.publish()

    async def _take_over(self) -> None:
        self._p.held.put(await self._work(self._p.store.load))
        await self._p.publish()

    def _check(self, subject: Subject, mode: BlockMode, *, force: bool) -> None:
        if mode is BlockMode.QUARANTINE and subject.kind is not SubjectKind.IDENTITY:
            raise InputError(
                f"only a workload is quarantined, and {subject} is none", hint="block it: everyhop block"
            )
        if subject.kind is SubjectKind.ADDRESS:
            _check_address(subject.value)
        if subject.kind is SubjectKind.IDENTITY:
            self._check_identity(subject.value)
        if not force and subject in self._p.exempt():
            raise Conflict(
                f"the policy exempts {subject} from blocks",
                hint="the owner may say --force, if that is meant",
            )

    def _check_identity(self, value: str) -> None:
        spiffe_id, snapshot = SpiffeId.parse(value), self._p.snapshot()
        if str(spiffe_id) != value:
            raise InputError(f"not in its one form: {value[:200]!r}", hint=f"write {spiffe_id}")
        if spiffe_id.trust_domain != snapshot.trust_domain:
            raise InputError(f"{spiffe_id} is not of the trust domain {snapshot.trust_domain}")
        if snapshot.service_of(value) is None and spiffe_id.path.lstrip("/").split("/")[0] == RESERVED:
            raise Conflict(f"{spiffe_id} is the server's own: without it nobody could lift the block")

    def _event(
        self, action: str, code: str, block: Block, by: str, now: datetime, why: str | None = None
    ) -> Event:
        service = None
        if block.subject.kind is SubjectKind.IDENTITY:
            service = self._p.snapshot().service_of(block.subject.value)
        detail: dict[str, str | int | float | bool | None] = {
            **detail_of(block.subject),
            "mode": block.mode.value,
            "until": _until(block),
            "why": why or block.reason,
        }
        if block.finding is not None:
            detail["finding"] = block.finding
        return Event(
            kind=Kind.RESPONSE,
            action=action,
            time=now,
            caller=by,
            target=None if service is None else service.name,
            reason=code,
            snapshot=self._p.snapshot().hash,
            detail=detail,
        )

    async def _work(self, call: Callable[..., T], /, *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._p.pool, partial(call, *args))


def cut_off(snapshot: Snapshot, subject: Subject) -> CutOff:
    """Return what a subject may call and who may call it, by the policy; nothing for one that is no service."""
    service = snapshot.service_of(subject.value) if subject.kind is SubjectKind.IDENTITY else None
    if service is None:
        return CutOff()
    index = AccessIndex(snapshot)
    return CutOff(
        service=service.name,
        calls=tuple(t for t in reachable_targets(snapshot, service.name, index=index) if t != service.name),
        called_by=tuple(callers_of(snapshot, service.name, index=index)),
    )


def detail_of(subject: Subject) -> dict[str, str]:
    """Return how records name a blocked subject: ``block``, where a user stands in a member of their own.

    What is personal has one place in a record, where a pseudonym takes it.
    """
    if subject.kind is SubjectKind.USER:
        return {"block": SubjectKind.USER.value, "user": subject.value}
    return {"block": str(subject)}


def _until(block: Block) -> str | None:
    return None if block.until is None else rfc3339(block.until)


def _check_reason(reason: str) -> None:
    if not reason.strip() or len(reason) > MAX_REASON or not reason.isprintable():
        raise InputError(f"a reason is mandatory: at most {MAX_REASON} printable characters on one line")


def _check_address(value: str) -> None:
    network = ipaddress.ip_network(value)
    address = network.network_address
    if address.is_unspecified or address.is_multicast or str(address) == "255.255.255.255":
        raise Conflict(
            f"{value} is nobody's address: nothing comes from it, and nobody is to be blocked by it"
        )
