# SPDX-License-Identifier: Apache-2.0
"""What a caller may ask for: the policy's answer, and a refusal of everything beyond.  Pure."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

from everyhop.issuing.errors import GrantRefused, OAuthError
from everyhop.issuing.policy_view import Granted, PolicyView
from everyhop.issuing.requests import PDP_AUDIENCE
from everyhop.tokens.claims import is_digest

MAX_SCOPES: Final = 256


def service_named(policy: PolicyView, caller: str) -> str:
    """Return the caller's service.  Raises GrantRefused when the policy declares none."""
    service = policy.service_of(caller)
    if service is None:
        raise GrantRefused(
            OAuthError.ACCESS_DENIED, f"{caller[:200]} is not a service that the policy declares"
        )
    return service


def granted_to(policy: PolicyView, caller: str, target: str, operation: str | None) -> Granted:
    """Return what ``caller`` may have at ``target``, or at one operation of it alone.

    Raises GrantRefused: an unknown caller, target or operation, or nothing granted.
    """
    known = policy.answers.get((caller, target, operation))
    if known is None:
        # Only what the policy grants is remembered: there is no more of that than the policy is long.
        known = policy.answers[caller, target, operation] = _granted_to(policy, caller, target, operation)
    return known


def _granted_to(policy: PolicyView, caller: str, target: str, operation: str | None) -> Granted:
    service = service_named(policy, caller)
    if target == PDP_AUDIENCE and operation is None:
        # Whom the policy declares may ask the decision point; what about, is decided there.
        return Granted(audience=PDP_AUDIENCE, scope=frozenset())
    if not policy.declares(target):
        raise GrantRefused(OAuthError.INVALID_TARGET, f"the policy declares no service {target[:80]!r}")
    granted = policy.granted(service, target)
    if operation is not None:
        return _granted_operation(policy, service, target, operation, granted)
    if not granted:
        raise GrantRefused(
            OAuthError.ACCESS_DENIED, f"the policy opens no operation of {target} to {service}"
        )
    wide = policy.service_wide(target, granted)
    if not wide:
        raise GrantRefused(
            OAuthError.INVALID_TARGET,
            f"every operation of {target} that is open to {service} takes a token of its own",
            hint=f"ask for {target}#{min(granted)}",
        )
    return Granted(audience=target, scope=frozenset(f"{target}.{name}" for name in wide))


def _granted_operation(
    policy: PolicyView, service: str, target: str, operation: str, granted: AbstractSet[str]
) -> Granted:
    if policy.mode(target, operation) is None:
        raise GrantRefused(OAuthError.INVALID_TARGET, f"{target} has no operation {operation[:80]!r}")
    if operation not in granted:
        raise GrantRefused(
            OAuthError.ACCESS_DENIED, f"the policy does not open {target}.{operation} to {service}"
        )
    return Granted(audience=f"{target}#{operation}", scope=frozenset({f"{target}.{operation}"}))


def narrowed(granted: Granted, asked: AbstractSet[str] | None, target: str) -> frozenset[str]:
    """Return the scope to issue: what is asked for, or everything granted.

    Raises GrantRefused for anything beyond; a request is never trimmed, because a caller that is given less than it
    asked for without a word fails later and elsewhere.
    """
    if asked is None:
        return granted.scope
    check_size(asked)
    wanted = frozenset(name if "." in name else f"{target}.{name}" for name in asked)
    refuse_surplus(wanted - granted.scope, f"more than the policy grants for {granted.audience}")
    return wanted


def check_size(asked: AbstractSet[str]) -> None:
    """Refuse a scope that was asked for and is empty, or is longer than any policy."""
    if not 0 < len(asked) <= MAX_SCOPES:
        raise GrantRefused(OAuthError.INVALID_SCOPE, f"a scope holds 1 to {MAX_SCOPES} names")


def refuse_surplus(surplus: AbstractSet[str], what: str) -> None:
    """Raise GrantRefused unless ``surplus`` is empty."""
    if surplus:
        raise GrantRefused(OAuthError.INVALID_SCOPE, f"{what}: {min(surplus)[:120]!r}")


def check_binding(x5t: str | None, jkt: str | None) -> None:
    """Demand exactly one thing that the token is bound to (RFC 8705 section 3.1, RFC 9449 section 6.1)."""
    if (x5t is None) == (jkt is None):
        raise GrantRefused(
            OAuthError.INVALID_REQUEST, "a token is bound to the caller's certificate, or to its DPoP key"
        )
    if not is_digest(x5t or jkt or ""):
        raise GrantRefused(
            OAuthError.INVALID_REQUEST, "what the token is to be bound to is not a SHA-256 digest"
        )
