# SPDX-License-Identifier: Apache-2.0
"""A plan for programs: plain values of JSON, whose members are only ever added to (docs/reference/plan.md)."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from everyhop.policy.facts_text import facts_document

if TYPE_CHECKING:
    from everyhop.authz.difference.model import Callers, Change, Example, Plan, TermChange, Users
    from everyhop.core.decision import Decision


def describe(plan: Plan) -> dict[str, Any]:
    """Return all of a plan."""
    return {
        "before": plan.before,
        "after": plan.after,
        "same": plan.is_same,
        "wider": plan.is_wider,
        "gained": [_change(change) for change in plan.gained],
        "lost": [_change(change) for change in plan.lost],
        "terms": [_term(term) for term in plan.terms],
        "routes": [
            {
                "service": route.target,
                "call": f"{route.method} {route.path}",
                "before": route.before,
                "after": route.after,
            }
            for route in plan.routes
        ],
        "unexplored": [
            {"service": gap.target, "door": gap.door, "callers": gap.callers, "why": gap.why}
            for gap in plan.unexplored
        ],
        "counts": counts(plan),
    }


def counts(plan: Plan) -> dict[str, int]:
    """Return how much of each there is, and how much work it was."""
    return {
        "gained": len(plan.gained),
        "lost": len(plan.lost),
        "terms": len(plan.terms),
        "routes": len(plan.routes),
        "unexplored": len(plan.unexplored),
        "doors_equal": plan.compared,
        "doors_asked": plan.explored,
        "requests": plan.evaluated,
    }


def command(example: Example) -> str:
    """Return the command that asks about an example, to be pasted into a shell; add ``--policy`` to ask another policy."""
    call = "tcp" if example.method is None else f"{example.method} {example.path}"
    parts = ["everyhop", "can", example.caller, call, example.target, "--facts", _facts(example)]
    return shlex.join(parts)


def _facts(example: Example) -> str:
    return json.dumps(facts_document(example.context), ensure_ascii=True, separators=(", ", ": "))


def _change(change: Change) -> dict[str, Any]:
    example = change.example
    return {
        "callers": _callers(change.callers),
        "service": change.target,
        "door": change.door,
        "door_before": change.before,
        "door_after": change.after,
        "users": None if change.users is None else _users(change.users),
        "depends_on_facts": change.depends,
        "example": {
            "caller": example.caller,
            "service": example.target,
            "call": "tcp" if example.method is None else f"{example.method} {example.path}",
            "facts": facts_document(example.context),
            "before": _decision(example.before),
            "after": _decision(example.after),
            "command": command(example),
        },
    }


def _callers(callers: Callers) -> dict[str, Any]:
    return {"group": callers.group.value, "names": list(callers.names), "count": callers.count}


def _users(users: Users) -> dict[str, Any]:
    return {
        "nobody": users.is_nobody,
        "id": users.id,
        "roles": list(users.roles),
        "alike": list(users.alike),
        "text": str(users),
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return {"effect": decision.effect.value, "reason": decision.reason.value, "rule": decision.rule}


def _term(term: TermChange) -> dict[str, Any]:
    return {
        "subject": term.subject,
        "what": term.what,
        "before": str(term.before),
        "after": str(term.after),
        "weight": term.weight.value,
        "callers": None if term.callers is None else _callers(term.callers),
    }
