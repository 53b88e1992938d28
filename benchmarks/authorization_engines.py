# SPDX-License-Identifier: Apache-2.0
"""The engines of ``bench_authorization.py``: each loads a case in the way that suits it best, and answers requests.

An engine is a function from a case to ``prepare`` (a request to whatever the engine takes, not timed) and ``ask``
(that to a bool, timed).  ``AbsentError`` is raised where an engine, or what a suite needs of it, is not installed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from benchmarks.authorization_cases import ACTIONS, DOMAIN, RESOURCES, expanded


class AbsentError(Exception):
    """This engine cannot answer this suite here."""


# --- everyhop ------------------------------------------------------------------------------------------------------


def everyhop(case):
    """Text to policy to engine: what people run.  A user's roles and attributes are handed over with each request."""
    from everyhop.authz import Engine
    from everyhop.policy import parse_policy

    if case.suite == "edges":
        context_of = None
    else:
        try:
            from everyhop.authz import Context, User
        except ImportError as error:
            raise AbsentError("this version knows no conditions and no roles") from error
        context_of = _contexts(case.suite, Context, User)
    snapshot = parse_policy(policy_of(case))
    decide = Engine(snapshot).decide
    ids = {name: str(service.spiffe_id) for name, service in snapshot.services.items()}

    def prepare(request):
        facts = (request.user, request.roles, request.department, request.clearance)
        return ids[request.caller], request.target, request.method, request.path, facts

    if context_of is None:

        def ask(question):
            caller, target, method, path, _ = question
            return decide(caller=caller, target=target, method=method, path=path).is_allowed

    else:

        def ask(question):
            caller, target, method, path, facts = question
            context = context_of(facts)
            return decide(caller=caller, target=target, method=method, path=path, context=context).is_allowed

    return prepare, ask


def _contexts(suite, context, user):
    if suite == "roles":
        return lambda facts: context(user=user(id=facts[0], roles=facts[1]))
    return lambda facts: context(
        user=user(id=facts[0], attributes={"department": facts[2], "clearance": facts[3]})
    )


def policy_of(case):
    """Return the files of a case's policy."""
    head = {"version": 1, "trust_domain": DOMAIN, "services": {}}
    services = head["services"]
    if case.suite == "roles":
        routes = {action: f"{method} {template}" for action, (method, template) in ACTIONS.items()}
        services |= {f"t{k}": {"operations": routes} for k in range(RESOURCES)} | {"front": {}}
        head["roles"] = {
            role: {"grants": [f"{target}.{action}" for target, action in grants]}
            | ({"includes": case.includes[role]} if case.includes[role] else {})
            for role, grants in case.grants.items()
        }
        targets = [f"t{k}" for k in range(RESOURCES)]
        head["allow"] = [{"from": "front", "to": targets, "operations": "all", "user": "required"}]
        return {"0.yaml": json.dumps(head).encode()}
    allow = []
    for edge in case.edges:
        services.setdefault(edge.caller, {})
        entry = services.setdefault(edge.target, {"operations": {}})
        entry["operations"][edge.resource] = f"{edge.method} /v1/{edge.resource}/{{id}}"
        rule = {"from": edge.caller, "to": edge.target, "operations": [edge.resource]}
        if edge.department is not None:
            rule["user"] = "required"
            rule["when"] = f"user.department == '{edge.department}' && user.clearance >= {edge.clearance}"
        allow.append(rule)
    if case.suite == "conditions":
        head["attributes"] = {"user": {"department": "string", "clearance": "int"}}
    files = {"0.yaml": json.dumps(head).encode()}
    step = 20_000  # a file has at most 4 MiB
    for start in range(0, len(allow), step):
        files[f"1-{start:09}.yaml"] = json.dumps(
            {"version": 1, "allow": allow[start : start + step]}
        ).encode()
    return files


# --- plain Python: the least that could be done ------------------------------------------------------------------------


def scan(case):
    """Look at one rule after the other, with compiled regular expressions; for roles, at one role after the other."""
    if case.suite == "roles":
        grants = expanded(case)
        return (
            lambda r: (r.roles, (r.target, r.action)),
            lambda q: any(q[1] in grants[role] for role in q[0]),
        )
    rules = [
        (e.caller, e.target, e.method, re.compile(f"/v1/{e.resource}/[^/]+"), e.department, e.clearance)
        for e in case.edges
    ]

    def ask(q):
        caller, target, method, path, department, clearance = q
        return any(
            c == caller
            and t == target
            and m == method
            and x.fullmatch(path)
            and d == department
            and clearance >= least
            for c, t, m, x, d, least in rules
        )

    return lambda r: (r.caller, r.target, r.method, r.path, r.department, r.clearance), ask


# --- pycasbin ----------------------------------------------------------------------------------------------------------

_CASBIN = """
[request_definition]
r = {request}
[policy_definition]
p = {policy}
{roles}
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = {matcher}
"""


def pycasbin(case):
    import casbin

    edge = "r.sub == p.sub && r.dom == p.dom && r.act == p.act && keyMatch2(r.path, p.path)"
    model = casbin.Model()
    if case.suite == "edges":
        parts = ("sub, dom, act, path", "sub, dom, act, path", "", edge)
        rules = [[e.caller, e.target, e.method, f"/v1/{e.resource}/:id"] for e in case.edges]
    elif case.suite == "conditions":
        # Casbin's values are text; one digit compares as its number does.
        fields = "sub, dom, act, path, department, clearance"
        condition = " && r.department == p.department && r.clearance >= p.clearance"
        parts = (fields, fields, "", edge + condition)
        rules = [
            [e.caller, e.target, e.method, f"/v1/{e.resource}/:id", e.department, str(e.clearance)]
            for e in case.edges
        ]
    else:
        matcher = "r.obj == p.obj && r.act == p.act && g(r.sub, p.sub)"  # the cheap comparisons first
        parts = ("sub, obj, act", "sub, obj, act", "[role_definition]\ng = _, _", matcher)
        rules = [[role, target, action] for role, grants in case.grants.items() for target, action in grants]
    model.load_model_from_text(
        _CASBIN.format(**dict(zip(("request", "policy", "roles", "matcher"), parts, strict=True)))
    )
    enforcer = casbin.Enforcer(model)
    enforcer.add_policies(rules)
    if case.suite == "roles":
        links = [[user, role] for user, roles in case.users.items() for role in roles]
        links += [[role, other] for role, others in case.includes.items() for other in others]
        enforcer.add_grouping_policies(links)
        return lambda r: (r.user, r.target, r.action), lambda q: enforcer.enforce(*q)
    if case.suite == "conditions":
        return (
            lambda r: (r.caller, r.target, r.method, r.path, r.department, str(r.clearance)),
            lambda q: enforcer.enforce(*q),
        )
    return lambda r: (r.caller, r.target, r.method, r.path), lambda q: enforcer.enforce(*q)


# --- cedarpy -----------------------------------------------------------------------------------------------------------


def cedarpy(case):
    import cedarpy as cedar

    entities = "[]"
    if case.suite == "roles":
        texts = [
            f'permit(principal in Role::"{role}", action == Action::"{action}", resource == Service::"{target}");'
            for role, grants in case.grants.items()
            for target, action in grants
        ]
        nodes = [("User", user, roles) for user, roles in case.users.items()]
        nodes += [("Role", role, others) for role, others in case.includes.items()]
        entities = json.dumps(
            [
                {
                    "uid": {"type": kind, "id": name},
                    "attrs": {},
                    "parents": [{"type": "Role", "id": r} for r in roles],
                }
                for kind, name, roles in nodes
            ]
        )
    else:
        texts = []
        for e in case.edges:
            condition = f'context.path like "/v1/{e.resource}/*"'
            if e.department is not None:
                condition += (
                    f' && context.department == "{e.department}" && context.clearance >= {e.clearance}'
                )
            texts.append(
                f'permit(principal == Service::"{e.caller}", action == Action::"{e.method}", '
                f'resource == Service::"{e.target}") when {{ {condition} }};'
            )
    policies = cedar.PolicySet.from_str("\n".join(texts))
    held = cedar.Entities.from_json_str(entities)

    def prepare(request):
        context = {"path": request.path}
        if case.suite == "conditions":
            context |= {"department": request.department, "clearance": request.clearance}
        is_user = case.suite == "roles"
        return {
            "principal": f'User::"{request.user}"' if is_user else f'Service::"{request.caller}"',
            "action": f'Action::"{request.action if is_user else request.method}"',
            "resource": f'Service::"{request.target}"',
            "context": {} if is_user else context,
        }

    return prepare, lambda q: cedar.is_authorized(q, policies, held).allowed


# --- Rego: one policy for regopy and for OPA, its data indexed in the order of the question ----------------------------

_REGO = {
    "edges": """package authz
default allow := false
allow if {
	count(input.path) == 3
	input.path[0] == "v1"
	data.edges[input.target][input.method][input.path[1]][input.caller]
}
""",
    "conditions": """package authz
default allow := false
allow if {
	count(input.path) == 3
	input.path[0] == "v1"
	rule := data.edges[input.target][input.method][input.path[1]][input.caller]
	rule.department == input.user.department
	input.user.clearance >= rule.clearance
}
""",
    "roles": """package authz
default allow := false
allow if {
	some role in data.users[input.user]
	data.grants[role][input.resource][input.action]
}
""",
}


@dataclass(frozen=True)
class Rego:
    """A policy with its data, and how a request becomes its input."""

    policy: str
    data: dict
    suite: str

    def input_of(self, request):
        if self.suite == "roles":
            return {"user": request.user, "resource": request.target, "action": request.action}
        found = {
            "caller": request.caller,
            "target": request.target,
            "method": request.method,
            "path": request.path[1:].split("/"),  # as OPA's Envoy plugin hands it over (parsed_path)
        }
        if self.suite == "conditions":
            found["user"] = {"department": request.department, "clearance": request.clearance}
        return found


def rego_of(case):
    """Return a case in Rego."""
    if case.suite == "roles":
        grants = {}
        for role, found in expanded(case).items():
            entry = grants.setdefault(role, {})
            for target, action in sorted(found):
                entry.setdefault(target, {})[action] = True
        return Rego(
            _REGO["roles"],
            {"grants": grants, "users": {u: list(roles) for u, roles in case.users.items()}},
            "roles",
        )
    edges = {}
    for e in case.edges:
        entry = edges.setdefault(e.target, {}).setdefault(e.method, {}).setdefault(e.resource, {})
        entry[e.caller] = (
            True if e.department is None else {"department": e.department, "clearance": e.clearance}
        )
    return Rego(_REGO[case.suite], {"edges": edges}, case.suite)


def regopy(case):
    from regopy import Input, Interpreter

    rego = rego_of(case)
    interpreter = Interpreter()
    interpreter.add_module("authz.rego", rego.policy)
    interpreter.add_data(rego.data)
    bundle = interpreter.build("answer = data.authz.allow")

    def ask(question):
        interpreter.set_input(Input(question))
        return interpreter.query_bundle(bundle)[0]["answer"] is True

    return rego.input_of, ask


ENGINES = {"everyhop": everyhop, "scan": scan, "cedarpy": cedarpy, "pycasbin": pycasbin, "regopy": regopy}
