# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL gives exactly the rows that the engine allows: collations, NULL, NaN, infinities.

Skipped where there is no server program or no driver (``pip install "psycopg[binary]"``; it is no dependency).
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from everyhop.authz import Context, Engine, Resource, User, filter_resources
from everyhop.integrations.sqlalchemy import Columns, NotExpressibleError, rows, where
from everyhop.policy import parse_policy

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
SHOP = "spiffe://shop.example/service/shop"
ATTRIBUTES = (
    "{owner: string, status: {type: string, default: open}, level: int, score: {type: double, default: 0.5},"
    " secret: {type: bool, default: true}, due: timestamp, tags: strings}"
)
CONDITIONS = [
    "resource.owner == user.id",
    "resource.owner != user.id",
    "!(resource.owner == user.id)",
    "resource.owner < 'b'",
    "resource.owner >= 'Z'",
    "resource.owner in ['ANN', 'ann ', 'bob']",
    "resource.owner in user.roles",
    "!(resource.owner in user.roles)",
    "user.id in [resource.owner, resource.status]",
    "!(user.id in [resource.owner, resource.status])",
    "user.roles.exists(r, r == resource.owner)",
    "resource.owner.startsWith('an')",
    "resource.owner.endsWith('n')",
    "resource.owner.endsWith('\U0001f600')",
    "resource.owner.contains('%')",
    "!resource.owner.contains('n')",
    "resource.status == 'open'",
    "resource.owner == resource.status",
    "resource.level >= 2",
    "resource.level == 9223372036854775807",
    "resource.score > 0.1",
    "resource.score <= 0.5",
    "resource.score == 0.1",
    "resource.secret",
    "!resource.secret",
    "resource.secret == user.mfa",
    "resource.secret ? resource.level > 1 : resource.owner == 'bob'",
    "!(resource.secret ? resource.level > 1 : resource.owner == 'bob')",
    "resource.due > now - duration('1h')",
    "resource.due <= now",
    "resource.owner == 'x' || resource.level > 0",
    "!(resource.owner == 'x' && resource.level > 0)",
    "true",
    "resource.level > 0 || true",
]
TWO_STEPS = ["resource.owner.matches('^a')", "resource.level + 1 > 2 && resource.owner == user.id"]

TABLE = sa.Table(
    "orders",
    sa.MetaData(),
    sa.Column("id", sa.String(10), primary_key=True),
    sa.Column("owner", sa.Text),  # in the database: with a collation that ignores case
    sa.Column("status", sa.String(30)),
    sa.Column("level", sa.BigInteger),
    sa.Column("score", sa.Double),
    sa.Column("secret", sa.Boolean),
    sa.Column("due", sa.DateTime(timezone=True)),
)
COLUMNS = Columns({column.name: column for column in TABLE.c} | {"tags": None})
NAMES = [column.name for column in TABLE.c][1:]


@pytest.fixture(scope="module")
def connection():
    programs = _programs()
    place = Path(tempfile.mkdtemp(prefix="pg-"))  # the way there is open to the user that it runs as
    as_user = {}
    if os.getuid() == 0:
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no account for it")
        os.chown(place, account.pw_uid, account.pw_gid)
        as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    run = {"capture_output": True, "cwd": place, **as_user}
    data = str(place / "data")
    subprocess.run(
        [programs / "initdb", "-D", data, "-A", "trust", "-U", "test", "-E", "UTF8", "--locale=C.UTF-8"],
        check=True,
        **run,
    )
    options = f"-k {place} -c listen_addresses='' -c fsync=off"
    subprocess.run(
        [programs / "pg_ctl", "-D", data, "-w", "-l", str(place / "log"), "-o", options, "start"],
        check=True,
        **run,
    )
    engine = sa.create_engine(f"postgresql+psycopg://test@/postgres?host={place}")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
        subprocess.run([programs / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop"], check=True, **run)
        shutil.rmtree(place, ignore_errors=True)


def _programs() -> Path:
    for place in (
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
        Path(shutil.which("initdb") or "/x").parent,
    ):
        if (place / "initdb").exists() and (place / "pg_ctl").exists():
            return place
    pytest.skip("PostgreSQL is not installed")


@pytest.fixture(scope="module")
def resources(connection):
    connection.exec_driver_sql(
        "create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    )
    connection.exec_driver_sql(
        "create table orders (id varchar(10) primary key, owner text collate nocase, status varchar(30), level bigint,"
        " score double precision, secret boolean, due timestamptz)"
    )
    texts = [
        None,
        "ann",
        "Ann",
        "ANN",
        "ann ",
        "bob",
        "",
        "a%b",
        "ä",
        "\U0001f600",
        "é",
        "e\u0301",
        "x" * 70_000,
    ]
    levels = [None, 0, 1, 2, 2**63 - 1, -(2**63)]
    scores = [None, 0.1, 0.5, -1.5, 1e300, float("nan"), float("inf"), float("-inf")]
    moments = [None, NOON, NOON - timedelta(hours=1), NOON + timedelta(microseconds=1)]
    found = []
    for number in range(240):
        values = {
            "owner": texts[number % len(texts)],
            "status": [None, "open", "ann", "Ann"][number % 4],
            "level": levels[number % len(levels)],
            "score": scores[number % len(scores)],
            "secret": [None, True, False][number // 3 % 3],
            "due": moments[number // 5 % 4],
        }
        connection.execute(TABLE.insert().values(id=str(number), **values))
        attributes = {name: value for name, value in values.items() if value is not None}
        found.append(Resource(id=str(number), attributes=attributes))
    return found


def asked(allow, deny):
    text = (
        "version: 1\ntrust_domain: shop.example\n"
        f"attributes: {{resource: {ATTRIBUTES}}}\n"
        "services: {shop: {}, orders: {operations: {list: GET /orders}}}\n"
        f'allow: [{{from: shop, to: orders, operations: [list], user: required, when: "{allow}"}}]\n'
        + (f'deny: [{{from: shop, to: orders, when: "{deny}"}}]\n' if deny else "")
    )
    return Engine(parse_policy({"p.yaml": text.encode()}))


@pytest.mark.parametrize("condition", [*CONDITIONS, *TWO_STEPS])
def test_postgresql_gives_what_the_engine_allows(connection, resources, condition):
    context = Context(now=NOON, user=User(id="ann", roles=("bob", "Ann"), amr=("mfa",)))
    for allow, deny in (
        (condition, None),
        ("true", condition),
    ):
        engine = asked(allow, deny)
        found = filter_resources(engine, caller=SHOP, target="orders", operation="list", context=context)
        expected = {
            one.id
            for one in resources
            if engine.decide_door(
                caller=SHOP, target="orders", door="list", context=replace(context, resource=one)
            ).is_allowed
        }
        statement = sa.select(TABLE.c.id)
        assert set(rows(connection, statement, found, COLUMNS, key=TABLE.c.id)) == expected
        if condition in TWO_STEPS:
            with pytest.raises(NotExpressibleError):
                where(found, COLUMNS, dialect=connection.dialect)
        else:
            expression = where(found, COLUMNS, dialect=connection.dialect)
            assert set(connection.execute(statement.where(expression)).scalars()) == expected
    assert len(resources) == 240
