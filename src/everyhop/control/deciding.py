# SPDX-License-Identifier: Apache-2.0
"""Calls that facts decide: what a sidecar shows of a call becomes a context, and the engine has the last word."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from everyhop.authz.explain import explain_http
from everyhop.conditions import ValueType
from everyhop.core.decision import Decision, Effect, Reason
from everyhop.core.errors import AccessDenied
from everyhop.policy.facts import User

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from everyhop.authz import Engine
    from everyhop.policy.facts import Context, Value
    from everyhop.policy.vocabulary import Attribute
    from everyhop.tokens.transaction import TxnToken

MAX_FACTS: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a call shows: the verified peer (SPIFFE ID and certificate thumbprint), the request and credentials as sent.

    ``asks`` tells that the sidecar has let it so far only because facts decide; the policy that it goes by may be another
    than the agent's, so then they decide whatever the agent's says.  ``source`` is the address of the peer, ``path`` the
    raw request target, ``fields`` the header fields that conditions may read, every line by itself.
    """

    caller: str
    x5t: str | None
    operation: str
    token: str | None = field(default=None, repr=False)
    txn: str | None = field(default=None, repr=False)
    source: str | None = None
    method: str = ""
    path: str = ""
    asks: bool = False
    fields: Mapping[str, tuple[bytes, ...]] = field(default_factory=lambda: MappingProxyType({}), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """A decision that facts made; ``facts`` says for people what its condition saw, at most 600 characters."""

    decision: Decision
    facts: str


class FactsDenied(AccessDenied):
    """The facts of a call did not do."""

    def __init__(self, why: Why) -> None:
        """Carry what the record is to say."""
        super().__init__(f"denied by its facts: {why.decision.reason}")
        self.why: Final = why


def decide_call(engine: Engine, service: str, shown: Shown, context: Context) -> Why:
    """Decide a call that the sidecar's filters let in so far.

    The operation that Envoy found must be the one that the engine finds: where the two see different requests, the
    call is denied.
    """
    decision = engine.decide(
        caller=shown.caller, target=service, method=shown.method, path=shown.path, context=context
    )
    if decision.operation != shown.operation and decision.reason is not Reason.SHADOWED:
        refused = Decision(
            effect=Effect.DENY,
            reason=Reason.UNKNOWN_OPERATION,
            caller=shown.caller,
            target=service,
            operation=shown.operation,
            rule=None,
            snapshot=decision.snapshot,
        )
        return Why(decision=refused, facts="sidecar and agent do not see the same operation")
    explanation = explain_http(engine, decision, method=shown.method, path=shown.path, context=context)
    return Why(decision=decision, facts=explanation.facts[:MAX_FACTS])


def user_of(token: TxnToken, declared: Mapping[str, Attribute]) -> User:
    """Return the user of a verified transaction token; ``declared`` are the attributes that users can have.

    What the token says of an attribute that is not declared, or not with this type (it was issued under another
    policy), is not known.
    """
    known = token.context
    auth_time, amr = known.get("auth_time"), known.get("amr")
    return User(
        id=token.subject,
        issuer=token.idp,
        roles=token.roles,
        amr=None if amr is None else tuple(amr),
        acr=known.get("acr"),
        auth_time=None if auth_time is None else datetime.fromtimestamp(auth_time, UTC),
        attributes=_attributes(known.get("attributes") or {}, declared),
    )


def _attributes(stated: Mapping[str, Any], declared: Mapping[str, Attribute]) -> Mapping[str, Value]:
    found: dict[str, Value] = {}
    for name, value in stated.items():
        kind = declared[name].type if name in declared else None
        if kind is ValueType.TIMESTAMP and type(value) is int:
            found[name] = datetime.fromtimestamp(value, UTC)
        elif kind is ValueType.STRINGS and isinstance(value, list):
            found[name] = tuple(value)
        elif (
            (kind is ValueType.BOOL and isinstance(value, bool))
            or (kind is ValueType.INT and type(value) is int)
            or (kind is ValueType.DOUBLE and type(value) in {int, float})
            or (kind is ValueType.STRING and isinstance(value, str))
        ):
            found[name] = value
    return MappingProxyType(found)


def facts_of_headers(
    fields: Mapping[str, tuple[bytes, ...]], chosen: Sequence[str]
) -> Mapping[str, tuple[str, ...]]:
    """Return the chosen headers; bytes that are no UTF-8 make the whole field one without a single value."""
    found: dict[str, tuple[str, ...]] = {}
    for name in chosen:
        lines = fields.get(name, ())
        if not lines:
            continue
        try:
            found[name] = tuple(line.decode("utf-8") for line in lines)
        except UnicodeDecodeError:
            found[name] = ("", "")
    return MappingProxyType(found)
