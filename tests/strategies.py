# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies for policies and requests, for every test that compares two answers.

``policies()`` gives checked snapshots, ``policy_documents()`` the plain documents behind them (JSON is YAML),
``requests_for(snapshot)`` a mix of hits, near misses and hostile requests against one of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from everyhop.policy import Operation, RuleEffect, Segment, SegmentKind, Snapshot, parse_policy

SERVICES = ("alpha", "beta", "gamma", "delta", "omega-1")
OPERATIONS = ("list", "read", "create", "Remove", "_x-1")
LITERALS = (
    "a",
    "b",
    "orders",
    "Admin",
    "admin",
    "@me",
    "a:b",
    "v1.0",
    "x+y",
    "~u",
    "!",
    "(z)",
    "*",
    "...",
    "-",
)
PARAMETERS = ("id", "x", "y_2")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
GRPC = ("shop.v1.Orders/Watch", "Orders/List", "orders.Admin/Drop")
STRANGERS = (
    "spiffe://shop.example/service/nobody",
    "spiffe://shop.example/service/alph",
    "spiffe://shop.example/service/alphaa",
    "spiffe://shop.example/service/alpha/x",
    "spiffe://shop.example/service/Alpha",
    "spiffe://other.example/service/alpha",
    "spiffe://shop.example",
    "SPIFFE://shop.example/service/alpha",
    "alpha",
    "",
)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP call: SPIFFE ID of the caller, service name, method and raw path as on the wire."""

    caller: str
    target: str
    method: str
    path: str


_SEGMENTS = st.sampled_from((*LITERALS, *[None] * (2 * len(LITERALS) // 3)))
_METHODS = st.sampled_from(METHODS)
_SOME_SERVICES = st.lists(st.sampled_from(SERVICES), min_size=1, max_size=4, unique=True)
_GRPC = st.sampled_from(GRPC)
_FORMS = st.sampled_from(("text", "text", "text", "route", "grpc", "websocket"))

# --- policies ----------------------------------------------------------------------------------------------------


@st.composite
def templates(draw: st.DrawFn) -> str:
    """A path template of up to four segments."""
    parts = draw(st.lists(_SEGMENTS, max_size=3))
    parts = [f"{{{PARAMETERS[index]}}}" if part is None else part for index, part in enumerate(parts)]
    parts += (
        draw(st.sampled_from(((), (), ("",), ("{rest...}",))))
        if parts
        else draw(st.sampled_from((("",), ("{rest...}",))))
    )
    return "/" + "/".join(parts)


@st.composite
def operations(draw: st.DrawFn) -> Any:
    """One operation in any of its forms."""
    form = draw(_FORMS)
    if form == "grpc":
        return {"grpc": draw(_GRPC)}
    template = draw(templates())
    if form == "websocket":
        return {"websocket": template}
    text = f"{draw(_METHODS)} {template}"
    return {"route": text} if form == "route" else text


def _shape(operation: Any) -> tuple[str, ...]:
    """What two operations of one service must not share, computed here a second time on purpose."""
    if isinstance(operation, dict):
        form, text = next(iter(operation.items()))
        prefix = {"grpc": "POST /", "websocket": "GET ", "route": ""}[form]
        operation = prefix + text
    method, _, path = operation.partition(" ")
    segments = ("{...}" if s.endswith("...}") else "{}" if s.startswith("{") else s for s in path.split("/"))
    return method, *segments


@st.composite
def services(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """The entry of one service."""
    entry: dict[str, Any] = {}
    if draw(st.booleans()):
        entry["workload"] = [{"run": True}, {"unix": {"user": name, "uid": draw(st.integers(0, 2**32 - 2))}}]
    if draw(st.integers(0, 8)) == 8:
        return {**entry, "tcp": draw(st.integers(1, 65535))}
    doors = draw(st.lists(operations(), max_size=5, unique_by=_shape))
    probes = draw(st.integers(0, min(2, len(doors))))
    probed = [door for door in doors[:probes] if not (isinstance(door, dict) and "websocket" in door)]
    named = [door for door in doors if door not in probed][: len(OPERATIONS)]
    if probed:
        entry["probes"] = probed
    if named:
        entry["operations"] = dict(zip(OPERATIONS, named, strict=False))
    return entry


@st.composite
def _rules(draw: st.DrawFn, declared: dict[str, Any], *, is_deny: bool) -> dict[str, Any] | None:
    """One rule that the declared services admit, or None where they admit none."""
    names = sorted(declared)
    some = st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)
    rule: dict[str, Any] = {"from": draw(st.just("any") | st.sampled_from(names) | some)}
    http = [n for n in names if declared[n].get("operations")]
    tcp = [n for n in names if "tcp" in declared[n]]
    kind = draw(st.sampled_from(("one", "any", "tcp", "all")))
    if kind == "tcp":
        if not tcp:
            return None
        rule["to"] = draw(st.sampled_from(tcp))
    elif kind == "any":
        rule["to"] = "any"
        known = sorted({o for n in http for o in declared[n]["operations"]})
        if is_deny and (not known or draw(st.booleans())):
            return rule
        if not known:
            return {**rule, "operations": "all"}
        rule["operations"] = draw(st.just("all") | st.lists(st.sampled_from(known), min_size=1, unique=True))
    else:
        if not http:
            return None
        target = rule["to"] = draw(st.sampled_from(http))
        if is_deny and draw(st.booleans()):
            return rule
        known = sorted(declared[target]["operations"])
        rule["operations"] = (
            "all" if kind == "all" else draw(st.lists(st.sampled_from(known), min_size=1, unique=True))
        )
    if is_deny and draw(st.booleans()):
        rule["reason"] = "because"
    return rule


@st.composite
def policy_documents(draw: st.DrawFn) -> dict[str, Any]:
    """A valid policy as a plain document."""
    names = draw(_SOME_SERVICES)
    declared = {name: draw(services(name)) for name in names}
    document: dict[str, Any] = {"version": 1, "trust_domain": "shop.example", "services": declared}
    for key, limit in (("allow", 8), ("deny", 2)):
        rules = draw(st.lists(_rules(declared, is_deny=key == "deny"), max_size=limit))
        rules = [rule for rule in rules if rule is not None]
        if rules:
            document[key] = rules
    return document


def to_files(document: dict[str, Any], name: str = "policy.yaml") -> dict[str, bytes]:
    """The document as the one file of a policy."""
    return {name: json.dumps(document, ensure_ascii=False).encode()}


def policies() -> st.SearchStrategy[Snapshot]:
    """Checked snapshots of one to five services."""
    return policy_documents().map(lambda document: parse_policy(to_files(document)))


# --- requests ----------------------------------------------------------------------------------------------------

_VALUES = (
    "1",
    "a",
    "b",
    "orders",
    "admin",
    "42",
    "x%20y",
    "%C3%A9",
    "%40me",
    "a%3Ab",
    "@me",
    "a:b",
    "%2a",
    "[]",
    "'",
    "=,",
)

# What field notes, authorization, section 6 lists for paths, each applied to a path that would otherwise match.
HOSTILE: tuple[tuple[str, str], ...] = (
    ("double slash in front", "/{path}"),
    ("triple slash in front", "//{path}"),
    ("authority", "//evil.example{path}"),
    ("dot segment behind", "{path}/."),
    ("dot segments in front", "/public/..{path}"),
    ("dot segments mixed", "/public/./..{path}"),
    ("dot segments encoded", "/public/%2e%2e{path}"),
    ("dot segments half encoded", "/public/.%2e{path}"),
    ("climb to the root and back", "{path}/../..{path}"),
    ("slash encoded", "/public%2f..%2f{bare}"),
    ("slash encoded upper case", "/%2F{bare}"),
    ("backslash", "/public\\..\\{bare}"),
    ("backslash encoded", "/public%5c..%5c{bare}"),
    ("double encoding", "/%252e%252e%252f{bare}"),
    ("unreserved encoded", "{encoded_first}"),
    ("last character encoded", "{encoded_last}"),
    ("upper case", "{upper}"),
    ("swapped case", "{swapped}"),
    ("trailing slash", "{path}/"),
    ("trailing double slash", "{path}//"),
    ("slash missing", "{shortened}"),
    ("matrix parameter", "{path};x=1"),
    ("matrix parameter before dots", "/public;/..{path}"),
    ("semicolon encoded", "{path}%3bx=1"),
    ("NUL", "{path}%00"),
    ("line feed", "{path}%0a"),
    ("delete", "{path}%7f"),
    ("raw line feed", "{path}\n"),
    ("raw space", "{path} "),
    ("raw tab", "\t{path}"),
    ("query", "{path}?x=/public"),
    ("query with dots", "{path}?../..//"),
    ("query encoded", "{path}%3fx=1"),
    ("fragment", "{path}#x"),
    ("fragment encoded", "{path}%23x"),
    ("absolute form", "http://evil.example{path}"),
    ("asterisk form", "*"),
    ("no leading slash", "{bare}"),
    ("empty", ""),
    ("authority marker", "@evil.example{path}"),
    ("broken triplet", "{path}%"),
    ("half a triplet", "{path}%4"),
    ("no triplet", "{path}%zz"),
    ("percent encoded", "{path}%25"),
    ("overlong slash", "/public%c0%af{bare}"),
    ("not ASCII", "{path}\u00e9"),
    ("full-width slash", "/public\uff0f{bare}"),
    ("quotes", '{path}"'),
    ("braces", "{path}{{id}}"),
    ("pipe", "{path}|x"),
    ("caret", "{path}^"),
    ("backtick", "{path}`"),
    ("angle", "{path}<x>"),
    ("guarded characters encoded", "{encoded_reserved}"),
)


def _hostile(pattern: str, path: str) -> str:
    first = f"/%{ord(path[1]):02x}{path[2:]}" if len(path) > 1 else "/%2f"
    last = f"{path[:-1]}%{ord(path[-1]):02X}"
    reserved = "".join(f"%{ord(c):02X}" if c in "!$&'()*+,=:@" else c for c in path)
    return pattern.format(
        path=path,
        bare=path[1:],
        upper=path.upper(),
        swapped=path.swapcase(),
        shortened=path.rstrip("/"),
        encoded_first=first,
        encoded_last=last,
        encoded_reserved=reserved,
    )


@st.composite
def _fill(draw: st.DrawFn, segments: tuple[Segment, ...]) -> str:
    parts: list[str] = []
    for segment in segments:
        if segment.kind is SegmentKind.LITERAL:
            parts.append(segment.text)
        elif segment.kind is SegmentKind.PARAMETER:
            parts.append(draw(st.sampled_from(_VALUES)))
        else:
            parts.append("/".join(draw(st.lists(st.sampled_from(_VALUES), max_size=3))))
    return "/" + "/".join(parts)


@st.composite
def _near(draw: st.DrawFn, path: str) -> str:
    """A path that differs in one segment."""
    segments = path[1:].split("/")
    at = draw(st.integers(0, len(segments) - 1))
    value = draw(st.sampled_from((*LITERALS, *_VALUES)))
    change = draw(st.sampled_from(("replace", "insert", "remove", "append")))
    if change == "replace":
        segments[at] = value
    elif change == "insert":
        segments.insert(at, value)
    elif change == "remove":
        del segments[at]
    else:
        segments[at] += value
    return "/" + "/".join(segments)


@st.composite
def requests_for(draw: st.DrawFn, snapshot: Snapshot) -> Request:
    """A request against a snapshot: a hit, a near miss, or hostile."""
    names = sorted(snapshot.services)
    known = [str(snapshot.services[name].spiffe_id) for name in names]
    caller = draw(st.sampled_from(known) if draw(st.integers(0, 7)) < 7 else st.sampled_from(STRANGERS))
    target = draw(
        st.sampled_from(names)
        if draw(st.integers(0, 15)) < 15
        else st.sampled_from(("nobody", "", "Alpha", "any"))
    )
    service = snapshot.services.get(target)
    doors: list[Operation] = [*service.operations, *service.probes] if service else []
    if not doors:
        return Request(
            caller, target, draw(st.sampled_from(METHODS)), draw(st.sampled_from(("/", "/a", "*")))
        )
    door = draw(st.sampled_from(doors))
    rules = [
        r
        for r in snapshot.rules
        if r.effect is RuleEffect.ALLOW and (r.targets is None or target in r.targets)
    ]
    if rules and draw(st.booleans()):
        # Without this most requests would be refused for several reasons at once.
        rule = draw(st.sampled_from(rules))
        caller = str(snapshot.services[draw(st.sampled_from(sorted(rule.callers or names)))].spiffe_id)
        allowed = [d for d in doors if rule.operations is None or d.name in rule.operations]
        door = draw(st.sampled_from(allowed)) if allowed else door
    route = door.route
    path = draw(_fill(route.segments))
    other = st.sampled_from((*METHODS, "get", "GETX", "CONNECT", "TRACE", "PATCH", ""))
    method = draw(other) if draw(st.integers(0, 7)) == 7 else route.method
    mode = draw(st.sampled_from(("hit", "hit", "near", "hostile", "hostile", "text")))
    if mode == "near":
        path = draw(_near(path))
    elif mode == "hostile":
        path = _hostile(draw(st.sampled_from(HOSTILE))[1], path)
    elif mode == "text":
        path = draw(st.text(st.characters(max_codepoint=0x2FF), max_size=12).map(lambda text: "/" + text))
    return Request(caller, target, method, path)


# --- policies with conditions, roles, a directory and shadow -------------------------------------------------------

ROLES = ("viewer", "clerk", "auditor")
FACTS: dict[str, tuple[Any, ...]] = {
    "clearance": (None, 0, 1, 2, 3),
    "hour": (None, 6, 7),
    "region": (None, "eu", "us"),
    "device": (None, True, False),
}
"""What the conditions below read, and every value at which one of them turns; None is unknown."""

CONDITIONS: tuple[tuple[str, frozenset[str]], ...] = (
    ("user.clearance >= 2", frozenset({"clearance"})),
    ("user.clearance >= 1", frozenset({"clearance"})),
    ("user.clearance == 3 || device.managed", frozenset({"clearance", "device"})),
    ("now.getHours('UTC') < 7", frozenset({"hour"})),
    ("!(now.getHours('UTC') >= 7) && request.headers['x-region'] == 'eu'", frozenset({"hour", "region"})),
    ("request.headers['x-region'] == 'eu'", frozenset({"region"})),
    ("'x-region' in request.headers", frozenset({"region"})),
    ("device.managed", frozenset({"device"})),
    ("'clerk' in user.roles", frozenset()),
    ("has_all(user.roles, ['viewer', 'clerk'])", frozenset()),
    ("caller.team == 'red'", frozenset()),
    ("caller.name != 'beta'", frozenset()),
)
_USER_CONDITIONS = tuple(text for text, _ in CONDITIONS)
_OTHER_CONDITIONS = tuple(text for text, _ in CONDITIONS if "user." not in text)


@st.composite
def fact_documents(draw: st.DrawFn) -> dict[str, Any]:
    """A valid policy whose answers hang on facts."""
    document = draw(policy_documents())
    document["attributes"] = {
        "user": {"clearance": draw(st.sampled_from(("int", {"type": "int", "default": 2})))},
        "device": {"managed": "bool"},
        "service": {"team": "string"},
        "request": {"headers": ["x-region"]},
    }
    for entry in document["services"].values():
        if draw(st.booleans()):
            entry["attributes"] = {"team": draw(st.sampled_from(("red", "blue")))}
    doors = [
        f"{name}.{operation}"
        for name, entry in document["services"].items()
        for operation in entry.get("operations", {})
    ]
    if doors and draw(st.booleans()):
        grants = st.lists(st.sampled_from(doors), min_size=1, max_size=3, unique=True)
        document["roles"] = {role: draw(grants) for role in ROLES[: draw(st.integers(1, 3))]}
        # Without this, roles would seldom stand where a rule asks for them.
        service, operation = draw(st.sampled_from(doors)).split(".")
        rule = {"from": "any", "to": service, "operations": [operation], "user": "required"}
        document["allow"] = [*document.get("allow", []), rule]
        if draw(st.booleans()):
            known = st.sampled_from(sorted(document["roles"]))
            document["directory"] = {"users": {"dora": {"roles": [draw(known)]}}}
    for key in ("allow", "deny"):
        for rule in document.get(key, ()):
            _with_facts(draw, rule, is_deny=key == "deny", document=document)
    if draw(st.integers(0, 7)) == 7:
        document["shadow"] = [{"from": "any", "to": draw(st.sampled_from(sorted(document["services"])))}]
    return document


def _with_facts(draw: st.DrawFn, rule: dict[str, Any], *, is_deny: bool, document: dict[str, Any]) -> None:
    """Give a rule a user, a condition and a mode, or none of them."""
    to = rule["to"] if isinstance(rule["to"], list) else [rule["to"]]
    is_tcp = any("tcp" in document["services"].get(name, {}) for name in to)
    mode = "none" if is_deny or is_tcp else draw(st.sampled_from(("none", "none", "optional", "required")))
    if mode != "none":
        rule["user"] = mode
    if draw(st.booleans()):
        texts = _USER_CONDITIONS if is_deny or mode != "none" else _OTHER_CONDITIONS
        rule["when"] = draw(st.sampled_from(texts))
    if draw(st.integers(0, 7)) == 7:
        rule["mode"] = "shadow"


@st.composite
def changed_documents(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A policy and what somebody made of it: rules, conditions, roles, doors and services that change."""
    old = draw(fact_documents())
    new = json.loads(json.dumps(old))
    for _ in range(draw(st.integers(1, 5))):
        _edit(draw, new)
    return old, new


def _edit(draw: st.DrawFn, document: dict[str, Any]) -> None:
    kinds = ("rule", "when", "user", "door", "mode", "team", "shadow")
    people = ("roles", "roles", "roles", "person") if "roles" in document else ()
    kind = draw(st.sampled_from((*people, *kinds)))
    rules = [(key, n) for key in ("allow", "deny") for n in range(len(document.get(key, ())))]
    if kind == "shadow":
        document.pop("shadow", None)
    elif kind == "person":
        role = draw(st.sampled_from(sorted(document["roles"])))
        document["directory"] = {"users": {draw(st.sampled_from(("dora", "emil"))): {"roles": [role]}}}
    elif kind == "roles":
        doors = [f"{n}.{o}" for n, e in sorted(document["services"].items()) for o in e.get("operations", {})]
        role = draw(st.sampled_from(sorted(document["roles"])))
        document["roles"][role] = draw(st.lists(st.sampled_from(doors), min_size=1, unique=True))
    elif kind == "team":
        entry = document["services"][draw(st.sampled_from(sorted(document["services"])))]
        entry["attributes"] = {"team": draw(st.sampled_from(("red", "blue")))}
    elif kind == "door":
        _edit_door(draw, document)
    elif rules:
        key, number = draw(st.sampled_from(rules))
        rule = document[key][number]
        if kind == "rule":
            del document[key][number]
            if not document[key]:
                del document[key]
        elif kind == "when":
            with_user = key == "deny" or "user" in rule
            rule["when"] = draw(st.sampled_from(_USER_CONDITIONS if with_user else _OTHER_CONDITIONS))
        elif (
            kind == "user" and key == "allow" and "operations" in rule and "user." not in rule.get("when", "")
        ):
            rule["user"] = draw(st.sampled_from(("none", "optional", "required")))
        elif kind == "mode":
            rule["mode"] = draw(st.sampled_from(("shadow", "enforce")))


def _edit_door(draw: st.DrawFn, document: dict[str, Any]) -> None:
    """Give one operation another route."""
    entries = [entry for entry in document["services"].values() if entry.get("operations")]
    if not entries:
        return
    entry = draw(st.sampled_from(entries))
    name = draw(st.sampled_from(sorted(entry["operations"])))
    route = draw(operations())
    others = [door for other, door in entry["operations"].items() if other != name] + entry.get("probes", [])
    if _shape(route) not in {_shape(door) for door in others}:
        entry["operations"][name] = route
