# SPDX-License-Identifier: Apache-2.0
"""What the owner may ask about decisions that were made: why one was as it was, and what all of them add up to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from starlette.routing import Route

from everyhop.anomaly.model import BlockMode
from everyhop.api.http import moment_of, reply
from everyhop.auditlog import Point
from everyhop.authz import Engine
from everyhop.authz.recorded import Recorded, explain_recorded
from everyhop.control.authzen_record import explain_record, is_evaluation
from everyhop.core.clock import rfc3339
from everyhop.core.decision import Reason
from everyhop.core.errors import InputError
from everyhop.policy.model import OUTSIDE
from everyhop.tokens.codes import meaning_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from everyhop.auditlog import Record
    from everyhop.control.messages import BlockView
    from everyhop.control.service import ControlPlane
    from everyhop.core.decision import Decision
    from everyhop.policy.model import Snapshot


_MODES: Final = {BlockMode.BLOCK: "blocked", BlockMode.QUARANTINE: "quarantined"}


def insight_routes(control: ControlPlane) -> list[Route]:
    """Return the routes of the owner's door that add decisions up."""

    async def tally(request: Request) -> Response:
        since = moment_of(request.query_params.get("since"))
        if since is None:
            raise InputError("since when?", hint="e.g. since=2026-01-31T09:00:00Z")
        only_shadow = request.query_params.get("shadow") == "1"
        return reply(await control.log.tally(since, only_shadow=only_shadow))

    return [Route("/v1/tally", tally)]


def told(record: Record, snapshot: Snapshot | None) -> dict[str, object]:
    """Return what ``everyhop why`` shows of a record; ``snapshot`` is the policy of then, None where none was asked."""
    answer: dict[str, object] = {"record": record, "explanation": None}
    if snapshot is None:
        return answer
    if is_evaluation(record):
        answer["text"], asked = explain_record(Engine(snapshot), record)
        return answer | {"explanation": None if asked is None else asked.to_dict(), "basis": "derived"}
    seen = _seen(record)
    if (
        seen.reason == Reason.BLOCKED
    ):  # which is no word of the policy's: what it says of the call is asked anew
        seen = replace(seen, reason="", rule=None)
    explanation, is_derived = explain_recorded(Engine(snapshot), seen)
    answer["basis"] = "derived" if is_derived else "recorded"
    if not is_derived:
        answer["recorded"] = {
            "facts": [part for part in seen.facts.split("; ") if part],
            "user": seen.user,
            "would": seen.would,
            "would_reason": seen.would_reason,
            "would_rule": seen.would_rule,
        }
    text = ""
    if explanation is not None:
        answer["explanation"] = explanation.to_dict()
        text = explanation.render()
    if (credential := _credential(record)) is not None:
        answer["credential"] = credential
        rest = f"without that:\n{text}" if text else "without that, facts of the call would have decided"
        text = f"{_refused(record, credential)}\n\n{rest}"
    elif is_derived and explanation is not None and _is_own_refusal(record, explanation.decision):
        text = f"{_refused_by_application(record)}\n\nwithout that:\n{text}"
    elif explanation is None:
        text = "facts of the call decide at the callee, whose decision is a record of its own"
    answer["text"] = text
    return answer


def told_of_block(answer: dict[str, object], block: BlockView | None) -> dict[str, object]:
    """Return what ``everyhop why`` says of a blocked call, before what it says of the policy."""
    rest = f"\n\nwithout that:\n{answer['text']}" if answer.get("text") else ""
    if block is None:
        text = (
            "deny: somebody who acted in this call was blocked then, and is not any more\n"
            "  who blocked and lifted, and why: everyhop log show --all"
        )
        return {"block": None, "text": text + rest}
    until = "until somebody lifts it" if block.until is None else f"until {rfc3339(block.until)}"
    text = (
        f"deny: {block.subject} is {_MODES[block.mode]}, before any rule of the policy is asked\n"
        f"  by {block.by} since {rfc3339(block.since)}, {until}: {block.reason}\n"
    )
    if block.finding is not None:
        text += f"  the finding: everyhop why {block.finding}\n"
    text += f"  to lift it: everyhop unblock {block.service or block.subject} --reason '…'"
    return {"block": block, "text": text + rest}


def _seen(record: Record) -> Recorded:
    detail = {name: str(value) for name, value in record.detail.items() if value is not None}
    has_path = bool(record.method and record.path)
    return Recorded(
        caller=OUTSIDE if record.point is Point.EDGE else str(record.caller),
        target=str(record.target),
        effect=str(record.decision),
        reason=str(record.reason),
        rule=record.rule,
        operation=record.operation,
        method=record.method if has_path else None,
        path=record.path if has_path else None,
        facts=detail.get("facts", ""),
        user=detail.get("user"),
        would=detail.get("would"),
        would_reason=detail.get("would_reason"),
        would_rule=detail.get("would_rule"),
    )


def _is_own_refusal(record: Record, policy: Decision) -> bool:
    """Tell whether an application refused what the policy opens."""
    return record.point is Point.SDK and record.decision == "deny" and policy.is_allowed


def _refused_by_application(record: Record) -> str:
    said = record.detail.get("detail") or "it does not say why"
    return (
        f"deny: the policy opens this call, but the application of {record.target} refused it "
        f"[{record.detail.get('code') or record.reason}]\n  it says: {said}"
    )


def _credential(record: Record) -> dict[str, str] | None:
    """Return what was wrong with a call that the policy lets in; None for every other decision."""
    found = None if record.reason is None else meaning_of(record.reason)
    return None if found is None else {"code": str(record.reason), "meaning": found[0], "fix": found[1]}


def _refused(record: Record, credential: dict[str, str]) -> str:
    where = f"{record.operation} of {record.target}"
    text = f"deny: the policy opens {where} to this caller, but its credential was refused [{credential['code']}]"
    return f"{text}\n  {credential['meaning']}\n  to mend it: {credential['fix']}"
