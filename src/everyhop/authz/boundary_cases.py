# SPDX-License-Identifier: Apache-2.0
"""Test cases on both sides of what conditions and users turn on, with the answer that the engine gives now.

They are for review: a person says whether each answer is the right one, and then it stays so.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from everyhop.authz._boundaries import Choice, search
from everyhop.conditions import Clause, Truth
from everyhop.conditions.analysis import boundaries
from everyhop.core.clock import rfc3339
from everyhop.policy.access import TCP, concerns, doors_of_rule
from everyhop.policy.facts import MULTI_FACTOR, NOTHING_KNOWN, Context, Resource, User
from everyhop.policy.model import OUTSIDE, Mode, RuleEffect, SegmentKind, UserMode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from everyhop.authz.engine import Door, Engine
    from everyhop.core.decision import Decision
    from everyhop.policy.facts import Value
    from everyhop.policy.model import Rule

MAX_CASES: Final = 40
"""Cases for one rule."""

_CALLERS: Final = 4
_PER_NAME: Final = 3  # values of one name on each side
_MAPS: Final = re.compile(r"request\.(query|headers|path_params)\['([^']+)'\]")
_SEGMENT: Final = "-._~!$&'()*+,=:@"
_SOMEONE: Final = "someone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One call with its facts, the answer of now, and the rule that it was made for."""

    rule: Rule
    caller: str
    target: str
    method: str | None
    path: str | None
    context: Context
    decision: Decision

    def entry(self) -> str:
        """Return it as an entry of ``tests``: flow YAML on one line, without its dash."""
        call = "tcp: true" if self.method is None else f"call: {_quoted(f'{self.method} {self.path}')}"
        facts = "".join(f", {fact}" for fact in _facts(self.context))
        return (
            f"{{from: {self.caller}, {call}, to: {self.target}{facts}, expect: {self.decision.effect.value}}}"
        )


def boundary_cases(engine: Engine) -> list[Case]:
    """Return cases for every rule that has a condition or is about users, in the policy's order; deterministic."""
    found: list[Case] = []
    for rule in engine.snapshot.rules:
        if rule.condition is None and rule.user is UserMode.NONE:
            continue
        cases: dict[str, Case] = {}
        for case in _cases(engine, rule):
            cases.setdefault(case.entry(), case)
            if len(cases) == MAX_CASES:
                break
        found += cases.values()
    return found


def _cases(engine: Engine, rule: Rule) -> Iterator[Case]:
    for target, name in doors_of_rule(rule, engine.snapshot):
        door = engine.door(target, name)
        if door is not None:
            for caller in _callers(engine, rule, target):
                yield from _Asked(engine, rule, door, caller).cases()


def _callers(engine: Engine, rule: Rule, target: str) -> list[str]:
    """Return one caller that a rule is about, not the target itself where there is another; more if it looks at callers."""
    names = [name for name in engine.snapshot.services if concerns(rule, name)]
    others = [name for name in names if name != target] or names
    if concerns(rule, OUTSIDE):
        others = [*others[: _CALLERS - 1], OUTSIDE]
    reads = frozenset[str]() if rule.condition is None else rule.condition.variables
    return others[: _CALLERS if any(name.startswith("caller.") for name in reads) else 1]


@dataclass(slots=True)
class _Asked:
    engine: Engine
    rule: Rule
    door: Door
    caller: str
    _barring: tuple[Rule, ...] = ()

    def cases(self) -> Iterator[Case]:
        own = {} if self.rule.condition is None else self._names(self.rule)
        self._barring = self._deny_rules()
        names = dict(own)
        for rule in self._barring:
            for name, values in self._names(rule).items():
                names[name] = tuple(dict.fromkeys((*names.get(name, ()), *values)))
        best, truth = search(names, self._judge)
        yield from self._case(best)
        for name, values in own.items():
            yield from self._around(best, truth, name, values)
            yield from self._case({**best, name: None})
        if self.rule.user is not UserMode.NONE:
            yield from self._case(best, has_user=False)
            yield from self._case(best, has_roles=False)

    def _around(self, best: Choice, truth: Truth, name: str, values: tuple[object, ...]) -> Iterator[Case]:
        """Yield the cases in which one name has another value: some with the same answer, some with another."""
        counts = {True: 0, False: 0}
        for value in values:
            choice = {**best, name: value}
            is_same = self._judge(choice)[0] is truth
            if counts[is_same] < _PER_NAME:
                counts[is_same] += 1
                yield from self._case(choice)

    def _names(self, rule: Rule) -> dict[str, tuple[object, ...]]:
        found = {} if rule.condition is None else dict(boundaries(rule.condition))
        return {name: kept for name, values in found.items() if (kept := self._possible(name, values))}

    def _deny_rules(self) -> tuple[Rule, ...]:
        """Return the deny rules with conditions that would hide what an allow rule says."""
        if self.rule.effect is RuleEffect.DENY:
            return ()
        further = self.door.access.further_for(self.caller)
        return tuple(
            r
            for r in further
            if r.effect is RuleEffect.DENY and r.condition is not None and r.mode is Mode.ENFORCE
        )

    def _judge(self, choice: Choice) -> tuple[Truth, tuple[Clause, ...]]:
        """Tell whether the rule holds and no deny rule hides it; the clauses say how near it is."""
        method, path, context = self._made(choice)
        call = self.engine.call(self.door, self._id, context, method, path)
        clauses: list[Clause] = []
        truths = []
        for rule in (self.rule, *self._barring):
            if rule.condition is None:
                continue
            values = self.engine.facts.values(rule.condition, call)
            truth = rule.condition.evaluate(values).truth
            truths.append(truth is (Truth.TRUE if rule is self.rule else Truth.FALSE))
            clauses += rule.condition.explain(values) if rule is self.rule else ()
            if rule is not self.rule and truth is Truth.FALSE:
                clauses.append(Clause(rule.id, Truth.TRUE, {}))
        return (Truth.TRUE if all(truths) else Truth.FALSE), tuple(clauses)

    @property
    def _id(self) -> str:
        service = self.engine.snapshot.services.get(self.caller)
        return OUTSIDE if service is None else str(service.spiffe_id)

    def _case(self, choice: Choice, *, has_user: bool = True, has_roles: bool = True) -> Iterator[Case]:
        method, path, context = self._made(choice, has_user=has_user, has_roles=has_roles)
        target = self.door.target.name
        if method is None or path is None:
            decision = self.engine.decide_tcp(caller=self._id, target=target, context=context)
        elif self.engine.find(target, method, path) is not self.door:
            return  # this value cannot be sent in a path
        else:
            stated = None if context == NOTHING_KNOWN else context
            decision = self.engine.decide(
                caller=self._id, target=target, method=method, path=path, context=stated
            )
        yield Case(
            rule=self.rule,
            caller=self.caller,
            target=target,
            method=method,
            path=path,
            context=context,
            decision=decision,
        )

    # -- from values to a call

    def _possible(self, name: str, values: tuple[object, ...]) -> tuple[object, ...]:
        """Return the values that a test can state, () for what the call itself says."""
        if name.startswith(("caller.", "target.")) or name in {"operation", "request.method", "request.path"}:
            return ()
        return tuple(value for value in values if self._can_state(name, value))

    def _can_state(self, name: str, value: object) -> bool:
        if isinstance(value, dict):
            return all(isinstance(v, str) and v.isprintable() and k.isprintable() for k, v in value.items())
        texts = value if isinstance(value, tuple) else (value,)
        if any(isinstance(text, str) and not (text.isprintable() and len(text) <= 255) for text in texts):  # noqa: PLR2004  # what a subject may have
            return False
        if name == "user.roles" and isinstance(value, tuple):
            known = self._known_roles()
            return not known or known.issuperset(value)
        if name == "request.source_ip":
            return _is_address(value)
        needs_text = name in {"user.id", "user.issuer", "user.acr", "resource.id", "resource.type"}
        return value != "" or not (needs_text or "path_params" in name)

    def _known_roles(self) -> set[object]:
        roles = self.engine.snapshot.roles
        return {*roles, *(group for role in roles.values() for group in role.groups)}

    def _made(
        self, choice: Choice, *, has_user: bool = True, has_roles: bool = True
    ) -> tuple[str | None, str | None, Context]:
        parts: dict[str, dict[str, str]] = {"query": {}, "headers": {}, "path_params": {}}
        plain: dict[str, object] = {}
        for name, value in choice.items():
            keyed = _MAPS.fullmatch(name)
            if keyed and isinstance(value, str):
                parts[keyed[1]][keyed[2]] = value
            elif isinstance(value, dict):
                parts[name.partition(".")[2]].update(value)
            elif value is not None and not keyed:
                plain[name] = value
        declared = self.engine.snapshot.attributes.headers
        headers = {name: (text,) for name, text in parts["headers"].items() if name in declared}
        context = Context(
            now=_moment(plain.get("now")),
            user=self._user(plain, has_roles=has_roles) if has_user else None,
            device=_attributes(plain, "device.", ()),
            headers=MappingProxyType(headers),
            source_ip=_text(plain.get("request.source_ip")),
            resource=_resource(plain),
        )
        return (*self._call(parts["path_params"], parts["query"]), context)

    def _call(self, parameters: Mapping[str, str], query: Mapping[str, str]) -> tuple[str | None, str | None]:
        operation = self.door.operation
        if operation is None or self.door.name == TCP:
            return None, None
        segments = []
        for part in operation.route.segments:
            if part.kind is SegmentKind.LITERAL:
                segments.append(part.text)
            else:
                safe = _SEGMENT + ("/" if part.kind is SegmentKind.REST else "")
                segments.append(quote(parameters.get(part.text, "1"), safe=safe))
        text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query.items())
        return operation.route.method, "/" + "/".join(segments) + (f"?{text}" if text else "")

    def _user(self, plain: Mapping[str, object], *, has_roles: bool) -> User | None:
        names = ("id", "issuer", "roles", "mfa", "amr", "acr", "auth_time")
        attributes = _attributes(plain, "user.", names)
        stated = {name: plain[f"user.{name}"] for name in names if f"user.{name}" in plain}
        if not stated and not attributes and self.rule.user is UserMode.NONE:
            return None
        amr = stated.get("amr")
        if amr is None and "mfa" in stated:
            amr = (MULTI_FACTOR,) if stated["mfa"] is True else ()
        roles = stated.get("roles")
        if roles is None and has_roles and self.rule.effect is RuleEffect.ALLOW:
            roles = sorted(self.engine.permissions.granting(self.door.target.name, self.door.name))[:1]
        return User(
            id=_text(stated.get("id")) or _SOMEONE,
            issuer=_text(stated.get("issuer")),
            roles=tuple(str(role) for role in roles)
            if isinstance(roles, (tuple, list)) and has_roles
            else (),
            amr=tuple(str(method) for method in amr) if isinstance(amr, tuple) else None,
            acr=_text(stated.get("acr")),
            auth_time=_moment(stated.get("auth_time")),
            attributes=attributes,
        )


def _attributes(plain: Mapping[str, object], prefix: str, others: tuple[str, ...]) -> Mapping[str, Value]:
    found: dict[str, Value] = {}
    for name, value in plain.items():
        own = name.removeprefix(prefix)
        if name.startswith(prefix) and own not in others:
            assert isinstance(value, (bool, int, float, str, tuple, datetime))  # noqa: S101  # the boundaries' types
            found[own] = value
    return MappingProxyType(found)


def _resource(plain: Mapping[str, object]) -> Resource | None:
    if not any(name.startswith("resource.") for name in plain):
        return None
    return Resource(
        type=_text(plain.get("resource.type")),
        id=_text(plain.get("resource.id")),
        attributes=_attributes(plain, "resource.", ("type", "id")),
    )


def _facts(context: Context) -> Iterator[str]:
    """Yield the facts of a context as the keys of a test."""
    user, resource = context.user, context.resource
    if user is not None:
        fields: dict[str, object] = {} if user.id == _SOMEONE else {"id": user.id}
        fields |= {"issuer": user.issuer, "roles": user.roles or None, "amr": user.amr, "acr": user.acr}
        fields |= {"auth_time": user.auth_time, **user.attributes}
        yield f"user: {_table(fields)}"
    if context.now is not None:
        yield f"at: {_quoted(context.now)}"
    if context.headers:
        yield f"headers: {_table({name: lines[0] for name, lines in context.headers.items()})}"
    if context.source_ip is not None:
        yield f"source_ip: {_quoted(context.source_ip)}"
    if context.device:
        yield f"device: {_table(context.device)}"
    if resource is not None:
        yield f"resource: {_table({'type': resource.type, 'id': resource.id, **resource.attributes})}"


def _table(fields: Mapping[str, object]) -> str:
    shown = [f"{name}: {_quoted(value)}" for name, value in fields.items() if value is not None]
    return "{" + ", ".join(shown) + "}"


def _quoted(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_quoted(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return rfc3339(value).replace(".000000Z", "Z")
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", value)
        return value if plain else json.dumps(value, ensure_ascii=False)
    return repr(value)


def _moment(value: object) -> datetime | None:
    return value if isinstance(value, datetime) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _is_address(value: object) -> bool:
    try:
        ipaddress.ip_address(str(value))
    except ValueError:
        return False
    return True
