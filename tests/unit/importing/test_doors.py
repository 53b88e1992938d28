# SPDX-License-Identifier: Apache-2.0
"""Claims become operations and rules; the engine's answers are held against the claims themselves, call by call."""

import itertools
import random

import pytest

from everyhop.authz import Engine, run_tests
from everyhop.core.problems import Span
from everyhop.importing.doors import Claim, Says, User, build_doors, example_tests
from everyhop.importing.model import Draft, DraftService
from everyhop.importing.paths import matches_text, read_pattern
from everyhop.importing.templates import EVERYTHING
from everyhop.importing.writing import write_policy
from everyhop.policy import parse_policy
from everyhop.policy.facts import Context, User as PolicyUser

SPAN = Span(file="x.yaml", line=1, column=1)
CALLERS = ("ann", "bob", "eve")
METHODS = ("GET", "POST")
EXACT = ["/a", "/a/b", "/a/*", "/{*}", "/{*}/b", "/a/{*}", "/a/{**}", "/b/{*}/c", "*", "/b/"]
LOSSY = ["/a*", "*/b", "*b", "/ab*", "/b/c*", "*c"]
SEGMENTS = ("", "a", "ab", "b", "c")
PATHS = ["/" + "/".join(parts) for n in (1, 2, 3) for parts in itertools.product(SEGMENTS, repeat=n)]
CLEAN = [path for path in PATHS if "//" not in path]


def claim(says, callers, methods, paths, not_paths=(), user=None):
    named, refused = [read_pattern(p) for p in paths], [read_pattern(p) for p in not_paths]

    def surely(template):
        return (not named or any(p.covers(template) for p in named)) and not any(
            p.touches(template) for p in refused
        )

    def maybe(template):
        return (not named or any(p.touches(template) for p in named)) and not any(
            p.covers(template) for p in refused
        )

    opens = tuple(t for p in named for t in p.templates) if named else (EVERYTHING,)
    return Claim(
        says=says,
        callers=callers,
        methods=frozenset(methods),
        templates=(*opens, *(t for p in refused for t in p.templates)),
        opens=opens,
        covers=surely if says is Says.ALLOW else maybe,
        note="x",
        span=SPAN,
        user=user,
    )


def matches(pattern, path):
    """Tell whether Istio's pattern matches a path, by its words; templates by segments."""
    if "{*}" in pattern or "{**}" in pattern:
        mine, its = path.split("/"), pattern.split("/")
        if its[-1] == "{**}":
            mine = mine[: len(its) - 1] + ["/".join(mine[len(its) - 1 :])] * (len(mine) >= len(its))
        return len(mine) == len(its) and all(
            p == "{**}" or (p == "{*}" and bool(m)) or p == m for m, p in zip(mine, its, strict=True)
        )
    return matches_text(pattern, path)


def engine_of(claims, any_user=None):
    service = DraftService(name="door", identity="", namespace="n", account="door", labels={"app": "door"})
    draft = Draft(trust_domain="x.example", services={"door": service})
    for name in CALLERS:
        draft.services[name] = DraftService(
            name=name, identity="", namespace="n", account=name, labels={"app": name}
        )
    draft.rules = build_doors(service, claims, any_user)
    draft.tests = example_tests(service, claims, CALLERS, any_user, "x.example")
    draft.issuers = [{"issuer": "https://i.example", "audience": "x"}]
    snapshot = parse_policy({"x.yaml": write_policy(draft, "test")})
    return Engine(snapshot), snapshot


def random_rule(chance, patterns):
    return (
        None if chance.random() < 0.3 else frozenset(chance.sample(CALLERS, chance.randint(1, 2))),
        chance.sample(METHODS, chance.randint(1, 2)),
        chance.sample(patterns, chance.randint(1, 3)) if chance.random() < 0.9 else [],
        chance.sample(patterns, 1) if chance.random() < 0.2 else [],
    )


def covers(rule, caller, method, path):
    callers, methods, paths, not_paths = rule
    named = not paths or any(matches(p, path) for p in paths)
    return (
        (callers is None or caller in callers)
        and method in methods
        and named
        and not any(matches(p, path) for p in not_paths)
    )


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("patterns", [EXACT, EXACT + LOSSY], ids=["exact", "lossy"])
def test_the_engine_answers_as_the_rules_do_and_never_more_openly(seed, patterns):
    chance = random.Random(seed)
    allows = [random_rule(chance, patterns) for _ in range(3)]
    denies = [random_rule(chance, patterns) for _ in range(chance.randint(0, 2))]
    engine, snapshot = engine_of(
        [claim(Says.ALLOW, *rule) for rule in allows] + [claim(Says.DENY, *rule) for rule in denies]
    )
    opened = 0
    for caller, method, path in itertools.product(CALLERS, METHODS, CLEAN):
        decision = engine.decide(
            caller=f"spiffe://x.example/service/{caller}", target="door", method=method, path=path
        )
        source = any(covers(r, caller, method, path) for r in allows) and not any(
            covers(r, caller, method, path) for r in denies
        )
        if patterns is EXACT:
            assert decision.is_allowed == source, (caller, method, path)
        else:
            assert source or not decision.is_allowed, (caller, method, path)
        opened += decision.is_allowed
    assert snapshot.tests or not opened
    assert [result.problem().message for result in run_tests(snapshot) if not result.is_passed] == []


def test_where_a_user_is_asked_for_the_rule_of_another_asks_for_one_too():
    user = User(when="user.issuer == 'https://i.example'", example={"id": "u", "issuer": "https://i.example"})
    engine, _ = engine_of(
        [
            claim(Says.ALLOW, frozenset({"ann"}), ["GET"], ["/a", "/b"]),
            claim(Says.NEEDS_USER, None, ["GET"], ["/b"]),
        ],
        user,
    )
    someone = Context(user=PolicyUser(id="u", issuer="https://i.example"))

    def answer(path, context):
        return engine.decide(
            caller="spiffe://x.example/service/ann", target="door", method="GET", path=path, context=context
        ).is_allowed

    assert answer("/a", Context())
    assert answer("/b", someone)
    assert not answer("/b", Context())


def test_without_a_user_that_the_policy_can_name_nothing_is_written():
    engine, snapshot = engine_of(
        [
            claim(Says.ALLOW, frozenset({"ann"}), ["GET"], ["/b"]),
            claim(Says.NEEDS_USER, None, ["GET"], ["/b"]),
        ]
    )
    assert not snapshot.rules
    decision = engine.decide(caller="spiffe://x.example/service/ann", target="door", method="GET", path="/b")
    assert not decision.is_allowed
