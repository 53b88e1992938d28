# SPDX-License-Identifier: Apache-2.0
"""The report on what is only watched: which calls would break or open if it came into force, and what would keep them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from everyhop.authz._explain_facts import cite
from everyhop.authz._suggest import suggest_rule
from everyhop.authz.engine import Engine
from everyhop.authz.suggesting import is_let_in, searches
from everyhop.authz.traffic import enforced, explain_seen, name_of_caller
from everyhop.core.decision import Reason
from everyhop.policy.access import TCP
from everyhop.policy.model import OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from everyhop.authz.explanation import Cited, Suggestion
    from everyhop.authz.traffic import Seen
    from everyhop.policy.model import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Calls that the policy in shadow would decide otherwise.

    ``caller`` is a name; ``rule`` what would decide; ``suggestion`` what to add so that such calls go on (for those that
    would break, where an addition does it); ``note`` what else there is to know.
    """

    seen: Seen
    caller: str
    rule: Cited | None
    suggestion: Suggestion | None
    note: str | None

    @property
    def breaks(self) -> bool:
        """Tell whether the calls would be refused; otherwise they would be let in."""
        return self.seen.would == "deny"

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            **self.seen.evidence(),
            "from": self.caller,
            "would": self.seen.would,
            "would_reason": self.seen.would_reason,
            "rule": self.seen.would_rule,
            "cited": None if self.rule is None else self.rule.to_dict(),
            "suggestion": None if self.suggestion is None else self.suggestion.to_dict(),
            "note": self.note,
        }


def watched_findings(snapshot: Snapshot, groups: Iterable[Seen]) -> list[Finding]:
    """Return what would change, under the policy in force as a whole; those that would break first, by their number.

    A caller who tried more paths than are told apart seems to search: nothing is suggested for what it found.
    """
    engine = Engine(enforced(snapshot))
    groups = list(groups)
    searching = searches(groups)
    found = [_finding(engine, seen, searching) for seen in groups if seen.would is not None]
    return sorted(found, key=lambda f: (not f.breaks, -f.seen.count, f.caller, f.seen.what))


def goes_on(seen: Seen, engine: Engine) -> bool:
    """Tell whether such calls would go on under a policy with everything in force, as far as a text can say.

    Whether a user has a role is not for the policy to say, so calls for users may lack that.
    """
    return is_let_in(seen, Engine(enforced(engine.snapshot)))


def _finding(engine: Engine, seen: Seen, searching: set[tuple[str | None, str | None]]) -> Finding:
    caller = name_of_caller(engine, seen)
    rule = None if seen.would_rule is None else engine.rule(seen.would_rule)
    suggestion: Suggestion | None = None
    note: str | None = None
    if seen.operation is None and (seen.caller, seen.target) in searching:
        note = "so many paths were tried that this looks like a search"
    elif seen.would == "deny":
        suggestion, note = _keep(engine, seen, caller)
    return Finding(
        seen=seen,
        caller=caller or str(seen.caller),
        rule=None if rule is None else cite(rule),
        suggestion=suggestion,
        note=note,
    )


def _keep(engine: Engine, seen: Seen, caller: str | None) -> tuple[Suggestion | None, str | None]:
    """Return what would let the calls go on once everything is in force, or why nothing that is added would."""
    explanation = explain_seen(engine, seen)
    if caller is None or explanation is None:
        return None, "the policy of today does not know this call"
    decision = explanation.decision
    if decision.is_allowed:
        return None, "the policy of today allows it in force, too"
    if decision.reason is Reason.DENIED_BY_RULE or decision.rule is not None:
        return None, f"deny beats allow: only a change of {decision.rule} keeps these calls"
    if decision.reason is Reason.NO_RULE and seen.operation is not None:
        has_user = seen.user and seen.operation != TCP and caller != OUTSIDE
        return suggest_rule(
            engine.snapshot, caller, str(seen.target), seen.operation, has_user=has_user
        ), None
    if explanation.suggestion is not None:
        return explanation.suggestion, None
    return None, f"an allow rule is there, but these calls do not fulfil it [{seen.would_reason}]"
