# SPDX-License-Identifier: Apache-2.0
"""What the owner orders about blocks, and how long it took until every agent had confirmed it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from everyhop.anomaly.model import Block, Subject, SubjectKind
from everyhop.control.messages import BlockAnswer, BlockView
from everyhop.control.responding import CutOff
from everyhop.core.errors import InputError, NotFound
from everyhop.core.names import nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    from everyhop.auditlog import Record
    from everyhop.control.feed import Feed
    from everyhop.control.messages import BlockWish, UnblockWish
    from everyhop.control.responding import Responder
    from everyhop.core.clock import Clock
    from everyhop.policy.model import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseOrders:
    """Orders at the owner's door.  Used from one event loop.

    ``resolve`` puts a person in place of a pseudonym, which is what a record or a finding shows; it may block.
    """

    responder: Responder
    feed: Feed
    snapshot: Callable[[], Snapshot]
    clock: Clock
    resolve: Callable[[str], str] = str

    async def block(self, wish: BlockWish, *, by: str) -> BlockAnswer:
        """Block and wait for every connected agent; raises what ``Responder.block`` does, NotFound for an unknown name."""
        started = asyncio.get_running_loop().time()
        subject = await self._named(wish.subject)
        until = None
        if wish.seconds is not None:
            until = self.clock.now() + timedelta(seconds=wish.seconds)
        block = await self.responder.block(
            subject, mode=wish.mode, until=until, reason=wish.reason, by=by, force=wish.force
        )
        return await self._confirmed(block, started, wish.wait_seconds)

    async def unblock(self, wish: UnblockWish, *, by: str) -> BlockAnswer:
        """Lift a block and wait for every connected agent; raises NotFound when there is none."""
        started = asyncio.get_running_loop().time()
        block = await self.responder.unblock(await self._named(wish.subject), reason=wish.reason, by=by)
        return await self._confirmed(block, started, wish.wait_seconds)

    def blocks(self) -> list[BlockView]:
        """Return every block in force, the newest first."""
        found = sorted(self.responder.blocks.by_subject.values(), key=lambda b: (b.since, str(b.subject)))
        return [self._view(block) for block in reversed(found) if block.holds(self.clock.now())]

    async def _named(self, text: str) -> Subject:
        return named(await asyncio.to_thread(self.resolve, text), self.snapshot())

    def about(self, record: Record) -> BlockView | None:
        """Return the block in force by which a recorded call was refused, None where that one is over."""
        named_there, user = record.detail.get("block"), record.detail.get("user")
        try:
            if named_there == SubjectKind.USER.value and isinstance(user, str):
                subject = Subject.of(SubjectKind.USER, user)
            elif isinstance(named_there, str):
                subject = Subject.parse(named_there)
            else:  # an application's own word, which names a kind at most
                subject = Subject.of(SubjectKind.IDENTITY, record.caller or "")
        except InputError:
            return None
        block = self.responder.blocks.find((subject,), self.clock.now())
        return None if block is None else self._view(block)

    async def _confirmed(self, block: Block, started: float, wait_seconds: float) -> BlockAnswer:
        sequence = self.responder.blocks.sequence
        lagging = await self.feed.wait_applied(lambda r: r.block_sequence >= sequence, wait_seconds)
        took = asyncio.get_running_loop().time() - started
        touched = await self.responder.cut_off(block.subject)
        return BlockAnswer(
            block=self._view(block, touched),
            sequence=sequence,
            agents=len(self.feed.reports()),
            lagging=lagging,
            milliseconds=round(took * 1000, 1),
            calls=list(touched.calls),
            called_by=list(touched.called_by),
        )

    def _view(self, block: Block, touched: CutOff | None = None) -> BlockView:
        service = touched.service if touched is not None else None
        if service is None and block.subject.kind is SubjectKind.IDENTITY:
            owner = self.snapshot().service_of(block.subject.value)
            service = None if owner is None else owner.name
        return BlockView(
            subject=str(block.subject),
            mode=block.mode,
            since=block.since,
            until=block.until,
            reason=block.reason,
            by=block.by,
            finding=block.finding,
            service=service,
        )


_SHORT = {"key": SubjectKind.API_KEY, **{kind.value: kind for kind in SubjectKind}}


def named(text: str, snapshot: Snapshot) -> Subject:
    """Return who is meant by a service's name, a SPIFFE ID, or ``KIND:VALUE`` (``key`` is short for ``api-key``).

    Raises NotFound for a name that the policy does not declare, InputError for what is no subject.
    """
    if text.startswith("spiffe://"):
        return Subject.of(SubjectKind.IDENTITY, text)
    kind, colon, value = text.partition(":")
    if colon and kind in _SHORT:
        return Subject.of(_SHORT[kind], value)
    if colon:
        raise InputError(
            f"not a subject: {text[:80]!r}",
            hint="a service, a SPIFFE ID, user:NAME, key:LOOKUP or address:IP",
        )
    service = snapshot.services.get(text)
    if service is None:
        near = nearest(text, snapshot.services)
        raise NotFound(
            f"no service {text[:80]!r} in the policy in force",
            hint=None if near is None else f"did you mean {near}?",
        )
    return Subject.of(SubjectKind.IDENTITY, str(service.spiffe_id))
