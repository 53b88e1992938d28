# SPDX-License-Identifier: Apache-2.0
"""Whatever the policy: what is written for Istio lets exactly those through whom the engine lets through.

The reader of the output stands here and knows Istio's words only: rules add up, templates are whole segments, ``notPaths`` takes off.
"""

import re
from itertools import product

from hypothesis import given, strategies as st
from tests.support.compiled import compiled

from everyhop.authz import Engine
from everyhop.policy import parse_policy

SERVICES = ("a", "b-c", "d")
SEGMENTS = ("x", "y", "{p}", "{q...}", "")
WORDS = ("x", "y", "z", "")
PATHS = sorted({"/" + "/".join(words) for size in (1, 2, 3) for words in product(WORDS, repeat=size)})
CHARACTER = r"[A-Za-z0-9._~%!$&'()*+,;:@=-]"


@st.composite
def routes(draw):
    parts = draw(st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=3))
    inner = [part for part in parts[:-1] if part not in {"", "{q...}"}]
    names = iter(("p", "r", "s"))
    shown = ["{" + next(names) + "}" if part == "{p}" else part for part in (*inner, parts[-1])]
    return f"{draw(st.sampled_from(('GET', 'POST')))} /{'/'.join(shown)}"


def shape(route):
    return re.sub(r"\{[a-z]\}", "{}", route)


@st.composite
def policies(draw):
    lines = ["services:"]
    operations = {}
    for name in SERVICES:
        found = draw(st.lists(routes(), min_size=1, max_size=4, unique_by=shape))
        operations[name] = [f"o{n}" for n in range(len(found))]
        listed = ", ".join(f'o{n}: "{route}"' for n, route in enumerate(found))
        lines.append(f"  {name}: {{operations: {{{listed}}}}}")
    lines.append("  db: {tcp: 5432}")
    for effect in ("allow", "deny"):
        rules = []
        for _ in range(draw(st.integers(1, 3))):
            caller = draw(st.sampled_from((*SERVICES, "any", "db", "outside")))
            target = draw(st.sampled_from((*SERVICES, "db")))
            reason = ", reason: no" if effect == "deny" else ""
            if target == "db":
                if caller != "outside":
                    rules.append(f"  - {{from: {caller}, to: db{reason}}}")
                continue
            chosen = draw(st.sets(st.sampled_from(operations[target]), min_size=1))
            rules.append(
                f"  - {{from: {caller}, to: {target}, operations: [{', '.join(sorted(chosen))}]{reason}}}"
            )
        if rules:
            lines += [f"{effect}:", *rules]
    lines += [
        "targets:", "  namespace: shop", "  gateway: {namespace: edge, service_account: gw}",
        "  istio: {accept: [ambiguous-paths]}", "  ambient: {accept: [ambiguous-paths], waypoint: wp}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def matches(pattern, path):
    """Tell whether a path of an operation matches: measured on Envoy's own templates, see the reference page."""
    parts = re.split(r"(\{\*\*\}|\{\*\})", pattern)
    expression = "".join(
        {"{*}": f"{CHARACTER}+", "{**}": f"(?:{CHARACTER}|/)*"}.get(part, re.escape(part)) for part in parts
    )
    return re.fullmatch(expression, path) is not None


def admits(rules, principal, method, path, port):
    for rule in rules:
        assert set(rule) <= {"from", "to"}
        if not any(principal in one["source"]["principals"] for one in rule["from"]):
            continue
        for one in (to["operation"] for to in rule["to"]):
            if "paths" in one and not any(matches(pattern, path) for pattern in one["paths"]):
                continue
            if any(matches(pattern, path) for pattern in one.get("notPaths", [])):
                continue
            if method in one.get("methods", [method]) and str(port) in one.get("ports", [str(port)]):
                return True
    return False


PRINCIPALS = {
    **{name: f"shop.example/ns/shop/sa/{name}" for name in (*SERVICES, "db")},
    "outside": "shop.example/ns/edge/sa/gw",
    "stranger": "shop.example/ns/shop/sa/stranger",
}
WAYPOINT = "shop.example/ns/shop/sa/wp"


@given(policies())
def test_the_output_admits_whom_the_engine_admits(text):
    made = compiled("istio", text)
    assert made.errors == set()
    policy = f"version: 1\ntrust_domain: shop.example\n{text}"
    engine = Engine(parse_policy({"p.yaml": policy.encode()}))
    for target in SERVICES:
        spec = made.spec("AuthorizationPolicy", f"allow-{target}")
        rules = spec["rules"] if spec else []
        for (caller, principal), method, path in product(PRINCIPALS.items(), ("GET", "POST", "PUT"), PATHS):
            if "//" in path:
                continue  # ambiguous, which this policy accepts to be held by nobody
            name = caller if caller == "outside" else f"spiffe://shop.example/service/{caller}"
            asked = engine.decide(caller=name, target=target, method=method, path=path).is_allowed
            assert admits(rules, principal, method, path, 8080) is asked, (caller, target, method, path)
            assert not admits(rules, principal, method, path, 8081)
    spec = made.spec("AuthorizationPolicy", "allow-db")
    for caller, principal in PRINCIPALS.items():
        name = caller if caller == "outside" else f"spiffe://shop.example/service/{caller}"
        asked = engine.decide_tcp(caller=name, target="db").is_allowed
        assert admits(spec["rules"] if spec else [], principal, "", "", 5432) is asked


@given(policies())
def test_every_principal_is_a_declared_one_and_every_pair_comes_from_a_grant(text):
    made = compiled("istio", text)
    known = set(PRINCIPALS.values()) - {PRINCIPALS["stranger"]}
    policy = f"version: 1\ntrust_domain: shop.example\n{text}"
    snapshot = parse_policy({"p.yaml": policy.encode()})
    engine = Engine(snapshot)
    callers = {principal: caller for caller, principal in PRINCIPALS.items()}
    for one in made.all("AuthorizationPolicy"):
        for rule in one["spec"].get("rules", []):
            (source,) = (source["source"] for source in rule["from"])
            assert source["principals"]
            assert set(source["principals"]) <= known
            assert one["spec"]["selector"]["matchLabels"]["app"] in (*SERVICES, "db")
            target = snapshot.services[one["spec"]["selector"]["matchLabels"]["app"]]
            for to, principal in product(rule["to"], source["principals"]):
                door = next((door.name for door in target.operations if _is(door, to["operation"])), "tcp")
                caller = callers[principal]
                name = caller if caller == "outside" else f"spiffe://shop.example/service/{caller}"
                assert engine.decide_door(caller=name, target=target.name, door=door).is_allowed


@given(policies())
def test_waypoint_and_ztunnel_together_admit_whom_the_engine_admits(text):
    made = compiled("ambient", text)
    assert made.errors == set()
    policy = f"version: 1\ntrust_domain: shop.example\n{text}"
    engine = Engine(parse_policy({"p.yaml": policy.encode()}))
    for target in SERVICES:
        allow, admit = (made.spec("AuthorizationPolicy", f"{word}-{target}") for word in ("allow", "admit"))
        at_waypoint, at_ztunnel = ((spec or {}).get("rules", []) for spec in (allow, admit))
        is_open = admits(at_ztunnel, WAYPOINT, "", "", 8080)
        assert not admits(at_ztunnel, WAYPOINT, "", "", 8081)
        for (caller, principal), method, path in product(PRINCIPALS.items(), ("GET", "POST", "PUT"), PATHS):
            assert not admits(at_ztunnel, principal, method, path, 8080)  # nobody goes around the waypoint
            if "//" in path:
                continue
            name = caller if caller == "outside" else f"spiffe://shop.example/service/{caller}"
            asked = engine.decide(caller=name, target=target, method=method, path=path).is_allowed
            passes = is_open and admits(at_waypoint, principal, method, path, 80)
            assert passes is asked, (caller, target, method, path)
    spec = made.spec("AuthorizationPolicy", "admit-db")
    for caller, principal in PRINCIPALS.items():
        name = caller if caller == "outside" else f"spiffe://shop.example/service/{caller}"
        asked = engine.decide_tcp(caller=name, target="db").is_allowed
        assert admits((spec or {}).get("rules", []), principal, "", "", 5432) is asked
    assert made.spec("AuthorizationPolicy", "allow-db") is None


def _is(door, operation):
    written = "/" + "/".join(
        {"parameter": "{*}", "rest": "{**}"}.get(s.kind, s.text) for s in door.route.segments
    )
    return operation.get("methods") == [door.route.method] and operation.get("paths") == [written]
