# SPDX-License-Identifier: Apache-2.0
"""A proof for people and for programs; the JSON is the contract of ``policy prove -o json``."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from everyhop.evaluators.model import Wire
from everyhop.proving.model import TokenState, Verdict
from everyhop.targets.model import Feature

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from everyhop.proving.model import Ask, Difference, Proof, TargetReport

MAX_SHOWN: Final = 20
"""Differences of one kind that are shown to people; JSON has all."""

_LONG: Final = 200


_ACCEPTED: Final = {
    Feature.AMBIGUOUS_PATHS: "the proxy rewrites the path first and forwards what it decided on",
    Feature.IDENTITY: "pods are known by their labels here",
    Feature.PROBES: "a pod's own node is always let in",
    Feature.EGRESS: "hygiene of routing, and no proof of it",
}


class Mark(StrEnum):
    """What kind of line it is."""

    TITLE = "title"
    WIDER = "wider"
    NARROWER = "narrower"
    DETAIL = "detail"


def describe(proof: Proof) -> dict[str, Any]:
    """Return a proof as JSON values."""
    return {
        "verdict": proof.verdict.value,
        "requests": proof.requests,
        "counterexamples": [_entry(one) for report in proof.targets.values() for one in report.wider],
        "narrower": [_entry(one) for report in proof.targets.values() for one in report.narrower],
        "accepted": [_entry(one) for report in proof.targets.values() for one in report.accepted],
        "targets": {name: _summary(report) for name, report in proof.targets.items()},
    }


def _summary(report: TargetReport) -> dict[str, Any]:
    return {
        "verdict": report.verdict.value,
        "requests": report.requests,
        "beside": list(report.beside),
        "wider": sum(one.count for one in report.wider),
        "narrower": sum(one.count for one in report.narrower),
        "unannounced": sum(one.count for one in report.unannounced),
        "accepted": sum(one.count for one in report.accepted),
    }


def _entry(found: Difference) -> dict[str, Any]:
    ask = found.ask
    entry: dict[str, Any] = {
        "target": found.target,
        "service": ask.service,
        "door": ask.door,
        "says": words_of(found),
        "feature": ask.aspect.value,
        "request": request_of(ask),
        "policy": {"effect": found.policy.says.value, "why": found.policy.why},
        "enforced": {
            "effect": "allow" if found.outcome.allowed else "deny",
            "why": found.outcome.why,
            "by": found.outcome.by,
            "at": found.place,
        },
        "alike": found.count,
    }
    if found.covered_by is not None:
        entry["covered_by"] = found.covered_by
    if not found.outcome.allowed:
        entry["announced"] = list(found.announced)
    if found.accepted is not None:
        entry["accepted"] = found.accepted.value
    return entry


def request_of(ask: Ask) -> dict[str, Any]:
    """Return a request as JSON values: enough to send it."""
    request = ask.request
    entry: dict[str, Any] = {
        "from": {
            "name": ask.caller.name,
            "kind": ask.caller.kind.value,
            "namespace": request.source.namespace,
            "service_account": request.source.service_account,
            "labels": dict(request.source.labels),
            "ip": request.source.ip,
            "certificate": request.peer,
        },
        "to": {"service": ask.service, "namespace": request.target.namespace, "port": request.port},
        "wire": request.wire.value,
    }
    if request.wire is not Wire.TCP:
        entry |= {"method": request.method, "path": request.path, "host": request.host}
    if request.headers:
        entry["headers"] = {name: list(lines) for name, lines in request.headers.items()}
    if ask.token is not TokenState.NONE:
        entry["token"] = ask.token.value
    if request.token is not None:
        entry["token_claims"] = {
            "iss": request.token.issuer, "sub": request.token.subject, "aud": list(request.token.audiences), **request.token.claims,
        }  # fmt: skip
    if not ask.is_body_valid:
        entry["body"] = "refused by its schema"
    user = ask.context.user
    if user is not None:
        entry["user"] = {"id": user.id, "roles": list(user.roles)}
    return entry


def words_of(found: Difference) -> str:
    """Return a difference as one sentence."""
    ask = found.ask
    outcome = found.outcome
    verb = "gets through" if outcome.allowed else "is refused"
    by = "" if outcome.by is None else f": {outcome.by}"
    place = "" if found.place is None else f" ({found.place})"
    why = f": {outcome.why}" if outcome.by is None else f", {outcome.why}"
    covered = "" if found.covered_by is None else f"; only {found.covered_by} refuses it"
    return f"{ask.service}: {_call(ask)} from {_caller(ask)}{_with(ask)} {verb}{by}{place}{why}{covered}"


def _call(ask: Ask) -> str:
    request = ask.request
    if ask.is_egress:
        return f"leaving for {request.dns_name}:{request.port}"
    if ask.is_bound:
        where = request.target.namespace or "the world outside"
        return f"a connection to {request.target.name} in {where}, port {request.port},"
    if request.wire is Wire.TCP:
        return f"a connection to port {request.port}"
    path = (
        request.path
        if len(request.path) <= _LONG
        else f"{request.path[:60]}... ({len(request.path)} characters)"
    )
    return f"{request.method} {path}"


def _caller(ask: Ask) -> str:
    return (
        f"`{ask.caller.name}`"
        if ask.caller.policy_id is not None and " " not in ask.caller.name
        else ask.caller.name
    )


def _with(ask: Ask) -> str:
    found = [ask.variation] if ask.variation else []
    user = ask.context.user
    if user is not None:
        found.append(
            f"user {user.id}" + (f" with roles {', '.join(user.roles)}" if user.roles else " without roles")
        )
    return f" ({'; '.join(found)})" if found else ""


def render(proof: Proof) -> Iterator[tuple[Mark, str]]:
    """Yield the lines of a proof, the worst first."""
    for report in proof.targets.values():
        beside = f" with {', '.join(report.beside)}" if report.beside else ""
        yield Mark.TITLE, f"{report.target}{beside}: {_verdict(report)}, {report.requests} requests asked"
        yield from _lines(report.wider, Mark.WIDER, "WIDER")
        yield from _lines(report.unannounced, Mark.NARROWER, "narrower, and nothing said so")
        announced = [one for one in report.narrower if one.announced]
        yield from _lines(announced, Mark.NARROWER, "narrower")
        yield from _lines(report.accepted, Mark.DETAIL, "accepted")


def _verdict(report: TargetReport) -> str:
    match report.verdict:
        case Verdict.EQUAL:
            return "equal to the policy"
        case Verdict.NARROWER:
            return (
                "narrower than the policy"
                if report.unannounced
                else "narrower than the policy, as compiling said"
            )
        case _:
            return "WIDER than the policy"


def _lines(found: Sequence[Difference], mark: Mark, words: str) -> Iterator[tuple[Mark, str]]:
    for one in found[:MAX_SHOWN]:
        more = f" (and {one.count - 1} alike)" if one.count > 1 else ""
        yield mark, f"  {words}: {words_of(one)}{more}"
        if one.accepted is not None:
            yield (
                Mark.DETAIL,
                f"    accepted: {_ACCEPTED.get(one.accepted, f'nobody here holds {one.accepted.value}')}",
            )
        elif not one.outcome.allowed and one.announced:
            yield Mark.DETAIL, f"    said by {', '.join(one.announced)}"
        else:
            yield Mark.DETAIL, f"    the policy: {one.policy.says.value}, {one.policy.why}"
    if len(found) > MAX_SHOWN:
        yield Mark.DETAIL, f"  ... and {len(found) - MAX_SHOWN} more of these; -o json shows all"
