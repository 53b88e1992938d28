# SPDX-License-Identifier: Apache-2.0
"""The control plane's one service object: what the API doors call.

Blocking work (database, signing) runs on one bounded worker pool; the event loop only moves messages.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final, TypeVar

from everyhop.anomaly.blocks_codec import encode_blocks
from everyhop.anomaly.exempt import Exempt
from everyhop.anomaly.looking import is_quarantined
from everyhop.auditlog.sealing import AGENT_PATH, agent_path
from everyhop.authority import AuthorityKind, AuthorityStatus
from everyhop.authz.difference import compare
from everyhop.control.bounded import within
from everyhop.control.feed import Truth
from everyhop.control.log_desk import LogDesk, LogPorts
from everyhop.control.messages import AuthorityView, SignX509Result
from everyhop.control.policy_changes import HeldError, PolicyChanges
from everyhop.control.policy_in_force import Rejected, check_candidate, rejection
from everyhop.control.proposals import UNKNOWN_FILE, Actor, ChangeRules
from everyhop.control.pseudonymity import Pseudonymity
from everyhop.control.responding import BlocksInForce, Responder, ResponderPorts
from everyhop.control.response_orders import ResponseOrders
from everyhop.control.statuses import status_of
from everyhop.control.token_control import TokenControl
from everyhop.core.errors import (
    AccessDenied,
    Conflict,
    EveryhopError,
    InputError,
    PolicyError,
    Unavailable,
)
from everyhop.policy import decode_snapshot, encode_snapshot
from everyhop.spiffe import SpiffeId
from everyhop.spiffe.bundle import decode_bundle, encode_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence
    from concurrent.futures import Executor

    from everyhop.anomaly.model import Subject
    from everyhop.auditlog import RecordStore, SealStore
    from everyhop.auditlog.model import Scalar
    from everyhop.authority import Authority, IssuedJwt
    from everyhop.authz.difference import Plan
    from everyhop.control.detection import Detection
    from everyhop.control.exporting import Exports
    from everyhop.control.feed import Feed
    from everyhop.control.log_keys import LogKeys
    from everyhop.control.messages import AgentReport, SignX509Item
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
        self._changes = PolicyChanges(ports.proposals, ports.clock, ports.changes)
        self._described: dict[str, Callable[[], object]] = {}
        self.log = LogDesk(
            LogPorts(
                records=ports.records,
                seals=ports.seals,
                snapshots=ports.snapshots,
                pseudonymity=ports.pseudonymity,
                clock=ports.clock,
                pool=ports.pool,
                effects=ports.effects,
                keep=ports.records_keep,
            ),
            bundle=self._bundle_in_force,
            snapshot_hash=lambda: self.snapshot.hash,
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
        blocks = self.responder.blocks
        return {
            **status_of(
                self.snapshot,
                self._p.feed.truth,
                self._p.feed.reports() if reports is None else reports,
                policy=self.policy_status(),
            ),
            "block_sequence": blocks.sequence,
            "blocked": len(blocks.by_subject),
            "records_lost": {
                reason: {"records": count, "times_unknown": unknown}
                for reason, (count, unknown) in sorted(self.log.told_lost.items())
            },
            "urls": dict(self._p.urls),
            **{name: tell() for name, tell in self._described.items()},
        }

    def describe(self, name: str, tell: Callable[[], object]) -> None:
        """Let ``tell`` say in the status, under ``name``, how a part that stands beside this one is."""
        self._described[name] = tell


@lru_cache(maxsize=2)
def decoded_bundle(trust_domain: TrustDomain, document: bytes) -> Bundle:
    """Return a published bundle, parsed once."""
    return decode_bundle(trust_domain, document)
