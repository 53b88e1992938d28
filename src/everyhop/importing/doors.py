# SPDX-License-Identifier: Apache-2.0
"""From what rules of a source say about one service to its operations, and to rules about those."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from everyhop.importing.model import DraftRule, DraftTest
from everyhop.importing.templates import ONE, REST, Template, closed, contains, example, write_template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from everyhop.core.problems import Span
    from everyhop.importing.model import DraftService

STRANGER: Final = "spiffe://{}/everyhop-import/nobody"
_MAX_NAME: Final = 56  # leaves room for a number; a name of an operation has at most 64 characters


class Says(StrEnum):
    """What a claim says."""

    ALLOW = "allow"
    DENY = "deny"
    NEEDS_USER = "needs-user"  # a call there has to be made for a user, whoever allows it


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """The user whom a call has to be made for: ``when`` in the policy's words, and an example for a test."""

    when: str | None = None
    example: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One rule of the source about one service.

    ``callers`` of None are everybody.  ``covers`` tells of a template, closed under intersection with ``templates``, whether the
    claim is about it: one that allows only where it surely is, any other wherever it may be.  ``opens`` are the templates in
    which all lies that it allows.  ``when`` is a condition in the policy's words, ``headers`` those of a call that meets it.
    """

    says: Says
    callers: frozenset[str] | None
    methods: frozenset[str]
    templates: tuple[Template, ...]
    covers: Callable[[Template], bool]
    note: str
    span: Span
    opens: tuple[Template, ...] = ()
    user: User | None = None
    when: str | None = None
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class _Door:
    name: str
    method: str
    template: Template


def build_doors(service: DraftService, claims: Iterable[Claim], any_user: User | None) -> list[DraftRule]:
    """Give a service its operations and return the rules about them, in the order of the claims.

    ``any_user`` stands for "some user" where a claim asks for one and another allows without.  Raises InputError where paths
    overlap in too many ways.
    """
    kept = list(claims)
    doors = _doors(kept)
    service.operations = {door.name: f"{door.method} {write_template(door.template)}" for door in doors}
    rules: list[DraftRule] = []
    for claim in kept:
        if claim.says is Says.ALLOW:
            rules += _allowing(service, claim, kept, doors, any_user)
        elif claim.says is Says.DENY:
            names = tuple(door.name for door in doors if _covers(claim, door))
            if names:
                rules.append(
                    DraftRule(
                        effect="deny",
                        callers=None if claim.callers is None else tuple(sorted(claim.callers)),
                        target=service.name,
                        operations=None if len(names) == len(doors) else names,
                        note=claim.note,
                        when=claim.when,
                    )
                )
    return list(_joined(rules))


def _joined(rules: Iterable[DraftRule]) -> Iterator[DraftRule]:
    """Yield the rules, those that differ in their operations alone as one: a source has one rule with several places."""
    found: dict[DraftRule, list[str] | None] = {}
    for rule in rules:
        key = replace(rule, operations=())
        if key not in found:
            found[key] = None if rule.operations is None else []
        names = found[key]
        if names is None or rule.operations is None:
            found[key] = None
        else:
            names += [name for name in rule.operations if name not in names]
    for key, names in found.items():
        yield replace(key, operations=None if names is None else tuple(names))


def _doors(claims: list[Claim]) -> list[_Door]:
    """Return the doors that some claim opens, closed under intersection with all that any claim names."""
    by_method: dict[str, set[Template]] = defaultdict(set)
    opened: dict[str, set[Template]] = defaultdict(set)
    for claim in claims:
        for method in claim.methods:
            by_method[method] |= set(claim.templates)
            if claim.says is Says.ALLOW:
                opened[method] |= set(claim.opens)
    names: dict[str, int] = {}
    found = []
    for method in sorted(opened):
        found += [
            _Door(_name(method, template, names), method, template)
            for template in closed(by_method[method])
            if any(contains(wide, template) for wide in opened[method])
        ]
    return sorted(found, key=lambda door: (door.template, door.method))


def _name(method: str, template: Template, taken: dict[str, int]) -> str:
    words = ["any" if part == "{...}" else "one" if part == "{}" else part for part in template if part]
    name = re.sub(r"[^a-z0-9]+", "-", "-".join([method.lower(), *words]).lower()).strip("-")[:_MAX_NAME]
    count = taken[name] = taken.get(name, 0) + 1
    return name if count == 1 else f"{name}_{count}"


def _covers(claim: Claim, door: _Door) -> bool:
    return door.method in claim.methods and claim.covers(door.template)


def _allowing(
    service: DraftService, claim: Claim, claims: list[Claim], doors: list[_Door], any_user: User | None
) -> Iterator[DraftRule]:
    plain: list[str] = []
    for_users: list[str] = []
    for door in doors:
        if _covers(claim, door):
            needs = claim.user is not None or any(
                other.says is Says.NEEDS_USER and _covers(other, door) and _share(claim, other)
                for other in claims
            )
            (for_users if needs else plain).append(door.name)
    user = claim.user or any_user
    for names, needed in ((plain, False), (for_users, True)):
        if not names or (needed and user is None):
            continue
        whens = [text for text in (claim.when, user.when if needed and user is not None else None) if text]
        yield DraftRule(
            effect="allow",
            callers=None if claim.callers is None else tuple(sorted(claim.callers)),
            target=service.name,
            operations=tuple(names),
            note=claim.note,
            needs_user=needed,
            when=" && ".join(f"({text})" for text in whens)
            if len(whens) > 1
            else whens[0]
            if whens
            else None,
        )


def _share(left: Claim, right: Claim) -> bool:
    return left.callers is None or right.callers is None or bool(left.callers & right.callers)


def example_tests(
    service: DraftService, claims: Iterable[Claim], callers: Iterable[str], any_user: User | None, domain: str
) -> list[DraftTest]:
    """Return tests of a service which follow from the claims, and not from the rules that were made of them.

    For each claim that allows: a caller who is let in, one whom no claim lets in, and one whom another claim refuses; and once a
    stranger.  An example path is tried as the template that it is.
    """
    kept = list(claims)
    known = sorted(callers)
    tests: dict[tuple[Any, ...], DraftTest] = {}
    for claim in kept:
        if claim.says is Says.ALLOW and claim.methods:
            for template in claim.opens[:1]:
                call = f"{min(claim.methods)} {example(template)}"
                if not tests:
                    stranger = STRANGER.format(domain)
                    _add(tests, DraftTest(caller=stranger, target=service.name, call=call, allows=False))
                _add(tests, _refused(service, call, kept, known))
            _add(tests, _allowed(service, claim, kept, known, any_user))
        if claim.says is Says.DENY and claim.methods:
            _add(tests, _denied(service, claim, kept, known))
    return list(tests.values())


def _add(tests: dict[tuple[Any, ...], DraftTest], test: DraftTest | None) -> None:
    if test is not None:
        tests.setdefault((test.caller, test.call, test.allows, test.user is None), test)


def _speaks(claim: Claim, call: str, caller: str) -> bool:
    """Tell whether a claim says something of one call."""
    method, _, path = call.partition(" ")
    about = method in claim.methods and claim.covers(tuple(path[1:].split("/")))
    return about and (claim.callers is None or caller in claim.callers)


def _examples(claim: Claim) -> Iterator[str]:
    for template in filter(claim.covers, claim.opens):
        for method in sorted(claim.methods):
            yield f"{method} {example(template)}"


def _allowed(
    service: DraftService, claim: Claim, claims: list[Claim], known: list[str], any_user: User | None
) -> DraftTest | None:
    for caller in sorted(claim.callers) if claim.callers is not None else known:
        for call in _examples(claim):
            others = [one for one in claims if one.says is not Says.ALLOW and _near(one, call, caller)]
            needs = claim.user is not None or any(one.says is Says.NEEDS_USER for one in others)
            user = claim.user or any_user
            spoken = _speaks(claim, call, caller)
            if not spoken or any(one.says is Says.DENY for one in others) or (needs and user is None):
                continue
            return DraftTest(
                caller=caller,
                target=service.name,
                call=call,
                allows=True,
                user=dict(user.example) if needs and user is not None else None,
                headers=dict(claim.headers) if claim.headers else None,
            )
    return None


def _near(claim: Claim, call: str, caller: str) -> bool:
    """Tell whether a claim speaks of a call, or of an operation that the call may come to."""
    method, _, path = call.partition(" ")
    template = tuple(path[1:].split("/"))
    wider = [(*template[:cut], REST) for cut in range(len(template))]
    wider += [
        tuple(ONE if index == at else part for index, part in enumerate(template))
        for at in range(len(template))
    ]
    return (
        method in claim.methods
        and any(map(claim.covers, (template, *wider)))
        and (claim.callers is None or caller in claim.callers)
    )


def _refused(service: DraftService, call: str, claims: list[Claim], known: list[str]) -> DraftTest | None:
    for caller in known:
        if not any(claim.says is Says.ALLOW and _speaks(claim, call, caller) for claim in claims):
            return DraftTest(caller=caller, target=service.name, call=call, allows=False)
    return None


def _denied(service: DraftService, claim: Claim, claims: list[Claim], known: list[str]) -> DraftTest | None:
    """Return a call that one claim allows and this one denies."""
    for template in claim.templates:
        call = f"{min(claim.methods)} {example(template)}"
        for caller in sorted(claim.callers) if claim.callers is not None else known:
            allowed = any(one.says is Says.ALLOW and _speaks(one, call, caller) for one in claims)
            if caller in known and allowed and _speaks(claim, call, caller):
                return DraftTest(caller=caller, target=service.name, call=call, allows=False)
    return None
