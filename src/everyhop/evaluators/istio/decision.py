# SPDX-License-Identifier: Apache-2.0
"""CUSTOM, then DENY, then ALLOW, with the token looked at between (pilot/pkg/security/authz/builder/builder.go)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.evaluators.istio.rules import Action
from everyhop.evaluators.istio.tokens import verdict
from everyhop.evaluators.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from everyhop.evaluators.istio.facts import Facts
    from everyhop.evaluators.istio.rules import Policy
    from everyhop.evaluators.istio.tokens import JwtRule
    from everyhop.evaluators.model import Request


def decide(
    policies: Sequence[Policy],
    jwt_rules: Iterable[JwtRule],
    request: Request,
    facts: Facts,
    *,
    providers: Collection[str] | None,
) -> Outcome:
    """Return what a proxy does under the policies that attach to it (dry runs left out by the caller).

    Every part can refuse and none can overrule another's refusal, so their order shows in the reason alone.  Several providers of
    CUSTOM on one workload, or one that is not configured, make Istio deny what their rules match.
    """
    asks: str | None = None
    custom = [one for one in policies if one.action is Action.CUSTOM]
    is_bad = len({one.provider for one in custom}) > 1
    for one in custom:
        if not one.matches(facts):
            continue
        if is_bad or (providers is not None and one.provider not in providers):
            return Outcome(allowed=False, why="CUSTOM without one usable provider denies", by=str(one))
        asks = one.provider
    if facts.is_http:
        token = verdict(jwt_rules, request)
        if token.is_refused:
            return Outcome(allowed=False, why="401: the token is not believed", asks=asks)
        facts = facts.with_claims(token.claims)
    for one in policies:
        if one.action is Action.DENY and one.matches(facts):
            return Outcome(allowed=False, why="a DENY policy matches", by=str(one), asks=asks)
    allows = [one for one in policies if one.action is Action.ALLOW]
    if not allows:
        return Outcome(allowed=True, why="no ALLOW policy attaches, so nothing is refused", asks=asks)
    for one in allows:
        if one.matches(facts):
            return Outcome(allowed=True, why="an ALLOW policy matches", by=str(one), asks=asks)
    return Outcome(allowed=False, why="no ALLOW policy matches", by=str(allows[0]), asks=asks)
