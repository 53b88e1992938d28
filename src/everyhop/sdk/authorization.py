# SPDX-License-Identifier: Apache-2.0
"""The second check, inside the application, with what only it knows: the resource.

    order = load(order_id)
    authorize(resource={"id": order.id, "owner": order.owner}, type="order")

It asks the same rules that let the call in, for the same verified caller and user, now with the resource's attributes.
:func:`visible` asks them which resources there may be, for a query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from everyhop.core.errors import EveryhopError
from everyhop.sdk.model import Refusal
from everyhop.sdk.propagation import current

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from everyhop.authz import Filter
    from everyhop.sdk.deciding import Facts
    from everyhop.sdk.model import Verified

T = TypeVar("T")


def authorize(
    operation: str | None = None,
    *,
    resource: Mapping[str, Any] | None = None,
    type: str | None = None,  # noqa: A002  # the policy's own word
) -> Verified:
    """Return the call being served when it may be about a resource; raise Refusal (403) otherwise.

    ``operation`` is one of this service's, by default the one being served.  ``resource`` holds the attributes that the
    policy declares and ``id``; what it does not hold, or is None, is not known, which denies where a rule reads it.
    ``type`` is the resource's type.  Outside of a verified call everything is refused.  Decisions go to the guard's
    ``decisions``.
    """
    verified, facts = _served()
    from everyhop.policy.facts import Resource

    held = {name: value for name, value in (resource or {}).items() if value is not None}
    identifier = held.pop("id", None)
    attributes = {name: tuple(value) if isinstance(value, list) else value for name, value in held.items()}
    subject = Resource(type=type, id=None if identifier is None else str(identifier), attributes=attributes)
    decision = _asked(verified, lambda: facts.decide(operation, subject))
    facts.owes = False
    name = operation or verified.operation
    about = f"resource {type or ''}/{subject.id or ''}"
    if decision is not None:
        is_allowed, reason, rule = (
            decision.is_allowed,
            decision.reason.value,
            facts.deciding.rule_id(decision),
        )
    else:
        is_allowed, reason, rule = _plainly(facts, operation)
    facts.note(is_allowed, reason, name, rule, about)
    if not is_allowed:
        raise Refusal(403, "ACCESS_DENIED", f"{reason}: {name}, {about}", decision_id=verified.decision_id)
    return verified


def visible(
    operation: str | None = None,
    *,
    type: str | None = None,  # noqa: A002  # the policy's own word
) -> Filter:
    """Return which resources of a type the call being served may be about, for a query.

    Give it to :mod:`everyhop.integrations.sqlalchemy`, or ask its ``allows``.  Outside of a verified call, and where the
    policy leaves nothing to be decided here and does not allow everything, Refusal (403).
    """
    verified, facts = _served()
    found = _asked(verified, lambda: facts.filter(operation, type))
    facts.owes = False
    name = operation or verified.operation
    if found is None:
        found = _everything(type)
        is_allowed, reason, rule = _plainly(facts, operation)
        if not is_allowed:
            facts.note(False, reason, name, rule, f"resources {type or ''}")
            raise Refusal(403, "ACCESS_DENIED", f"{reason}: {name}", decision_id=verified.decision_id)
    judged = found.judgement
    is_some = bool(found.allow) or bool(found.known)
    facts.note(is_some, judged.reason.value, name, None, f"resources {type or ''}: {found.extent}")
    return found


def _served() -> tuple[Verified, Facts]:
    verified = current()
    if verified is None:
        raise Refusal(403, "ACCESS_DENIED", "no verified call is being served here")
    if verified.facts is None:
        raise Refusal(
            403, "ACCESS_DENIED", "this call carries nothing to decide by", decision_id=verified.decision_id
        )
    return verified, verified.facts


def _asked(verified: Verified, ask: Callable[[], T]) -> T:
    """Return an answer of the rules; what they cannot answer is refused."""
    try:
        return ask()
    except EveryhopError as error:
        raise Refusal(503, "UNAVAILABLE", error.message, decision_id=verified.decision_id) from error


def _plainly(facts: Facts, operation: str | None) -> tuple[bool, str, str | None]:
    """Decide by the list of callers alone, where no rule of the service has a condition or looks at roles."""
    from everyhop.policy.model import UserMode

    rule = facts.plainly(operation)
    if rule is None:
        return False, "no-rule", None
    if rule.user is UserMode.REQUIRED and facts.person is None:
        return False, "user-required", None
    return True, "allowed", rule.rule


def _everything(resource_type: str | None) -> Filter:
    from everyhop.authz.cases import Judgement
    from everyhop.authz.filtering import Clause, Filter
    from everyhop.conditions.predicates import TRUE
    from everyhop.core.decision import Effect, Reason

    return Filter(
        type=resource_type,
        allow=(Clause(rule="allowed", text=None, predicate=TRUE),),
        deny=(),
        judgement=Judgement(Effect.ALLOW, Reason.ALLOWED, None),
    )
