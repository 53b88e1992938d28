# SPDX-License-Identifier: Apache-2.0
"""A plan against brute force: every caller, path, user and fact is decided under both policies.

No answer changes that the plan does not name, and whatever the plan names changes.
"""

from __future__ import annotations

import itertools
import json
import random
from datetime import UTC, datetime

from hypothesis import HealthCheck, assume, event, given, settings
from tests.strategies import CONDITIONS, FACTS, ROLES, changed_documents, to_files

from everyhop.authz import Context, Engine, User
from everyhop.authz.difference import Direction, compare
from everyhop.core.errors import PolicyError
from everyhop.policy import OUTSIDE, SegmentKind, parse_policy

STRANGER = "spiffe://shop.example/service/nobody"
MAX_CALLS = 6_000


def _paths(snapshots, target):
    """Paths of both sides' templates, filled in several ways, and near misses of them."""
    found = {("GET", "/everyhop-no-such-path"), ("REPORT", "/")}
    for snapshot in snapshots:
        service = snapshot.services.get(target)
        doors = () if service is None else (*service.operations, *service.probes)
        literals = sorted({s.text for d in doors for s in d.route.segments if s.kind is SegmentKind.LITERAL})
        for door in doors:
            for value in ("7", *literals[:3]):
                parts = [s.text if s.kind is SegmentKind.LITERAL else value for s in door.route.segments]
                path = "/" + "/".join(parts)
                found |= {(door.route.method, path), (door.route.method, path + "/x")}
    return sorted(found)


def _users(names):
    yield None
    yield ()
    yield from ((name,) for name in names)
    yield from itertools.combinations(names, 2)
    yield "dora"
    yield "emil"


def _contexts(documents, names):
    read = set()
    text = json.dumps(documents)
    for condition, reads in CONDITIONS:
        if json.dumps(condition)[1:-1] in text:
            read |= reads
    axes = [FACTS[name] if name in read else (None,) for name in FACTS]
    for clearance, hour, region, managed in itertools.product(*axes):
        for who in _users(names):
            if who is None and clearance is not None:
                continue
            user = None
            if who is not None:
                user = User(
                    id=who if isinstance(who, str) else "someone",
                    roles=() if isinstance(who, str) else who,
                    attributes={} if clearance is None else {"clearance": clearance},
                )
            yield (
                who,
                Context(
                    now=None if hour is None else datetime(2026, 1, 15, hour, tzinfo=UTC),
                    user=user,
                    device={} if managed is None else {"managed": managed},
                    headers={} if region is None else {"x-region": (region,)},
                ),
            )


def _names(change, caller, who, granting):
    """Tell whether a change speaks of a caller and a user."""
    if change.example.caller != caller and caller.rpartition("/")[2] not in change.callers.names:
        return False
    users = change.users
    if users is None:
        return True
    if who is None or users.is_nobody:
        return who is None and users.is_nobody
    if isinstance(who, str):  # somebody of the directory: by name, or as anybody with their roles
        return True
    if len(who) == 1:
        same = set(who) <= {*users.roles, *users.alike} and len(users.roles) == 1
        return same or (not users.roles and users.id is None and granting[who[0]] == (False, False))
    return True


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
@given(changed_documents())
def test_a_plan_names_every_change_and_nothing_else(documents):
    try:
        old, new = (parse_policy(to_files(document)) for document in documents)
    except PolicyError:  # an edit can leave what the language refuses
        assume(False)
    plan = compare(old, new)
    engines = Engine(old), Engine(new)
    for change in plan.changes:
        example = change.example
        assert example.before.is_allowed is (change.direction is Direction.LOST)
        assert example.after.is_allowed is (change.direction is Direction.GAINED)
    event(f"changes: {min(len(plan.changes), 5)}")
    callers = sorted({str(s.spiffe_id) for side in (old, new) for s in side.services.values()})
    contexts = list(_contexts(documents, ROLES if old.roles or new.roles else ()))
    asked = [(t, *call) for t in sorted(new.services) for call in (*_paths((old, new), t), (None, None))]
    # All contexts where there are few calls; a fair sample of them for each call where there are many.
    each = max(6, MAX_CALLS // (len(asked) * (len(callers) + 2)))
    chosen = random.Random(len(contexts))
    flips = 0
    for target in sorted(new.services):
        for method, path in (*_paths((old, new), target), (None, None)):
            doors = tuple(
                engine.door(target, "tcp") if method is None else engine.find(target, method, path)
                for engine in engines
            )
            door_names = tuple(None if door is None else door.name for door in doors)
            granting = {
                role: tuple(
                    name is not None and role in engine.permissions.granting(target, name)
                    for engine, name in zip(engines, door_names, strict=True)
                )
                for role in ROLES
            }
            here = [c for c in plan.changes if c.target == target and (c.before, c.after) == door_names]
            for caller in (*callers, OUTSIDE, STRANGER):
                for who, context in chosen.sample(contexts, min(each, len(contexts))):
                    before, after = (
                        engine.decide_tcp(caller=caller, target=target, context=context)
                        if method is None
                        else engine.decide(
                            caller=caller, target=target, method=method, path=path, context=context
                        )
                        for engine in engines
                    )
                    if before.effect is after.effect:
                        continue
                    flips += 1
                    direction = Direction.GAINED if after.is_allowed else Direction.LOST
                    named = [c for c in here if c.direction is direction and _names(c, caller, who, granting)]
                    assert named, (
                        direction,
                        caller,
                        who,
                        target,
                        method,
                        path,
                        door_names,
                        context,
                        before,
                        after,
                    )
    event(f"answers that flip: {len(str(flips)) if flips else 0} digits")
