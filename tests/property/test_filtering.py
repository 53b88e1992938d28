# SPDX-License-Identifier: Apache-2.0
"""A filter allows a resource exactly when the engine does, and a database gives exactly those rows.

Policies are generated: conditions over resources, users and constants, in allow and deny rules, with roles, defaults,
a directory that knows some of the resources, and edges that are only watched.  Three answers are compared for each
resource: ``Engine.decide_door`` with the resource, ``Filter.allows``, and a query on a real SQLite database in which
values are missing or (where the database lets one) of another type.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from hypothesis import HealthCheck, event, given, settings, strategies as st

from everyhop.authz import (
    Context,
    Engine,
    Extent,
    Resource,
    User,
    enumerate_allowed,
    filter_resources,
)
from everyhop.core.decision import Reason
from everyhop.integrations.sqlalchemy import Columns, NotExpressibleError, superset, where
from everyhop.policy import parse_policy

NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
CALLER = "spiffe://shop.example/service/shop"
TEXTS = [
    "ann",
    "bob",
    "Ann",
    "ann ",
    "a",
    "",
    "ä",
    "ann\x00x",
    "a%b",
    "A_B",
    "e\u0301",
    "\u00e9",
    "\U0001f600",
]
WORDS = st.sampled_from(TEXTS)
QUOTED = WORDS.map(
    lambda text: (
        "'" + "".join(c if c.isascii() and c.isprintable() else f"\\U{ord(c):08x}" for c in text) + "'"
    )
)
NUMBERS = st.sampled_from([-1, 0, 1, 2, 2**53, 2**63 - 1, -(2**63)])
DOUBLES = st.sampled_from([-1.5, 0.0, 0.1, 1.0, 1e300])

TEXT = st.one_of(
    QUOTED,
    st.sampled_from(
        [
            "resource.owner",
            "resource.status",
            "resource.id",
            "resource.type",
            "user.id",
            "user.department",
            "resource.label",
        ]
    ),
)
NUMBER = st.one_of(
    NUMBERS.map(lambda n: str(n) if n > -(2**63) else "(-9223372036854775807 - 1)"),
    st.sampled_from(["resource.level", "user.clearance", "resource.level + 1", "user.clearance + 1"]),
)
DOUBLE = st.one_of(DOUBLES.map(repr), st.just("resource.score"))
MOMENT = st.sampled_from(
    [
        "now",
        "resource.due",
        "now - duration('1h')",
        "timestamp('2026-05-01T12:00:00Z')",
        "timestamp('2026-05-01T12:00:00.000000001Z')",
    ]
)
SIGN = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
BOOL = st.sampled_from(["resource.secret", "user.mfa", "true", "false"])


def compared(side):
    return st.tuples(side, SIGN, side).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})")


LEAF = st.one_of(
    BOOL,
    compared(TEXT),
    compared(NUMBER),
    compared(DOUBLE),
    compared(MOMENT),
    st.tuples(st.sampled_from(["resource.secret", "user.mfa"]), st.sampled_from(["==", "!="]), BOOL).map(
        lambda t: f"({t[0]} {t[1]} {t[2]})"
    ),
    st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)).map(lambda t: f"({t[0]} in [{', '.join(t[1])}])"),
    st.tuples(
        st.sampled_from(["resource.owner", "user.id", "resource.label"]),
        st.sampled_from(["startsWith", "endsWith", "contains"]),
        QUOTED.filter(lambda text: text != "''"),
    ).map(lambda t: f"{t[0]}.{t[1]}({t[2]})"),
    st.sampled_from(
        [
            "resource.owner in user.roles",
            "has_role(user.roles, resource.status)",
            "user.roles.exists(r, r == resource.owner || r == resource.status)",
            "user.roles.all(r, r != resource.owner)",
            "'a' in resource.tags",
            "resource.owner.matches('^a')",
            "resource.owner.size() > 3",
            "starts_with_any(resource.owner, user.roles)",
            "resource.owner.startsWith(user.id)",
            "user.id.startsWith(resource.owner)",
            "request.path_params.id == resource.id",
            "resource.level / (resource.level - 1) > 0",
        ]
    ),
)
CONDITION = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        inner.map(lambda one: f"!({one})"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})"),
    ),
    max_leaves=5,
)


@st.composite
def rules(draw, *, is_deny):
    # A condition of an allow rule may speak of a user only where the rule does.
    rule = {"from": draw(st.sampled_from(["shop", "any"])), "to": "orders", "operations": ["read"]}
    if draw(st.integers(0, 9)):
        rule["when"] = draw(CONDITION)
    if not is_deny:
        rule["user"] = draw(st.sampled_from(["required", "optional"]))
    if draw(st.integers(0, 9)) == 0:
        rule["mode"] = "shadow"
    return rule


VALUES = {
    "owner": WORDS,
    "status": WORDS,
    "secret": st.booleans(),
    "level": NUMBERS,
    "score": DOUBLES,
    "due": st.sampled_from([NOON, NOON - timedelta(hours=1), NOON + timedelta(microseconds=1)]),
    "label": WORDS,
}
BAD = {"level": "many", "score": "much", "secret": 7, "owner": 5, "due": "soon"}


@st.composite
def policies(draw):
    with_default = draw(st.booleans())
    policy = {
        "version": 1,
        "trust_domain": "shop.example",
        "attributes": {
            "user": {"department": "string", "clearance": {"type": "int", "default": 1}},
            "resource": {
                "owner": "string",
                "status": {"type": "string", "default": "a"} if with_default else "string",
                "secret": {"type": "bool", "default": True} if with_default else "bool",
                "level": "int",
                "score": {"type": "double", "default": 0.1} if with_default else "double",
                "due": "timestamp",
                "label": "string",
                "tags": "strings",
            },
        },
        "services": {"shop": {}, "orders": {"operations": {"read": "GET /orders/{id}"}}},
        "allow": draw(st.lists(rules(is_deny=False), min_size=1, max_size=3)),
    }
    if draw(st.booleans()):
        policy["deny"] = draw(st.lists(rules(is_deny=True), min_size=1, max_size=2))
    if draw(st.booleans()):
        policy["roles"] = {"reader": ["orders.read"]}
    if draw(st.integers(0, 3)) == 0:
        policy["directory"] = {
            "resources": {
                "order": {"service": "orders", "items": {"1": {"owner": "ann"}, "2": {"level": 1}, "3": {}}}
            }
        }
    if draw(st.integers(0, 7)) == 0:
        policy["shadow"] = [{"from": "shop", "to": "orders"}]
    return parse_policy({"p.yaml": json.dumps(policy).encode()})


@st.composite
def contexts(draw):
    user = User(
        id=draw(WORDS.filter(bool)),
        roles=tuple(draw(st.lists(st.sampled_from(["reader", "ann", "a"]), max_size=3, unique=True))),
        amr=draw(st.sampled_from([None, ("mfa",), ("pwd",)])),
        attributes=draw(st.sampled_from([{}, {"department": "ann"}, {"department": "a", "clearance": 2}])),
    )
    return Context(
        now=draw(st.sampled_from([NOON, None])), user=draw(st.sampled_from([user, user, user, None]))
    )


@st.composite
def resource_lists(draw):
    found = []
    for number in range(draw(st.integers(1, 6))):
        attributes = {name: draw(values) for name, values in VALUES.items() if draw(st.integers(0, 3))}
        if draw(st.integers(0, 5)) == 0:
            name = draw(st.sampled_from(sorted(BAD)))
            attributes[name] = BAD[name]
        found.append(Resource(type="order", id=str(number), attributes=attributes))
    return found


TABLE = sa.Table(
    "orders",
    sa.MetaData(),
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("owner", sa.String),
    sa.Column("status", sa.Text(collation="NOCASE")),
    sa.Column("secret", sa.Boolean),
    sa.Column("level", sa.Integer),
    sa.Column("score", sa.Float),
    sa.Column("due", sa.DateTime),
    sa.Column("label", sa.String(20)),
)
COLUMNS = Columns({name: TABLE.c[name] for name in ("id", *VALUES)} | {"tags": None}, naive_is_utc=True)
ENGINE = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)


def stored(connection, resources):
    """Store resources past all checks of types: columns without an affinity keep a value as it is given."""
    connection.exec_driver_sql("drop table if exists orders")
    connection.exec_driver_sql(
        "create table orders (id, owner, status collate nocase, secret, level, score, due, label)"
    )
    for one in resources:
        row = {"id": one.id, **one.attributes}
        if isinstance(row.get("due"), datetime):
            row["due"] = row["due"].strftime("%Y-%m-%d %H:%M:%S.%f")
        names = sorted(row)
        statement = f"insert into orders ({', '.join(names)}) values ({', '.join('?' * len(names))})"
        connection.exec_driver_sql(statement, tuple(row[name] for name in names))


def queried(connection, expression):
    return set(connection.execute(sa.select(TABLE.c.id).where(expression)).scalars())


@given(policies(), contexts(), resource_lists(), st.sampled_from([None, "/orders/1"]))
@settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.large_base_example]
)
def test_engine_filter_and_database_agree(snapshot, context, resources, path):
    engine = Engine(snapshot)
    asked = {"caller": CALLER, "target": "orders", "operation": "read", "context": context}
    asked |= {"method": "GET", "path": path}
    found = filter_resources(engine, **asked, resource_type="order")
    expected = {one.id for one in resources if decided(engine, context, one, path)}
    if snapshot.shadow_edges and found.judgement.reason is Reason.USER_REQUIRED:
        assert not any(map(found.allows, resources))  # stricter than what is only watched
        return
    assert {one.id for one in resources if found.allows(one)} == expected
    assert [one.id for one in enumerate_allowed(engine, **asked, resources=resources)] == [
        one.id for one in resources if one.id in expected
    ]
    well_typed = [one for one in resources if not any(map(is_bad, one.attributes.items()))]
    if found.extent is Extent.NONE:
        assert not expected
    if found.extent is Extent.ALL:
        assert {one.id for one in well_typed} <= expected
    event(str(found.extent))
    with ENGINE.connect() as connection:
        stored(connection, resources)
        try:
            answer = queried(connection, where(found, COLUMNS, dialect=ENGINE.dialect))
        except NotExpressibleError:
            event("two steps")
        else:
            event("exact")
            assert answer == expected
        assert queried(connection, superset(found, COLUMNS, dialect=ENGINE.dialect)) >= expected


def is_bad(item):
    name, value = item
    return BAD.get(name) == value or (isinstance(value, str) and "\0" in value)


def decided(engine, context, resource, path):
    return engine.decide_door(
        caller=CALLER,
        target="orders",
        door="read",
        context=replace(context, resource=resource),
        method="GET",
        path=path,
    ).is_allowed
