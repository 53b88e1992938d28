# SPDX-License-Identifier: Apache-2.0
"""The control plane's one service object: what the API doors call.

Blocking work (database, signing) runs on one bounded worker pool; the event loop only moves messages.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final, TypeVar

from everyhop.anomaly.blocks_codec import encode_blocks
from everyhop.anomaly.exempt import Exempt
from everyhop.anomaly.looking import is_quarantined
from everyhop.auditlog import Event, Kind, Order, RecordFilter, Report, Tally
from everyhop.auditlog.personal import PersonKind
from everyhop.auditlog.sealing import AGENT_PATH, agent_path
from everyhop.authority import AuthorityKind, AuthorityStatus
from everyhop.authz.difference import compare
from everyhop.control.bounded import within
from everyhop.control.feed import Truth
from everyhop.control.log_tail import LogTail
from everyhop.control.messages import AuthorityView, SignX509Result
from everyhop.control.policy_changes import HeldError, PolicyChanges
from everyhop.control.policy_in_force import Rejected, check_candidate, rejection
from everyhop.control.proposals import UNKNOWN_FILE, Actor, ChangeRules
from everyhop.control.pseudonymity import Pseudonymity
from everyhop.control.responding import BlocksInForce, Responder, ResponderPorts
from everyhop.control.response_orders import ResponseOrders
from everyhop.control.sealed_records import SealedRecords
from everyhop.control.token_control import TokenControl
from everyhop.core.clock import rfc3339
from everyhop.core.errors import (
    AccessDenied,
    Conflict,
    EveryhopError,
    InputError,
    NotFound,
    PolicyError,
    Unavailable,
)
from everyhop.policy import decode_snapshot, encode_snapshot
from everyhop.spiffe import SpiffeId
from everyhop.spiffe.bundle import decode_bundle, encode_bundle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Container, Mapping, Sequence
    from concurrent.futures import Executor

    from everyhop.anomaly.model import Subject
    from everyhop.auditlog import AppendResult, Page, Record, RecordStore, SealStore
    from everyhop.auditlog.model import Scalar
    from everyhop.auditlog.personal import Wish
    from everyhop.auditlog.sealing import SealedResult
    from everyhop.authority import Authority, IssuedJwt
    from everyhop.authz.difference import Plan
    from everyhop.control.detection import Detection
    from everyhop.control.exporting import Exports
    from everyhop.control.feed import Feed
    from everyhop.control.log_keys import LogKeys
    from everyhop.control.messages import AgentReport, RecordBatch, SignX509Item
    from everyhop.control.policy_holder import PolicyHolder
    from everyhop.control.ports import PolicyRules, PolicySource, SnapshotStore
    from everyhop.control.proposals import ProposalStore
    from everyhop.control.responding import BlockStore
    from everyhop.control.token_control import TokenWorks
    from everyhop.core.clock import Clock
    from everyhop.policy.model import Snapshot
    from everyhop.spiffe import TrustDomain
    from everyhop.spiffe.bundle import Bundle

T = TypeVar("T")
_log = logging.getLogger(__name__)


ACKNOWLEDGE_TIMEOUT: Final = 20.0
SCHEDULE_INTERVAL: Final = 5.0
HEARTBEAT_SECONDS: Final = 5.0
FOLLOW_SECONDS: Final = 0.25  # how long records of another server stay unseen by who follows the log
_WOULD: Final = b'"would":"'  # in the line of every record that a policy in shadow would decide otherwise
PRUNE_INTERVAL: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPorts:
    """Everything the control plane stands on."""

    authority: Authority
    snapshots: SnapshotStore
    records: RecordStore
    rules: PolicyRules
    feed: Feed
    clock: Clock
    pool: Executor
    exchange_pool: Executor
    effects: Executor
    """Threads for what is recorded before it takes effect: apart, so that those who wait for a lock stop no reader."""
    records_keep: timedelta
    tokens: TokenWorks
    policy: PolicyHolder
    proposals: ProposalStore
    seals: SealStore
    blocks: BlockStore
    blocks_in_force: BlocksInForce = field(default_factory=BlocksInForce)
    exempt: Callable[[], Container[Subject]] | None = None  # None: what the policy says
    changes: ChangeRules = field(default_factory=ChangeRules)
    pseudonymity: Pseudonymity = field(default_factory=Pseudonymity)
    urls: Mapping[str, str] = field(default_factory=dict)
    remember: Callable[[Sequence[bytes]], None] | None = None
    """Keeps the X.509 authorities (DER) of every bundle, for whoever checks old seals."""


class ControlPlane:
    """Policy in force, identities, records and what agents are told.  Used from one event loop."""

    def __init__(self, ports: ControlPorts) -> None:
        self._p = ports
        self._is_started = False
        self._snapshot: Snapshot | None = None
        self._document = b""
        self._rejected: Rejected | None = None
        self._pending: dict[str, object] | None = None
        self._tail = LogTail(ports.records, ports.pool)
        self._changes = PolicyChanges(ports.proposals, ports.clock, ports.changes)
        self._described: dict[str, Callable[[], object]] = {}
        self._sealed = SealedRecords(
            seals=ports.seals, log=ports.records, bundle=self._bundle_in_force, clock=ports.clock
        )
        self.exports: Exports | None = None
        self.log_keys: LogKeys | None = None
        self.detection: Detection | None = None
        self._policy_lock = asyncio.Lock()
        self._rotation_lock = asyncio.Lock()
        self._publish_lock = asyncio.Lock()
        self.tokens = TokenControl(
            ports.tokens,
            feed=ports.feed,
            clock=ports.clock,
            pool=ports.pool,
            exchange_pool=ports.exchange_pool,
            effects=ports.effects,
            publish=self._publish,
        )

        self.responder = Responder(
            ResponderPorts(
                store=ports.blocks,
                held=ports.blocks_in_force,
                snapshot=lambda: self.snapshot,
                clock=ports.clock,
                pool=ports.pool,
                publish=self._publish_blocks,
                end_tokens=self._end_tokens,
                exempt=ports.exempt or (lambda: Exempt(self.snapshot.detection)),
            )
        )
        self.orders = ResponseOrders(
            responder=self.responder,
            feed=ports.feed,
            snapshot=lambda: self.snapshot,
            clock=ports.clock,
            resolve=ports.pseudonymity.resolve,
        )

    @property
    def feed(self) -> Feed:
        """Return the feed that agents' streams read."""
        return self._p.feed

    @property
    def blocks_in_force(self) -> BlocksInForce:
        """Return the blocks of the moment, for every thread."""
        return self._p.blocks_in_force

    @property
    def snapshot(self) -> Snapshot:
        """Return the snapshot in force; raises Unavailable before the first one."""
        if self._snapshot is None:
            raise Unavailable("no policy is in force yet")
        return self._snapshot

    @property
    def rejected(self) -> Rejected | None:
        """Return the newer text that was refused, if the last one was."""
        return self._rejected

    async def _work(self, call: Callable[..., T], /, *args: object, **kwargs: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._p.pool, partial(call, *args, **kwargs))

    async def _effect(self, call: Callable[..., T], /, *args: object, **kwargs: object) -> T:
        """Do what is recorded before it takes effect: answered in time, or Unavailable.

        While starting nobody waits, and there is no hurry.
        """
        if not self._is_started:
            return await self._work(call, *args, **kwargs)
        return await within(self._p.effects, partial(call, *args, **kwargs))

    # -- start and policy

    async def start(self, source: PolicySource) -> None:
        """Bring the newest acceptable policy into force and open the feed.

        When the source is refused, the last snapshot of this state directory is used, loudly; when there is
        none, the refusal is raised (InputError, PolicyError, Conflict).
        """
        await self.responder.start()
        stored = await self._work(self._p.snapshots.latest)
        if stored is not None:
            self._snapshot, self._document = decode_snapshot(stored), stored
            self._p.policy.put(self._snapshot)
        try:
            await self.apply_policy(await self._work(source.read), source=source.name, actor=source.actor())
        except (PolicyError, Conflict, InputError) as error:
            if self._snapshot is None:
                raise
            if self._rejected is None and isinstance(error, InputError):
                await self.refuse_policy(error, source=source.name)
            await self._publish()
        await self._note_pending()
        self._is_started = True

    async def check_policy(self, files: Mapping[str, bytes]) -> Snapshot:
        """Return the snapshot that ``files`` would give; raises PolicyError or Conflict; changes nothing."""
        trust_domain = None if self._snapshot is None else str(self._snapshot.trust_domain)
        return await self._work(check_candidate, self._p.rules, files, trust_domain=trust_domain)

    async def apply_policy(
        self,
        files: Mapping[str, bytes],
        *,
        source: str,
        actor: Actor = UNKNOWN_FILE,
        accept: str | None = None,
        base: str | None = None,
    ) -> Snapshot:
        """Put ``files`` in force, record it and push it; raises and remembers the refusal otherwise.

        ``accept`` is the hash that somebody has confirmed, ``base`` that of the policy it was compared with.  Raises HeldError for a policy that waits for approval
        from now on, and Conflict for one that lets more in and is not confirmed (:mod:`.policy_changes`).
        """
        async with self._policy_lock:
            old = self._snapshot
            try:
                snapshot = await self.check_policy(files)
            except (PolicyError, Conflict, InputError) as error:
                self._rejected = rejection(error, source=source, at=self._p.clock.now())
                _log.error(  # the text was refused: a traceback of ours would help nobody
                    "policy refused; the old snapshot stays in force",
                    extra={"source": source, "problems": error.message},
                )
                count = len(self._rejected.problems)
                await self._effect(
                    self._changes.rejected, old, source=source, actor=actor, code=error.code, problems=count
                )
                raise
            detail: dict[str, Scalar] = {}
            if base is not None and (old is None or old.hash != base):
                raise Conflict(
                    f"it was compared with {base[:16]}, which is not in force any more", hint="plan it again"
                )
            if old is not None:
                try:
                    weighed = await self._effect(
                        self._changes.admit, old, snapshot, source=source, actor=actor, accept=accept
                    )
                except HeldError as held:
                    self._rejected = None
                    await self._note_pending()
                    _log.warning("policy held back", extra={"source": source, "snapshot": snapshot.hash})
                    raise held from None
                detail = weighed.detail
            await self._put_in_force(snapshot, source=source, actor=actor, detail=detail)
            is_new = old is None or old.hash != snapshot.hash
            await self._work(self._changes.supersede, actor, is_new=is_new)
            await self._note_pending()
            return snapshot

    async def plan_policy(self, files: Mapping[str, bytes]) -> Plan:
        """Return what ``files`` would change; raises PolicyError or Conflict as :meth:`check_policy`."""
        snapshot = await self.check_policy(files)
        return await self._work(compare, self.snapshot, snapshot)

    def change_rules(self) -> dict[str, bool]:
        """Return what is asked of a policy that lets more in."""
        rules = self._changes.rules
        return {"confirm_wider": rules.confirm_wider, "two_person": rules.two_person}

    async def pending_policy(self) -> dict[str, object] | None:
        """Return the policy that waits for approval, with its plan, or None."""
        return await self._work(self._changes.show, self.snapshot)

    async def approve_policy(self, content_hash: str, *, actor: Actor) -> Snapshot:
        """Put the policy that waits in force; raises what ``PolicyChanges.approve`` does."""
        async with self._policy_lock:
            proposal, snapshot, detail = await self._effect(
                self._changes.approve, content_hash, self.snapshot, actor
            )
            await self._put_in_force(snapshot, source=proposal.source, actor=actor, detail=detail)
            await self._work(self._changes.settled)
            await self._note_pending()
            return snapshot

    async def refuse_pending(self, content_hash: str, *, actor: Actor) -> None:
        """Drop the policy that waits; raises NotFound or Conflict."""
        async with self._policy_lock:
            await self._effect(self._changes.refuse, content_hash, actor)
            await self._note_pending()

    async def _note_pending(self) -> None:
        pending = await self._work(self._changes.pending)
        self._pending = None if pending is None else pending.to_dict()

    async def _put_in_force(
        self, snapshot: Snapshot, *, source: str, actor: Actor, detail: Mapping[str, Scalar]
    ) -> None:
        document = encode_snapshot(snapshot)
        now = self._p.clock.now()
        saved = await self._effect(
            self._p.snapshots.save, document, snapshot.hash, source, now, by=actor.name, detail=detail
        )
        if saved:
            _log.info("policy applied", extra={"snapshot": snapshot.hash, "source": source, "by": actor.name})
        self._snapshot, self._document, self._rejected = snapshot, document, None
        self._p.policy.put(snapshot)
        await self._publish()

    async def refuse_policy(self, error: InputError, *, source: str) -> None:
        """Remember that the source could not even be read."""
        self._rejected = rejection(error, source=source, at=self._p.clock.now())
        _log.error("policy cannot be read", extra={"source": source, "problem": error.message})

    async def _publish(self) -> None:
        async with self._publish_lock:  # one at a time, or an older truth could come after a newer one
            await self._publish_now()

    async def _publish_now(self) -> None:
        bundle = await self._work(self._p.authority.bundle)
        entries = await self._work(self._p.authority.list_authorities)
        active = (
            e.id for e in entries if e.kind is AuthorityKind.X509 and e.status is AuthorityStatus.ACTIVE
        )
        if self._p.remember is not None:
            await self._work(self._p.remember, bundle.x509_authorities)
        tokens, token_sequence = await self.tokens.truth()
        blocks = self.responder.blocks
        self._p.feed.publish(
            Truth(
                snapshot=self._document,
                snapshot_hash=self.snapshot.hash,
                bundle=encode_bundle(bundle),
                bundle_sequence=bundle.sequence or 0,
                authority=next(active, ""),
                tokens=tokens,
                token_sequence=token_sequence,
                blocks=encode_blocks(blocks),
                block_sequence=blocks.sequence,
            )
        )

    async def _publish_blocks(self) -> None:
        """Tell agents whom to refuse, at once: nothing else is read anew."""
        async with self._publish_lock:
            truth, blocks = self._p.feed.truth, self.responder.blocks
            if truth is not None:
                self._p.feed.publish(
                    replace(truth, blocks=encode_blocks(blocks), block_sequence=blocks.sequence)
                )

    async def _end_tokens(self, spiffe_id: str) -> None:
        """Take back every token of a workload."""
        await self._work(self._p.tokens.service.revoke_subject, spiffe_id)
        await self._publish()

    async def document_of(self, content_hash: str) -> bytes:
        """Return a snapshot as it is stored and sent; raises NotFound."""
        if content_hash == self.snapshot.hash:
            return self._document
        return await self._work(self._p.snapshots.load, content_hash)

    async def snapshot_of(self, content_hash: str) -> Snapshot:
        """Return the snapshot under which a recorded decision was made; raises NotFound."""
        if content_hash == self.snapshot.hash:
            return self.snapshot
        return decode_snapshot(await self.document_of(content_hash))

    # -- identities

    def _bundle_in_force(self) -> Bundle:
        truth = self._p.feed.truth
        if truth is None:
            raise Unavailable("there is no bundle yet")
        return decoded_bundle(self.snapshot.trust_domain, truth.bundle)

    def _service_of(self, spiffe_id: str) -> str:
        service = self.snapshot.service_of(spiffe_id)
        if service is None:
            raise AccessDenied(f"{spiffe_id[:200]} is no identity of the policy in force")
        if is_quarantined(self._p.blocks_in_force(), self._p.clock.now(), spiffe_id):
            raise AccessDenied(f"{spiffe_id} is quarantined", hint="who is, and why: everyhop blocks")
        return service.name

    def _subject_of(self, agent: str, spiffe_id: str) -> str:
        """Return whose identity it is: a service's, or that with which this very agent seals its records."""
        own = f"spiffe://{self.snapshot.trust_domain}{AGENT_PATH}"
        if spiffe_id.startswith(own):
            if spiffe_id.removeprefix(own) != agent or not agent_path(agent):
                raise AccessDenied(f"{spiffe_id[:200]} is another agent's")
            return f"agent {agent}"
        return self._service_of(spiffe_id)

    async def sign_x509(self, agent: str, items: list[SignX509Item]) -> list[SignX509Result]:
        """Issue one X509-SVID per item that the policy in force knows; a refusal touches only its item."""

        def sign_all() -> list[SignX509Result]:
            results = []
            for item in items:
                try:
                    service = self._subject_of(agent, item.spiffe_id)
                    issued = self._p.authority.issue_x509(SpiffeId.parse(item.spiffe_id), item.csr)
                except Unavailable:
                    raise  # nothing can be recorded, for none of them
                except EveryhopError as error:
                    _log.warning("refused an X509-SVID", extra={"agent": agent, "reason": error.message})
                    results.append(SignX509Result(error=error.message))
                else:
                    results.append(
                        SignX509Result(
                            chain=list(issued.chain_der),
                            expires_at=issued.expires_at,
                            authority=issued.authority_id,
                        )
                    )
                    _log.info("issued an X509-SVID", extra={"agent": agent, "service": service})
            return results

        return await self._effect(sign_all)

    async def sign_jwt(self, agent: str, spiffe_id: str, audience: tuple[str, ...]) -> IssuedJwt:
        """Issue a JWT-SVID; raises AccessDenied for an identity that the policy does not know or that is quarantined."""
        self._service_of(spiffe_id)
        _log.info(
            "issued a JWT-SVID", extra={"agent": agent, "spiffe_id": spiffe_id, "audience": list(audience)}
        )
        return await self._effect(self._p.authority.issue_jwt, SpiffeId.parse(spiffe_id), audience)

    async def authorities(self) -> list[AuthorityView]:
        """Return every authority of the bundle with its state, without its key."""
        return [
            AuthorityView(
                id=e.id,
                kind=e.kind.value,
                state=e.status.value,
                not_before=e.not_before,
                not_after=e.not_after,
                published_sequence=e.published_sequence,
            )
            for e in await self._work(self._p.authority.list_authorities)
        ]

    async def rotate(
        self, kind: AuthorityKind, *, wait_seconds: float = ACKNOWLEDGE_TIMEOUT
    ) -> list[AuthorityView]:
        """Prepare a successor, publish it, wait until every agent holds it, then sign with it.

        Raises Unavailable, with nothing activated, when an agent does not acknowledge in ``wait_seconds``.
        """
        async with self._rotation_lock:
            await self._effect(self._p.authority.prepare, kind)
            await self._publish()
            truth = self._p.feed.truth
            sequence = 0 if truth is None else truth.bundle_sequence
            lagging = await self._p.feed.wait_bundle(sequence, wait_seconds)
            if lagging:
                raise Unavailable(
                    f"not activated: {', '.join(lagging)} does not hold bundle {sequence} yet",
                    hint="the prepared authority stays published; run the command again",
                )
            await self._effect(self._p.authority.activate, kind, sequence)
            await self._publish()
            return await self.authorities()

    async def run_schedule(self) -> None:
        """Take every step of the authorities' life on time, and prune old records, until cancelled."""
        pruned = self._p.clock.now()
        while True:
            await asyncio.sleep(SCHEDULE_INTERVAL)
            try:
                async with self._rotation_lock:
                    for change in await self._work(
                        self._p.authority.tick, self._p.feed.acknowledged_bundle()
                    ):
                        _log.info("authority: %s %s %s", change.action, change.kind, change.authority_id)
                    await self._publish()
                now = self._p.clock.now()
                # A portion at each step until nothing is left: one long transaction would keep everybody waiting.
                if now - pruned > PRUNE_INTERVAL and not await self._prune(now):
                    pruned = now
            except Exception:  # noqa: BLE001  # the schedule must go on, whatever one step met
                _log.exception("a scheduled task failed; it is tried again")

    async def _prune(self, now: datetime) -> int:
        return await self._work(self._p.records.prune, now=now, before=now - self._p.records_keep)

    # -- records

    async def take_records(self, batch: RecordBatch) -> SealedResult:
        """Store a batch of an agent durably, or tell how far its producer is held.

        Raises SealError, and Conflict when a pseudonym in it is nobody's (any more).
        """

        def take() -> SealedResult:
            self._p.pseudonymity.check(batch.records)
            return self._sealed.take(batch)

        result = await within(self._p.effects, take)
        self._wake()
        return result

    async def append_records(self, records: list[Record]) -> AppendResult:
        """Store records of an agent durably; those that had arrived before are counted apart.

        Raises Conflict when a pseudonym in them is nobody's (any more).
        """

        def append() -> AppendResult:
            self._p.pseudonymity.check(records)
            return self._p.records.append(records)

        result = await self._work(append)
        self._wake()
        return result

    def _wake(self) -> None:
        """Let those who follow the log look at once."""
        self._tail.wake()
        if self.detection is not None:
            self.detection.wake()

    async def pseudonyms(self, wanted: list[Wish]) -> list[str]:
        """Return pseudonyms of persons, in the order given."""
        return await self._work(self._p.pseudonymity.names_of, wanted)

    async def forget(self, person: Wish, *, reason: str, by: str) -> str:
        """Forget a person, record it, and return what was their pseudonym; raises NotFound."""
        kind, value = person
        return await self._work(
            self._p.pseudonymity.forget, kind, value, reason=reason, by=by, at=self._p.clock.now()
        )

    async def query_records(
        self,
        wanted: RecordFilter,
        *,
        order: Order,
        cursor: int | None,
        limit: int,
        as_stored: bool = False,
    ) -> Page:
        """Return one page of records, with persons in place of their pseudonyms unless ``as_stored``.

        A user or address that is looked for may be given either way.
        """

        def query() -> Page:
            asked = self._as_stored(wanted)
            page = self._p.records.query(asked, order=order, cursor=cursor, limit=limit)
            return page if as_stored else replace(page, records=self._p.pseudonymity.reveal(page.records))

        return await self._work(query)

    async def newest_position(self) -> int:
        """Return where the newest record stands, 0 in an empty log."""
        page = await self._work(self._p.records.query, RecordFilter(), order=Order.NEWEST, limit=1)
        return page.first or 0

    async def follow(
        self,
        wanted: RecordFilter,
        position: int,
        *,
        as_stored: bool = False,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> AsyncIterator[tuple[int, list[tuple[int, Record]]]]:
        """Yield how far the log was read and what of it matches, with positions; at least every so many seconds."""
        names = self._p.pseudonymity
        wanted = await self._work(self._as_stored, wanted)
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            growth = self._tail.growth
            page = await self._tail.read(position)
            if page.last is not None:
                position = page.last
                found = [
                    (n, r) for n, r in zip(page.positions, page.records, strict=True) if wanted.matches(r)
                ]
                if found and not as_stored:
                    records = await self._work(names.reveal, [record for _, record in found])
                    found = [(n, record) for (n, _), record in zip(found, records, strict=True)]
                yield position, found
                due = loop.time() + heartbeat_seconds
                continue
            if loop.time() >= due:
                yield position, []
                due = loop.time() + heartbeat_seconds
            with suppress(TimeoutError):
                await asyncio.wait_for(growth.wait(), FOLLOW_SECONDS)

    async def note_read(self, *, by: str, detail: dict[str, Scalar]) -> None:
        """Record that the log was read.  A log that cannot be written is still read: that is when it is needed."""
        event = Event(
            kind=Kind.LOG, action="read", time=self._p.clock.now(), caller=by, decision="allow", detail=detail
        )
        try:
            await self._work(self._p.records.note, event)
        except Unavailable as error:
            _log.warning("a read of the log is not recorded", extra={"by": by, "reason": error.message})
        self._tail.wake()

    def _as_stored(self, wanted: RecordFilter) -> RecordFilter:
        """Return a filter with pseudonyms for the persons that it names."""
        names = self._p.pseudonymity
        return replace(
            wanted,
            user=None if wanted.user is None else names.known(PersonKind.USER, wanted.user),
            address=None if wanted.address is None else names.known(PersonKind.ADDRESS, wanted.address),
        )

    async def decision(self, decision_id: str) -> list[Record]:
        """Return the records of one decision, the one that decided first; raises NotFound.

        A sidecar and the application behind it record one call under one id: the first refusal decided.  What
        another service says of the id is its own word, and stands last.
        """
        found: list[Record] = await self._work(self._p.records.of_decision, decision_id)
        if not found:
            raise NotFound(
                f"no decision {decision_id[:80]} is recorded",
                hint="records arrive within a second of the call",
            )
        found = list(await self._work(self._p.pseudonymity.reveal, found))
        target = found[0].target
        return sorted(found, key=lambda record: (record.target != target, record.decision != "deny"))

    async def tally(self, since: datetime, *, only_shadow: bool) -> Report:
        """Return the decisions since a time, added up; with ``only_shadow`` those that a policy in shadow would change."""

        def add_up() -> Report:
            tally = Tally(only_shadow=only_shadow)
            wanted = RecordFilter(kind=Kind.DECISION, since=since)
            for page in self._p.records.scan(wanted, holding=_WOULD if only_shadow else None):
                tally.take(page)
            # Of each producer the last record stays when older ones go, so the oldest one says nothing about the others.
            oldest, kept = (
                self._p.records.first_time(Kind.DECISION),
                self._p.clock.now() - self._p.records_keep,
            )
            return Report(
                since=since,
                groups=tally.groups(),
                counted=tally.counted,
                left_out=tally.left_out,
                records_from=None if oldest is None else max(oldest, kept),
                policy_from=self._p.snapshots.in_force_since(self.snapshot.hash),
                snapshot=self.snapshot.hash,
            )

        return await self._work(add_up)

    # -- status

    def policy_status(self) -> dict[str, object]:
        """Return what is in force, and the newer text that was refused, as plain values."""
        rejected = None if self._rejected is None else self._rejected.to_dict()
        return {
            "snapshot": self.snapshot.hash,
            "rejected_policy": rejected,
            "pending_policy": self._pending,
        }

    def status(self, reports: list[AgentReport] | None = None) -> dict[str, object]:
        """Return what ``everyhop status -o json`` prints (DESIGN section 7), as plain values."""
        reports = self._p.feed.reports() if reports is None else reports
        services: dict[str, dict[str, object]] = {
            s.name: {"spiffe_id": str(s.spiffe_id), "instances": []} for s in self.snapshot.services.values()
        }
        for report in reports:
            for i in report.instances:
                shown = {
                    "id": i.id,
                    "pid": i.pid,
                    "ingress": i.ingress,
                    "state": i.state,
                    "app": i.app,
                    "edge": i.edge,
                    "svid_expires_at": None if i.svid_expires_at is None else rfc3339(i.svid_expires_at),
                    "envoy_pid": i.envoy_pid,
                    "envoy_restarts": i.envoy_restarts,
                    "snapshot": i.snapshot,
                    "agent": report.agent,
                }
                with suppress(KeyError):
                    instances = services[i.service]["instances"]
                    assert isinstance(instances, list)  # noqa: S101  # narrows for the type checker
                    instances.append(shown)
        truth = self._p.feed.truth
        return {
            "trust_domain": str(self.snapshot.trust_domain),
            **self.policy_status(),
            "bundle_sequence": None if truth is None else truth.bundle_sequence,
            "token_sequence": None if truth is None else truth.token_sequence,
            "block_sequence": self.responder.blocks.sequence,
            "blocked": len(self.responder.blocks.by_subject),
            "agents": [
                {
                    "id": r.agent,
                    "snapshot": r.snapshot,
                    "bundle_sequence": r.bundle_sequence,
                    "token_sequence": r.token_sequence,
                    "block_sequence": r.block_sequence,
                    "spooled_records": r.spooled,
                }
                for r in reports
            ],
            "records_lost": {
                reason: {"records": count, "times_unknown": unknown}
                for reason, (count, unknown) in sorted(self._sealed.told_lost.items())
            },
            "urls": dict(self._p.urls),
            "services": services,
            **{name: tell() for name, tell in self._described.items()},
        }

    def describe(self, name: str, tell: Callable[[], object]) -> None:
        """Let ``tell`` say in the status, under ``name``, how a part that stands beside this one is."""
        self._described[name] = tell


@lru_cache(maxsize=2)
def decoded_bundle(trust_domain: TrustDomain, document: bytes) -> Bundle:
    """Return a published bundle, parsed once."""
    return decode_bundle(trust_domain, document)
