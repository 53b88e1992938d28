# SPDX-License-Identifier: Apache-2.0
"""The record of an evaluation, and its explanation afterwards: the record keeps the question, so it can be asked again.

Of the question is kept what a decision can depend on and nothing else: a property that the policy does not declare is
not written down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from everyhop.auditlog import Kind, Point, Record
from everyhop.auditlog.model import MAX_NAME, MAX_PATH, MAX_TEXT, clip
from everyhop.authz.explain import explain_door
from everyhop.authzen import Action, Entity, Evaluation
from everyhop.control.authzen_deciding import UNKNOWN_RESOURCE, decide_question
from everyhop.control.authzen_facts import READ_OF_ANY_USER
from everyhop.control.authzen_mapping import SERVICE, read_question
from everyhop.control.authzen_peps import Pep
from everyhop.control.responding import detail_of
from everyhop.core.decision import Reason
from everyhop.core.errors import AccessDenied, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from everyhop.authz import Engine, Explanation
    from everyhop.control.authzen_deciding import Decided
    from everyhop.control.authzen_mapping import Question
    from everyhop.policy.model import Snapshot

VIA: Final = "authzen"
_ASKED: Final = "asked"
_OF_REQUESTS: Final = ("method", "path", "service")
_OF_CONTEXT: Final = ("caller", "source_ip", "ip")


def record_of(
    decision_id: str,
    now: datetime,
    pep: Pep,
    asked: Evaluation,
    question: Question,
    decided: Decided,
    snapshot: Snapshot,
    number: int,
    producer: str,
) -> Record:
    """Return the record of one evaluation; every text of the PEP's is cut to its bound."""
    decision, is_request = decided.decision, decided.is_request
    detail: dict[str, str | int | float | bool | None] = {
        "via": VIA,
        "pep": pep.name,
        "subject": clip(f"{asked.subject.type}:{asked.subject.id}"),
        "action": asked.action.name,
        "resource": clip(f"{asked.resource.type}:{asked.resource.id}"),
    }
    kept = msgspec.json.encode(_kept(asked, snapshot, question.target)).decode()
    if len(kept) <= MAX_TEXT:  # half of it would be another question
        detail[_ASKED] = kept
    if decided.block is not None:
        detail |= detail_of(decided.block.subject)
    if decision.would is not None:
        detail |= {"would": decision.would.effect.value, "would_reason": decision.would.reason.value}
    return Record(
        id=decision_id,
        seq=number,
        producer=producer,
        time=now,
        kind=Kind.DECISION,
        point=Point.CONTROL,
        caller=clip(decision.caller),
        target=None if question.target is None else clip(question.target),
        operation=None if decision.operation is None else clip(decision.operation),
        method=clip(question.method, MAX_NAME) if is_request and question.method is not None else None,
        path=clip(question.path, MAX_PATH) if is_request and question.path is not None else None,
        decision=decision.effect.value,
        rule=decision.rule,
        reason=UNKNOWN_RESOURCE if question.target is None else decision.reason.value,
        snapshot=decision.snapshot,
        detail=detail,
    )


def is_evaluation(record: Record) -> bool:
    """Tell whether a record is one of these."""
    return record.kind is Kind.DECISION and record.detail.get("via") == VIA


def explain_record(engine: Engine, record: Record) -> tuple[str, Explanation | None]:
    """Ask the question of a record again, under its own policy and time, and say why it was answered so.

    Returns a text for people, and the explanation where there is one: not for a question that was too long to keep.
    """
    text = record.detail.get(_ASKED)
    if not isinstance(text, str):
        return "the question was too long to be kept, so it cannot be asked again", None
    kept: dict[str, Any] = msgspec.json.decode(text)
    asked = Evaluation(
        subject=Entity(**kept["subject"]),
        action=Action(**kept["action"]),
        resource=Entity(**kept["resource"]),
        context=kept["context"],
    )
    try:
        question = read_question(asked, snapshot=engine.snapshot, pep=_pep(engine, record), now=record.time)
    except (AccessDenied, InputError) as error:
        return f"the question cannot be asked again: {error.message}", None
    if question.target is None:
        return f"the policy declares no type of resource {asked.resource.type[:80]!r}", None
    decided = decide_question(engine, question)
    caller, target, context = question.caller, question.target, question.context
    if decided.is_request and question.method is not None and question.path is not None:
        explanation = engine.explain(
            caller=caller, target=target, method=question.method, path=question.path, context=context
        )
    elif decided.decision.reason is Reason.UNKNOWN_OPERATION:
        return f"{target} has no operation {str(question.door)[:80]!r}", None
    else:
        explanation = explain_door(engine, decided.decision, context=context)
    return explanation.render(), explanation


def _pep(engine: Engine, record: Record) -> Pep:
    """Return a PEP that may ask this one question, as the one of the record could."""
    name = str(record.detail.get("pep"))
    owner = engine.snapshot.service_of(name)
    if owner is not None:
        return Pep(name=name, service=owner.name)
    is_key = name.startswith("apikey:")
    return Pep(name=name, scopes=frozenset({f"{record.target}.{record.operation}"} if is_key else ()))


def _kept(asked: Evaluation, snapshot: Snapshot, target: str | None) -> dict[str, Any]:
    declared = snapshot.attributes
    subject = {*READ_OF_ANY_USER, *declared.of("user")} if asked.subject.type != SERVICE else set()
    service = snapshot.services.get(target or "")
    operations = () if service is None else service.operations
    parameters = {segment.text for operation in operations for segment in operation.route.segments}
    resource = {*_OF_REQUESTS, *declared.of("resource"), *parameters}
    simple = {n: v for n, v in asked.action.properties.items() if isinstance(v, str | int)}
    context: dict[str, Any] = {name: asked.context[name] for name in _OF_CONTEXT if name in asked.context}
    for name, wanted in (("device", set(declared.of("device"))), ("headers", set(declared.headers))):
        if isinstance(asked.context.get(name), dict):
            context[name] = _only(asked.context[name], wanted)
    return {
        "subject": _entity(asked.subject, subject),
        "action": {"name": asked.action.name, "properties": simple},
        "resource": _entity(asked.resource, resource),
        "context": context,
    }


def _entity(entity: Entity, wanted: set[str]) -> dict[str, Any]:
    return {"type": entity.type, "id": entity.id, "properties": _only(entity.properties, wanted)}


def _only(members: Mapping[str, Any], wanted: set[str]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name in wanted or name.lower() in wanted}
