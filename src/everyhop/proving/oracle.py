# SPDX-License-Identifier: Apache-2.0
"""What the policy says of a request: the engine, and what a call must carry besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.core.decision import Reason
from everyhop.evaluators.model import Wire
from everyhop.policy.model import OUTSIDE, TokenMode
from everyhop.proving.model import Answer, CallerKind, Says, TokenState
from everyhop.proving.tokens import is_taken
from everyhop.targets.model import Feature

if TYPE_CHECKING:
    from everyhop.authz.engine import Engine
    from everyhop.policy.model import Operation
    from everyhop.proving.model import Ask
    from everyhop.targets.intents import Intents

_NOTHING: Final = frozenset[Feature]()
_SILENT: Final = Answer(Says.EITHER, "the policy is silent")


class Oracle:
    """Answers requests as the policy means them."""

    def __init__(self, engine: Engine, intents: Intents) -> None:
        self._engine = engine
        self._intents = intents
        self._egress = frozenset(
            (one.host, one.port, caller) for one in intents.settings.egress for caller in one.callers
        )

    def answer(self, ask: Ask, relaxed: frozenset[Feature] = _NOTHING) -> Answer:
        """Return what the policy says; ``relaxed`` are features of which nobody asks on this hop.

        Without ``mtls`` a pod is believed to be whose place it has, without ``identity`` whose labels it has; without
        ``token-binding`` a token is good in whoever's hand.
        """
        if ask.is_bound:
            return self._bound(ask)
        if ask.is_egress:
            return self._leaving(ask)
        caller = self._caller(ask, relaxed)
        if ask.request.port != self._intents.of(ask.service).port:
            return Answer(Says.DENY, "no door of the policy is at this port")
        if ask.caller.kind is CallerKind.PROBE:
            return self._probe(ask)
        if caller is None:
            return Answer(Says.DENY, "the caller has no certificate")
        if ask.request.wire is Wire.TCP:
            decision = self._engine.decide_tcp(caller=caller, target=ask.service, context=ask.context)
            return Answer(
                Says.ALLOW if decision.is_allowed else Says.DENY,
                _reason(decision.rule, decision.reason.value),
            )
        decision = self._engine.decide(
            caller=caller,
            target=ask.service,
            method=ask.request.method,
            path=ask.request.path,
            context=ask.context,
        )
        if not decision.is_allowed:
            is_ambiguous = decision.reason is Reason.AMBIGUOUS_PATH
            return Answer(Says.DENY, _reason(decision.rule, decision.reason.value), is_ambiguous)
        if decision.reason is Reason.SHADOWED:
            return Answer(Says.EITHER, "the policy only watches there")
        if ask.caller.kind is CallerKind.CANARY:
            return _SILENT  # nobody runs it, so nobody can be it
        operation = ask.operation
        if operation is None or decision.operation != operation.name:
            return self._other_door(ask, decision.operation, decision.rule)
        failure = _carried(ask, operation, relaxed)
        return (
            Answer(Says.DENY, failure) if failure else Answer(Says.ALLOW, _reason(decision.rule, "allowed"))
        )

    def _caller(self, ask: Ask, relaxed: frozenset[Feature]) -> str | None:
        caller = ask.caller
        is_believed = (caller.kind is CallerKind.UNCERTIFIED and Feature.MTLS in relaxed) or (
            caller.kind is CallerKind.LABELS and Feature.IDENTITY in relaxed
        )
        if not is_believed or caller.claims_to_be is None:
            return caller.policy_id
        if caller.claims_to_be == OUTSIDE:
            return OUTSIDE
        return str(self._intents.snapshot.services[caller.claims_to_be].spiffe_id)

    def _probe(self, ask: Ask) -> Answer:
        """A probe without a certificate may pass at a probe's door; whether it has to is a matter of the mesh."""
        request = ask.request
        if request.wire is not Wire.TCP:
            door = self._engine.find(ask.service, request.method, request.path)
            if door is not None and door.is_probe:
                return _SILENT
        return Answer(Says.DENY, "a network of probes reaches probes only")

    def _other_door(self, ask: Ask, name: str | None, rule: str | None) -> Answer:
        """A variation came to another door, which asks for a token of its own: that one is asked elsewhere."""
        door = None if name is None else self._engine.door(ask.service, name)
        operation = None if door is None else door.operation
        if operation is None or (operation.token is TokenMode.NONE and operation.body is None):
            return Answer(Says.ALLOW, _reason(rule, "allowed"))
        if operation.token is not TokenMode.NONE and ask.token is TokenState.NONE:
            return Answer(Says.DENY, "it carries no token")
        return _SILENT

    def _bound(self, ask: Ask) -> Answer:
        if ask.is_dns:
            if not self._calls(ask.caller.name):
                return _SILENT
            return Answer(Says.ALLOW, "names have to be resolved")
        request = ask.request
        leaves = {(port, name) for _, port, name in self._egress}
        if not request.target.namespace and (request.port, ask.caller.name) in leaves:
            return _SILENT  # by address nobody tells the declared host from another one
        return Answer(Says.DENY, "no service of the policy is there")

    def _calls(self, name: str) -> bool:
        reached = any(target != name for target in self._intents.targets_of(name))
        return reached or any(caller == name for _, _, caller in self._egress)

    def _leaving(self, ask: Ask) -> Answer:
        request = ask.request
        if (request.dns_name or "", request.port, ask.caller.name) in self._egress:
            return Answer(Says.ALLOW, "targets: egress")
        return Answer(Says.DENY, "no egress of the policy")


def _carried(ask: Ask, operation: Operation, relaxed: frozenset[Feature]) -> str:
    """Return what a call that the engine allows lacks, "" for nothing."""
    if operation.body is not None and not ask.is_body_valid:
        return "the body is not of its schema"
    if operation.token is TokenMode.NONE or is_taken(ask.token, operation):
        return ""
    if ask.token is TokenState.STOLEN and Feature.TOKEN_BINDING in relaxed:
        return ""
    if ask.token is TokenState.NONE:
        return "it carries no token"
    return f"its token is {ask.token.value}"


def _reason(rule: str | None, reason: str) -> str:
    return reason if rule is None else f"{rule}: {reason}"
