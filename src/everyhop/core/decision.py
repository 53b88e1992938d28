# SPDX-License-Identifier: Apache-2.0
"""The answer to "may this caller do this here", as every room passes it on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Effect(StrEnum):
    """The two answers; anything that is not exactly ``ALLOW`` denies."""

    ALLOW = "allow"
    DENY = "deny"


class Reason(StrEnum):
    """Why, as a stable code.

    The data plane writes the same codes into its access log, so a record of Envoy and an answer of the
    pure decision can be compared word for word.
    """

    ALLOWED = "allowed"  # an allow rule matched and no deny rule did
    APPLICATION_DECIDES = "application-decides"  # some resources are allowed; the application checks which
    PROBE = "probe"  # a declared probe, open to every declared service
    DENIED_BY_RULE = "denied-by-rule"  # a deny rule matched
    NO_RULE = "no-rule"  # a known operation that no rule opens to this caller
    UNKNOWN_OPERATION = "unknown-operation"  # no declared operation has this method and path
    AMBIGUOUS_PATH = "ambiguous-path"  # the path has more than one reading; HTTP status 400
    UNKNOWN_CALLER = "unknown-caller"  # not a service that this policy declares
    UNKNOWN_SERVICE = "unknown-service"  # the target is not declared
    WRONG_PROTOCOL = "wrong-protocol"  # an HTTP call to a tcp service, or the reverse
    CONDITION_FALSE = "condition-false"  # a rule would allow it, but its condition does not hold
    CONDITION_ERROR = "condition-error"  # a condition could not be evaluated, which denies
    USER_REQUIRED = "user-required"  # a rule would allow it for a user, and there is none
    USER_NOT_PERMITTED = "user-not-permitted"  # no role of the user grants this operation
    BLOCKED = "blocked"  # the caller, its user, key or address is blocked for now; HTTP status 429
    SHADOWED = "shadowed"  # allowed only because the policy is only watched here


@dataclass(frozen=True, slots=True, kw_only=True)
class Would:
    """The decision that would have been made if what is only watched were in force."""

    effect: Effect
    reason: Reason
    rule: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision.

    ``caller`` is a SPIFFE ID as text, ``target`` a service name, ``operation`` its operation's name (or
    ``probes[N]``, or ``tcp``) where one was recognised, ``rule`` the id of the deciding rule
    (``allow[0]``, ``deny[2]``, ``services.orders.probes[0]``), ``snapshot`` the content hash under which
    it was made (64 hex digits).  ``would`` is set where the policy in shadow would decide with
    another effect.
    """

    effect: Effect
    reason: Reason
    caller: str
    target: str
    operation: str | None
    rule: str | None
    snapshot: str
    would: Would | None = None

    @property
    def is_allowed(self) -> bool:
        """Tell whether the call may go on."""
        return self.effect is Effect.ALLOW

    @property
    def status(self) -> int:
        """Return the HTTP status for a refusal: 400 for ambiguity, 429 for a block, else 403; 200 when allowed."""
        if self.is_allowed:
            return 200
        if self.reason is Reason.BLOCKED:
            return 429
        return 400 if self.reason is Reason.AMBIGUOUS_PATH else 403
