# SPDX-License-Identifier: Apache-2.0
"""Why was this decided so, and what is the smallest change that would allow it?

This is for people who ask afterwards, so it scans; nothing here is on the path of a request.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, assert_never

from everyhop.authz._explain_facts import cite, explain_facts, missing_grant
from everyhop.authz._suggest import suggest_door, suggest_rule
from everyhop.authz.explanation import Cited, Difference, Explanation, Suggestion
from everyhop.authz.paths import CleanPath, classify_path
from everyhop.authz.requirements import requirement_of
from everyhop.core.decision import Reason
from everyhop.core.errors import InputError
from everyhop.core.names import nearest
from everyhop.policy.access import TCP
from everyhop.policy.model import OUTSIDE, RuleEffect, SegmentKind, UserMode
from everyhop.policy.routes import guarded_characters
from everyhop.spiffe.ids import SpiffeId

if TYPE_CHECKING:
    from everyhop.authz.engine import Engine
    from everyhop.authz.facts import Call
    from everyhop.conditions import Clause
    from everyhop.core.decision import Decision
    from everyhop.policy.facts import Context
    from everyhop.policy.model import Route, Rule, Service, Snapshot


_BY_FACTS = frozenset(
    {Reason.CONDITION_FALSE, Reason.CONDITION_ERROR, Reason.USER_REQUIRED, Reason.USER_NOT_PERMITTED}
)


def explain_http(
    engine: Engine, decision: Decision, *, method: str, path: str, context: Context | None = None
) -> Explanation:
    """Explain a decision that :meth:`Engine.decide` made for this method and path, under these facts."""
    asked = _Asked(engine, f"{method} {path}", method, path, context)
    return _explain(asked, decision)


def explain_tcp(engine: Engine, decision: Decision, *, context: Context | None = None) -> Explanation:
    """Explain a decision that :meth:`Engine.decide_tcp` made."""
    return _explain(_Asked(engine, TCP, None, None, context), decision)


def explain_door(engine: Engine, decision: Decision, *, context: Context | None = None) -> Explanation:
    """Explain a decision that :meth:`Engine.decide_door` made at an operation."""
    return _explain(_Asked(engine, str(decision.operation), None, None, context), decision)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked: the call in words, its method and raw path (None for a door), and the facts."""

    engine: Engine
    call: str
    method: str | None
    path: str | None
    context: Context | None

    @property
    def snapshot(self) -> Snapshot:
        return self.engine.snapshot

    @property
    def bare_path(self) -> str:
        return (self.path or "").partition("?")[0]


def _explain(asked: _Asked, decision: Decision) -> Explanation:
    found = _explain_reason(asked, decision)
    if decision.would is None:
        return found
    other = decision.would
    rule = f" by {other.rule}" if other.rule else ""
    note = f"in shadow: what is only watched would {other.effect} it{rule} [{other.reason}]"
    return replace(found, notes=(*found.notes, note))


def _explain_reason(asked: _Asked, decision: Decision) -> Explanation:
    snapshot, call = asked.snapshot, asked.call
    match decision.reason:
        case Reason.ALLOWED | Reason.DENIED_BY_RULE | Reason.PROBE | Reason.APPLICATION_DECIDES:
            return _by_rule(asked, decision)
        case Reason.NO_RULE:
            return _no_rule(asked, decision)
        case (
            Reason.CONDITION_FALSE | Reason.CONDITION_ERROR | Reason.USER_REQUIRED | Reason.USER_NOT_PERMITTED
        ):
            return explain_facts(asked.engine, decision, _door(decision, call), _call(asked, decision))
        case Reason.SHADOWED:
            who = _who(snapshot, decision.caller)
            summary = f"{who} is let through to {decision.target}: the policy is only watched there"
            return _shadowed(asked, Explanation(decision=decision, summary=summary))
        case Reason.BLOCKED:  # never the engine's own answer
            who = _who(snapshot, decision.caller)
            summary = f"{who} was blocked at that time, whatever the policy says of its calls"
            return Explanation(decision=decision, summary=summary)
        case Reason.UNKNOWN_OPERATION:
            return _unknown_operation(snapshot, decision, asked.method or "", asked.bare_path)
        case Reason.AMBIGUOUS_PATH:
            return _ambiguous(snapshot, decision, asked.bare_path)
        case Reason.UNKNOWN_CALLER:
            return _unknown_caller(snapshot, decision)
        case Reason.UNKNOWN_SERVICE:
            near = nearest(decision.target[:80], snapshot.services)
            notes = (f"did you mean {near!r}?",) if near else ()
            summary = f"the policy declares no service {decision.target[:80]!r}"
            return Explanation(decision=decision, summary=summary, notes=notes)
        case Reason.WRONG_PROTOCOL:
            service = snapshot.services[decision.target]
            speaks = f"tcp (port {service.tcp})" if service.tcp is not None else "HTTP"
            summary = f"{service.name} speaks {speaks}, so {call.partition(' ')[0]} is not a way to call it"
            return Explanation(decision=decision, summary=summary, nearest=_cite_service(service))
        case _:
            assert_never(decision.reason)


def _shadowed(asked: _Asked, explanation: Explanation) -> Explanation:
    """Add what the clauses saw, where facts decided what the policy in shadow says."""
    decision = explanation.decision
    other = decision.would
    if other is None or other.reason not in _BY_FACTS:
        return explanation
    denied = replace(decision, effect=other.effect, reason=other.reason, rule=other.rule)
    found = explain_facts(asked.engine, denied, _door(decision, asked.call), _call(asked, decision))
    return replace(explanation, rule=found.rule, nearest=found.nearest, clauses=found.clauses)


def _call(asked: _Asked, decision: Decision) -> Call:
    """Return the call at the door that the decision names."""
    door = asked.engine.door(decision.target, str(decision.operation))
    assert door is not None  # noqa: S101  # these reasons are given at a door only
    return asked.engine.call(door, decision.caller, asked.context, asked.method, asked.path)


def _who(snapshot: Snapshot, caller: str) -> str:
    owner = snapshot.service_of(caller)
    return owner.name if owner else caller


def _door(decision: Decision, call: str) -> str:
    if decision.operation == TCP:
        return f"connect to {decision.target} (tcp)"
    return f"call {decision.operation} ({call}) on {decision.target}"


def _by_rule(asked: _Asked, decision: Decision) -> Explanation:
    snapshot, call = asked.snapshot, asked.call
    who = _who(snapshot, decision.caller)
    if decision.reason is Reason.PROBE:
        service = snapshot.services[decision.target]
        probe = next(p for p in service.probes if p.name == decision.operation)
        cited = Cited(id=str(decision.rule), text=f"probe {probe.route} of {service.name}", span=probe.span)
        summary = (
            f"{who} may call the probe {probe.route} on {decision.target}, as every declared service may"
        )
        return Explanation(decision=decision, summary=summary, rule=cited)
    rule = asked.engine.rule(str(decision.rule))
    assert rule is not None  # noqa: S101  # these reasons name a rule
    verb = "may" if decision.is_allowed else "may not"
    summary = f"{who} {verb} {_door(decision, call)}"
    notes = (
        _carries(asked.engine, decision)
        if decision.is_allowed
        else ("deny beats allow: no further rule can open this; only changing this one can",)
    )
    clauses: tuple[Clause, ...] = ()
    if rule.condition is not None:
        values = asked.engine.facts.values(rule.condition, _call(asked, decision))
        clauses = rule.condition.explain(values)
        if not decision.is_allowed:
            notes = ("deny beats allow: as long as its condition holds, no further rule can open this",)
    if decision.reason is Reason.APPLICATION_DECIDES:
        notes = (*notes, "for some resources at least; the application checks which (resource: application)")
    return Explanation(decision=decision, summary=summary, rule=cite(rule), clauses=clauses, notes=notes)


def _carries(engine: Engine, decision: Decision) -> tuple[str, ...]:
    """Say what a permitted call has to carry besides the certificate."""
    snapshot = engine.snapshot
    service = snapshot.services[decision.target]
    operation = next((o for o in service.operations if o.name == decision.operation), None)
    if operation is None:
        return ()
    access = engine.index.of(decision.target, operation.name)
    needs = requirement_of(decision.target, operation, access.user_mode(_who(snapshot, decision.caller)))
    notes = []
    if needs.audience is not None and decision.caller != OUTSIDE:
        once = ", good for one call" if needs.once else ""
        notes.append(f"the call carries a token for {needs.audience}{once}")
    if needs.user is UserMode.REQUIRED:
        notes.append("the call carries a verified user")
    elif needs.user is UserMode.OPTIONAL:
        notes.append("the call may carry a verified user")
    return tuple(notes)


def _no_rule(asked: _Asked, decision: Decision) -> Explanation:
    snapshot, call = asked.snapshot, asked.call
    who, target, operation = _who(snapshot, decision.caller), decision.target, str(decision.operation)
    best: tuple[tuple[int, int], Rule, tuple[Difference, ...]] | None = None
    for rule in snapshot.rules:
        if rule.effect is RuleEffect.ALLOW:
            differences = _differences(rule, who, target, operation)
            # Fewest differences; then a rule for this caller and target, which lacks only the operation.
            rank = (len(differences), -sum(d.what == "operation" for d in differences))
            if len(differences) < 3 and (best is None or rank < best[0]):  # noqa: PLR2004  # three: nothing in common
                best = rank, rule, differences
    suggestion = _open(asked, decision, who)
    notes = () if suggestion is not None else ("the user has no role that could be granted it",)
    return Explanation(
        decision=decision,
        summary=f"no rule lets {who} {_door(decision, call)}",
        nearest=cite(best[1]) if best else None,
        differences=best[2] if best else (),
        notes=notes,
        suggestion=suggestion,
    )


def _open(asked: _Asked, decision: Decision, who: str) -> Suggestion | None:
    """Return the rule that is missing; for a call with a user also the grant that their roles lack.

    None for a user without any role of the policy: no change of a text gives them one.
    """
    operation = str(decision.operation)
    user = None if asked.context is None else asked.context.user
    found = suggest_rule(
        asked.snapshot, who, decision.target, operation, has_user=user is not None and operation != TCP
    )
    permissions, held = asked.engine.permissions, asked.engine.facts.roles(user)
    if user is None or not permissions.are_asked or permissions.permits(held, decision.target, operation):
        return found
    grant = missing_grant(asked.engine, held, f"{decision.target}.{operation}")
    if grant is None:
        return None
    return Suggestion(edits=found.edits + grant.edits, also_opens=grant.also_opens)


def _differences(rule: Rule, caller: str, target: str, operation: str) -> tuple[Difference, ...]:
    found = []
    if rule.callers is None and caller == OUTSIDE:
        found.append(Difference(what="caller", asked=caller, declared="any declared service"))
    if rule.callers is not None and caller not in rule.callers:
        found.append(Difference(what="caller", asked=caller, declared=_list(rule.callers)))
    if rule.targets is not None and target not in rule.targets:
        found.append(Difference(what="target", asked=target, declared=_list(rule.targets)))
    if rule.operations is not None and operation not in rule.operations:
        found.append(Difference(what="operation", asked=operation, declared=_list(rule.operations)))
    elif rule.operations is None and operation == TCP and rule.targets is None:
        found.append(Difference(what="operation", asked=TCP, declared="an operation of an HTTP service"))
    return tuple(found)


def _unknown_operation(snapshot: Snapshot, decision: Decision, method: str, path: str) -> Explanation:
    service = snapshot.services[decision.target]
    operations = (*service.operations, *service.probes)
    summary = f"{service.name} has no operation {method[:40]} {path[:200]}"
    same_path = [o for o in operations if _matches(o.route, path)]
    notes: tuple[str, ...]
    if same_path:
        near = same_path[0]
        methods = ", ".join(sorted({o.route.method for o in same_path}))
        difference = Difference(what="method", asked=method[:40], declared=methods)
        notes = (f"{near.route} exists; {method[:40]} does not",)
    elif operations:
        near = min(
            operations,
            key=lambda o: (
                o.route.method != method,
                not _path_notes(o.route, path),
                *_distance(o.route, path),
            ),
        )
        difference = Difference(what="path", asked=path[:200], declared=near.route.template)
        notes = _path_notes(near.route, path)
    else:
        return Explanation(
            decision=decision, summary=summary, notes=(f"{service.name} has no operations at all",)
        )
    cited = Cited(id=near.name, text=f"{near.route} of {service.name}", span=near.span)
    owner = snapshot.service_of(decision.caller)
    if owner is None:
        notes = (*notes, f"{decision.caller} is no declared service either")
    return Explanation(
        decision=decision,
        summary=summary,
        nearest=cited,
        differences=(difference,),
        notes=notes,
        suggestion=suggest_door(snapshot, owner, service, method, path, near if same_path else None)
        if owner
        else None,
    )


def _path_notes(route: Route, path: str) -> tuple[str, ...]:
    if _matches(route, path.removesuffix("/")) or _matches(route, path + "/"):
        return ("a trailing slash makes another path",)
    if route.is_literal and route.template.lower() == path.lower():
        return ("paths are case-sensitive",)
    return ()


def _matches(route: Route, path: str) -> bool:
    segments = path[1:].split("/")
    for index, part in enumerate(route.segments):
        if index >= len(segments):
            return False
        if part.kind is SegmentKind.REST:
            return True
        if part.text != segments[index] if part.kind is SegmentKind.LITERAL else not segments[index]:
            return False
    return len(route.segments) == len(segments)


def _distance(route: Route, path: str) -> tuple[int, int]:
    """Return how far a template is from a path: segments that differ, then characters that differ."""
    segments = path[1:].split("/")
    wrong = abs(len(segments) - len(route.segments))
    characters = 0
    for part, segment in zip(route.segments, segments, strict=False):
        if part.kind is SegmentKind.LITERAL and part.text != segment:
            wrong += 1
            characters += len(set(part.text) ^ set(segment))
    return wrong, characters


def _ambiguous(snapshot: Snapshot, decision: Decision, path: str) -> Explanation:
    service = snapshot.services[decision.target]
    routes = tuple(operation.route for operation in (*service.operations, *service.probes))
    found = classify_path(path, guarded_characters(routes))
    flaw = (
        ()
        if isinstance(found, CleanPath)
        else (f"{found.reason.value} at character {found.at + 1}: {found.explanation}",)
    )
    rule = "an ambiguous path is refused whatever the rules say; the caller must send the plain form"
    summary = f"the path {path[:200]!r} has more than one reading"
    return Explanation(decision=decision, summary=summary, notes=(*flaw, rule))


def _unknown_caller(snapshot: Snapshot, decision: Decision) -> Explanation:
    caller = decision.caller
    notes = []
    try:
        spiffe_id = SpiffeId.parse(caller)
    except InputError:
        notes.append("this is not a SPIFFE ID")
    else:
        if spiffe_id.trust_domain != snapshot.trust_domain:
            notes.append(
                f"its trust domain is {spiffe_id.trust_domain}, the policy's is {snapshot.trust_domain}"
            )
    near = nearest(caller[:300], (str(s.spiffe_id) for s in snapshot.services.values()))
    if near and near != caller:
        notes.append(f"the nearest declared identity is {near}")
    notes.append("only services that the policy declares may call")
    return Explanation(
        decision=decision, summary=f"{caller[:300]} is no service of this policy", notes=tuple(notes)
    )


def _list(names: frozenset[str]) -> str:
    return " or ".join(sorted(names))


def _cite_service(service: Service) -> Cited:
    return Cited(id=service.name, text=f"service {service.name}", span=service.span)
