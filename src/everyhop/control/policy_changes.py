# SPDX-License-Identifier: Apache-2.0
"""What happens to a policy that would let more in: it is confirmed, held back until somebody approves it, or refused.

A policy that only closes things is never held back: closing must not wait for anybody.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from everyhop.auditlog.model import Event, Kind
from everyhop.authz.difference import compare, counts, describe, render, summary
from everyhop.control.proposals import Actor, ChangeRules, Origin, Proposal, decode, encode
from everyhop.core.clock import rfc3339
from everyhop.core.errors import AccessDenied, Conflict, NotFound
from everyhop.policy import decode_snapshot, encode_snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.auditlog.model import Scalar
    from everyhop.authz.difference import Plan
    from everyhop.control.proposals import ProposalStore
    from everyhop.core.clock import Clock
    from everyhop.policy.model import Snapshot

_log = logging.getLogger(__name__)
MAX_DOORS_AT_ONCE: Final = 2000
"""Doors up to which a text that comes by file, unguarded, is compared before it is put in force, for its record alone."""
_SHORTEST_PREFIX: Final = 16


class HeldError(Conflict):
    """A policy that waits for approval; nothing is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """What is known of a change before it is made; ``plan`` is None where it was not looked for."""

    plan: Plan | None
    detail: dict[str, Scalar]


class PolicyChanges:
    """The one proposal, and the decision what becomes of a candidate.  Blocking; the control plane calls it on its pool."""

    def __init__(self, store: ProposalStore, clock: Clock, rules: ChangeRules) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules

    @property
    def rules(self) -> ChangeRules:
        """Return the rules in force."""
        return self._rules

    def pending(self) -> Proposal | None:
        """Return the proposal that waits, or None."""
        content = self._store.get()
        if content is None:
            return None
        try:
            return decode(content)
        except msgspec.MsgspecError:
            _log.exception("the proposal that is kept cannot be read; it is dropped")
            self._store.clear(None)
            return None

    def admit(
        self, old: Snapshot, new: Snapshot, *, source: str, actor: Actor, accept: str | None
    ) -> Weighed:
        """Return what is known of a change that may be made now.

        Raises HeldError for one that waits from now on, Conflict for one that widens and that nobody confirmed, or
        that was confirmed for another policy.
        """
        if accept is not None and not is_hash_of(accept, new):
            self._refuse(old, new, actor, "another-hash", {})
            raise Conflict(f"{accept[:64]} was confirmed, but this policy is {new.hash}")
        if old.hash == new.hash:
            return Weighed(plan=None, detail={})
        is_file = actor.origin is Origin.FILE
        if is_file and not self._rules.is_guarded and _doors(old) + _doors(new) > MAX_DOORS_AT_ONCE:
            return Weighed(plan=None, detail={})
        plan = compare(old, new)
        weighed = Weighed(plan=plan, detail=dict(counts(plan)))
        if not plan.is_wider or (is_file and not self._rules.is_guarded):
            return weighed
        if is_file:
            self._hold(plan, new, source=source, actor=actor)
        if accept is None:
            self._refuse(old, new, actor, "not-confirmed", weighed.detail)
            raise Conflict(
                f"{summary(plan)}; nobody confirmed it",
                hint=f"look at it with: everyhop policy plan; then: everyhop policy apply --accept {new.hash}",
            )
        if self._rules.two_person:
            self._hold(plan, new, source=source, actor=actor)
        return weighed

    def approve(
        self, wanted: str, old: Snapshot, actor: Actor
    ) -> tuple[Proposal, Snapshot, dict[str, Scalar]]:
        """Return the proposal that may be put in force now, its snapshot, and what its record says.

        Raises NotFound where none waits; Conflict for another hash, or when another policy is in force than it was
        planned against; AccessDenied for the proposer, where two people are asked for.
        """
        proposal = self._wanted(wanted, actor)
        if proposal.base != old.hash:
            self._deny(proposal, actor, "base-changed")
            raise Conflict(
                f"it was planned against {proposal.base[:16]}, but {old.hash[:16]} is in force now",
                hint="propose it again",
            )
        if self._rules.two_person and (
            actor.uid is None or proposal.uid is None or actor.uid == proposal.uid
        ):
            self._deny(proposal, actor, "same-person")
            raise AccessDenied(
                f"{proposal.proposer} proposed it, so {actor.name} cannot approve it",
                hint="another user of this machine has to: one of the setting approvers, or root",
            )
        snapshot = decode_snapshot(proposal.document)
        detail: dict[str, Scalar] = {**proposal.counts, "proposer": proposal.proposer, "approver": actor.name}
        return proposal, snapshot, detail

    def refuse(self, wanted: str, actor: Actor) -> Proposal:
        """Drop the proposal; its proposer may too.  Raises NotFound and Conflict as for :meth:`approve`."""
        proposal = self._wanted(wanted, actor)
        self._store.clear(self._event("refuse", proposal, actor, decision="deny"))
        return proposal

    def supersede(self, actor: Actor, *, is_new: bool) -> None:
        """Drop a proposal since another policy came into force, or the file that held it says again what is."""
        proposal = self.pending()
        if proposal is not None and (is_new or proposal.proposer.startswith(Origin.FILE.value)):
            self._store.clear(self._event("supersede", proposal, actor))

    def settled(self) -> None:
        """Forget the proposal, which is in force now and has its record."""
        self._store.clear(None)

    def rejected(self, old: Snapshot | None, *, source: str, actor: Actor, code: str, problems: int) -> None:
        """Record a text that was refused for its mistakes or its failing tests."""
        self._store.note(
            Event(
                kind=Kind.POLICY,
                action="reject",
                time=self._clock.now(),
                caller=actor.name,
                decision="deny",
                reason=code,
                snapshot=None if old is None else old.hash,
                detail={"source": source, "problems": problems},
            )
        )

    def show(self, old: Snapshot) -> dict[str, Any] | None:
        """Return the proposal with its plan against what is in force now, or None."""
        proposal = self.pending()
        if proposal is None:
            return None
        plan = compare(old, decode_snapshot(proposal.document))
        lines = [{"mark": mark.value, "line": line} for mark, line in render(plan)]
        return proposal.to_dict() | {"plan": describe(plan), "lines": lines}

    def _wanted(self, wanted: str, actor: Actor) -> Proposal:
        proposal = self.pending()
        if proposal is None:
            raise NotFound("no policy waits for approval", hint="everyhop policy pending")
        if not is_prefix(wanted, proposal.hash):
            self._deny(proposal, actor, "another-hash")
            raise Conflict(
                f"{wanted[:64]} does not wait for approval, but {proposal.hash}",
                hint="everyhop policy pending",
            )
        return proposal

    def _hold(self, plan: Plan, new: Snapshot, *, source: str, actor: Actor) -> None:
        kept = self.pending()
        if kept is None or (kept.hash, kept.base) != (new.hash, plan.before):
            proposal = Proposal(
                hash=new.hash,
                base=plan.before,
                source=source,
                proposer=actor.name,
                uid=actor.uid,
                at=rfc3339(self._clock.now()),
                summary=summary(plan),
                counts=counts(plan),
                document=encode_snapshot(new),
            )
            self._store.put(encode(proposal), self._event("propose", proposal, actor))
        raise HeldError(
            f"held back until it is approved: {summary(plan)}",
            hint=f"everyhop policy pending; everyhop policy approve {new.hash}",
        )

    def _refuse(
        self, old: Snapshot, new: Snapshot, actor: Actor, reason: str, detail: Mapping[str, Scalar]
    ) -> None:
        self._store.note(
            Event(
                kind=Kind.POLICY,
                action="apply",
                time=self._clock.now(),
                caller=actor.name,
                decision="deny",
                reason=reason,
                snapshot=new.hash,
                detail={"previous": old.hash, **detail},
            )
        )

    def _deny(self, proposal: Proposal, actor: Actor, reason: str) -> None:
        self._store.note(self._event("approve", proposal, actor, decision="deny", reason=reason))

    def _event(
        self,
        action: str,
        proposal: Proposal,
        actor: Actor,
        *,
        decision: str | None = None,
        reason: str | None = None,
    ) -> Event:
        return Event(
            kind=Kind.POLICY,
            action=action,
            time=self._clock.now(),
            caller=actor.name,
            decision=decision,
            reason=reason,
            snapshot=proposal.hash,
            detail={
                "previous": proposal.base,
                "source": proposal.source,
                "proposer": proposal.proposer,
                **proposal.counts,
            },
        )


def is_hash_of(text: str, snapshot: Snapshot) -> bool:
    """Tell whether a text is the hash of a snapshot, or at least its first 16 digits."""
    return is_prefix(text, snapshot.hash)


def is_prefix(text: str, full: str) -> bool:
    """Tell whether a text is a hash, or at least its first 16 digits."""
    return len(text) >= _SHORTEST_PREFIX and full.startswith(text)


def _doors(snapshot: Snapshot) -> int:
    return sum(len(s.operations) + len(s.probes) for s in snapshot.services.values())
