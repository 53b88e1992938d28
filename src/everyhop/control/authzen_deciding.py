# SPDX-License-Identifier: Apache-2.0
"""The engine's answer to one question of AuthZEN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.core.decision import Decision

if TYPE_CHECKING:
    from everyhop.anomaly.model import Block
    from everyhop.authz import Engine
    from everyhop.control.authzen_mapping import Question

UNKNOWN_RESOURCE: Final = "unknown-resource"
"""The reason for a resource of a type that the policy does not declare."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision, and whether it was made about the request of the question (or its operation's name alone).

    ``block`` is why it is a denial, where somebody who acts is blocked.
    """

    decision: Decision
    is_request: bool
    block: Block | None = None


def decide_question(engine: Engine, question: Question) -> Decided:
    """Decide as the sidecar of the target would, where the question is one request; by the operation's name else.

    A request that would come to another operation than the one that is asked about says nothing about this one.
    """
    caller, target, context = question.caller, question.target or "", question.context
    if question.method is not None and question.path is not None:
        decision = engine.decide(
            caller=caller, target=target, method=question.method, path=question.path, context=context
        )
        if question.door is None or decision.operation == question.door:
            return Decided(decision, is_request=True)
    door = question.door or ""
    decision = engine.decide_door(caller=caller, target=target, door=door, context=context)
    return Decided(decision, is_request=False)
