# SPDX-License-Identifier: Apache-2.0
"""A plan for people: what opens first, then what closes, then the rest.  Lines with a mark, for a terminal to colour."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from everyhop.authz.difference.describing import command
from everyhop.authz.difference.model import Change, Weight

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from everyhop.authz.difference.model import Plan

MAX_GROUPS: Final = 40
MAX_DOORS: Final = 4


class Mark(StrEnum):
    """What kind of line it is."""

    TITLE = "title"
    WIDER = "wider"
    NARROWER = "narrower"
    PLAIN = "plain"
    DETAIL = "detail"


Line = tuple[Mark, str]


def render(plan: Plan) -> Iterator[Line]:
    """Yield the lines of a plan."""
    if plan.is_same:
        words = (
            "the same policy"
            if plan.before == plan.after
            else "the texts differ, and no call is answered otherwise"
        )
        yield Mark.TITLE, f"nothing changes: {words}"
        return
    yield Mark.TITLE, summary(plan)
    yield from _changes("WIDER: allowed from now on", plan.gained, Mark.WIDER, "+")
    yield from _terms("WIDER: asks for less, or believes more", plan, is_tighter=False)
    yield from _changes("narrower: denied from now on", plan.lost, Mark.NARROWER, "-")
    yield from _terms("narrower: asks for more, or believes less", plan, is_tighter=True)
    if plan.routes:
        yield Mark.TITLE, "requests that come to another operation"
        for route in plan.routes[:MAX_GROUPS]:
            arrow = f"{route.before or 'none'} -> {route.after or 'none'}"
            yield Mark.PLAIN, f"  ~ {route.target}: {route.method} {route.path}: {arrow}"
        yield from _left_out(len(plan.routes) - MAX_GROUPS)
    if plan.unexplored:
        yield Mark.WIDER, "NOT EXPLORED COMPLETELY: there may be more changes than these"
        for gap in plan.unexplored[:MAX_GROUPS]:
            yield Mark.WIDER, f"  ? {gap.callers} -> {gap.target}.{gap.door}: {gap.why}"
        yield from _left_out(len(plan.unexplored) - MAX_GROUPS)


def summary(plan: Plan) -> str:
    """Return the plan in one line."""
    looser = sum(term.weight is not Weight.TIGHTER for term in plan.terms)
    parts = [
        f"{len(plan.gained)} gained",
        f"{len(plan.lost)} lost",
        f"{looser} terms looser" if looser else "",
        f"{len(plan.terms) - looser} terms tighter" if len(plan.terms) > looser else "",
        f"{len(plan.routes)} routes changed" if plan.routes else "",
        f"{len(plan.unexplored)} places not explored completely" if plan.unexplored else "",
    ]
    verdict = "access WIDENS" if plan.is_wider else "access does not widen"
    return f"{verdict}: {', '.join(part for part in parts if part)}"


def _changes(title: str, changes: Sequence[Change], mark: Mark, sign: str) -> Iterator[Line]:
    """Yield changes; those of the same callers, users and rule are one entry with one example."""
    groups: dict[object, list[Change]] = {}
    for change in changes:
        rules = change.example.before.rule, change.example.after.rule
        key = (str(change.callers), change.users, change.depends, rules, change.example.after.reason)
        groups.setdefault(key, []).append(change)
    if not groups:
        return
    yield Mark.TITLE, f"{title} ({len(changes)})"
    for members in list(groups.values())[:MAX_GROUPS]:
        first = members[0]
        doors = sorted({f"{change.target}.{change.door}" for change in members})
        shown = ", ".join(doors[:MAX_DOORS])
        shown += f" and {len(doors) - MAX_DOORS} more" if len(doors) > MAX_DOORS else ""
        who = "" if first.users is None else f" {first.users}"
        yield mark, f"  {sign} {first.callers} -> {shown}{who}{', under some facts' if first.depends else ''}"
        before, after = first.example.before, first.example.after
        yield Mark.DETAIL, f"      {_said(before.reason, before.rule)}  =>  {_said(after.reason, after.rule)}"
        yield Mark.DETAIL, f"      {command(first.example)}"
    yield from _left_out(len(groups) - MAX_GROUPS)


def _said(reason: str, rule: str | None) -> str:
    return f"{reason} ({rule})" if rule else str(reason)


def _terms(title: str, plan: Plan, *, is_tighter: bool) -> Iterator[Line]:
    terms = [term for term in plan.terms if (term.weight is Weight.TIGHTER) is is_tighter]
    if not terms:
        return
    mark, sign = (Mark.NARROWER, "-") if is_tighter else (Mark.WIDER, "+")
    yield Mark.TITLE, f"{title} ({len(terms)})"
    for term in terms[:MAX_GROUPS]:
        who = "" if term.callers is None else f" for {term.callers}"
        yield mark, f"  {sign} {term.subject}{who}: {term.what}: {term.before} -> {term.after}"
    yield from _left_out(len(terms) - MAX_GROUPS)


def _left_out(count: int) -> Iterator[Line]:
    if count > 0:
        yield Mark.PLAIN, f"  … and {count} more (-o json shows all)"
