# SPDX-License-Identifier: Apache-2.0
"""Recorded calls, added up, as the decision point looks at them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from everyhop.authz.engine import Engine
from everyhop.authz.explain import explain_door
from everyhop.core.clock import rfc3339
from everyhop.policy.access import TCP
from everyhop.policy.facts import Context, User
from everyhop.policy.model import OUTSIDE, Mode

if TYPE_CHECKING:
    from everyhop.authz.explanation import Explanation
    from everyhop.policy.model import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Calls that are alike: who called what, what came of it, how often, from when to when, and one of them.

    ``caller`` is a SPIFFE ID, or ``outside``; ``call`` is ``METHOD /path`` where there is no operation; ``point`` is where
    it was decided (``ingress``, ``edge``, ``egress``).
    """

    point: str
    caller: str | None
    target: str | None
    operation: str | None
    call: str | None
    decision: str
    reason: str | None
    rule: str | None
    would: str | None
    would_reason: str | None
    would_rule: str | None
    user: bool
    count: int
    first: datetime
    last: datetime
    example: str

    @property
    def is_allowed(self) -> bool:
        """Tell whether the calls went through."""
        return self.decision == "allow"

    @property
    def what(self) -> str:
        """Return what was called, for people."""
        if self.operation is not None:
            return f"{self.target}.{self.operation}"
        return f"{self.call or 'further calls'} on {self.target}"

    def evidence(self) -> dict[str, Any]:
        """Return a JSON object: who, what, how often, when."""
        return {
            "caller": self.caller,
            "target": self.target,
            "operation": self.operation,
            "call": self.call,
            "user": self.user,
            "count": self.count,
            "first": rfc3339(self.first),
            "last": rfc3339(self.last),
            "example": self.example,
        }


def name_of_caller(engine: Engine, seen: Seen) -> str | None:
    """Return the name of the caller, ``outside`` at the edge, None for a stranger."""
    if seen.point == "edge":
        return OUTSIDE
    return None if seen.caller is None else engine.name_of(seen.caller)


def explain_seen(engine: Engine, seen: Seen) -> Explanation | None:
    """Explain what a policy says of such calls when nothing is known of their facts; None where it cannot be asked.

    Calls that were made for users are asked about with a user without roles.
    """
    caller = OUTSIDE if seen.point == "edge" else seen.caller
    if caller is None or seen.target is None:
        return None
    context = Context(user=User(id="someone")) if seen.user else None
    if seen.operation is not None and engine.door(seen.target, seen.operation) is not None:
        if seen.operation == TCP:
            return engine.explain_tcp(caller=caller, target=seen.target)
        decision = engine.decide_door(caller=caller, target=seen.target, door=seen.operation, context=context)
        return explain_door(engine, decision, context=context)
    method, space, path = (seen.call or "").partition(" ")
    if not space:
        return None
    return engine.explain(caller=caller, target=seen.target, method=method, path=path, context=context)


def unwatched(engine: Engine) -> Engine:
    """Return an engine for which no edge is only watched; rules in shadow stay out of force."""
    snapshot = engine.snapshot
    if snapshot.mode is Mode.ENFORCE and not snapshot.shadow_edges:
        return engine
    return Engine(replace(snapshot, mode=Mode.ENFORCE, shadow_edges=()))


def enforced(snapshot: Snapshot) -> Snapshot:
    """Return a policy as it would be with everything that is only watched in force (its hash stays that of the original)."""
    rules = tuple(replace(rule, mode=Mode.ENFORCE) for rule in snapshot.rules)
    return replace(snapshot, mode=Mode.ENFORCE, shadow_edges=(), rules=rules)
