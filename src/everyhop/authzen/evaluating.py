# SPDX-License-Identifier: Apache-2.0
"""Access Evaluation and Access Evaluations (sections 6 and 7): questions asked in order, answers in that order.

An item that is no question, or not one for this PEP, is a denial in its place; it never fails the others, and never
permits (section 7.2.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.authzen.model import Answer, Batch, Evaluation, Flaw, Json, Semantic
from everyhop.authzen.parse import parse_evaluation, parse_evaluations
from everyhop.core.errors import AccessDenied, InputError

if TYPE_CHECKING:
    from everyhop.authzen.ports import DecisionPoint

_BAD_REQUEST: Final = 400
_FORBIDDEN: Final = 403


def answer_evaluation(point: DecisionPoint, body: bytes) -> Json:
    """Answer one question; raises InputError or AccessDenied."""
    return point.evaluate(parse_evaluation(body)).to_json()


def answer_evaluations(point: DecisionPoint, body: bytes) -> Json:
    """Answer a batch, or the one question that the request comes down to; raises InputError or AccessDenied."""
    asked = parse_evaluations(body)
    if isinstance(asked, Evaluation):
        return point.evaluate(asked).to_json()
    return {"evaluations": [answer.to_json() for answer in _ask(point, asked)]}


def _ask(point: DecisionPoint, batch: Batch) -> list[Answer]:
    answers: list[Answer] = []
    for item in batch.items:
        answer = _one(point, item)
        answers.append(answer)
        is_permit = answer.decision is True
        if batch.semantic is Semantic.DENY_ON_FIRST_DENY and not is_permit:
            break
        if batch.semantic is Semantic.PERMIT_ON_FIRST_PERMIT and is_permit:
            break
    return answers


def _one(point: DecisionPoint, item: Evaluation | Flaw) -> Answer:
    if isinstance(item, Flaw):
        return _failed(_BAD_REQUEST, item.message)
    try:
        return point.evaluate(item)
    except InputError as error:
        return _failed(_BAD_REQUEST, error.message)
    except AccessDenied as error:
        return _failed(_FORBIDDEN, error.message)


def _failed(status: int, message: str) -> Answer:
    return Answer(decision=False, context={"error": {"status": status, "message": message}})
