# SPDX-License-Identifier: Apache-2.0
"""Claim: the rows that a user may see are chosen by the database in less time than by asking the engine for each row.

100 000 orders in SQLite in memory, an index on ``owner``; three rules (own, admins, department) and one deny rule.
Both sides give the same rows, which is checked. Run: ``python benchmarks/bench_filtering.py``.
"""

from __future__ import annotations

import platform
import sqlite3
import statistics
import time
from datetime import UTC, datetime

import sqlalchemy as sa

from everyhop.authz import Context, Engine, Resource, User, enumerate_allowed, filter_resources
from everyhop.integrations.sqlalchemy import Columns, where
from everyhop.policy import parse_policy

ROWS = 100_000
SAMPLE = 5_000
POLICY = b"""\
version: 1
trust_domain: shop.example
attributes:
  user: {department: string}
  resource: {owner: string, department: string, confidential: bool}
services: {shop: {}, orders: {operations: {list: GET /orders}}}
allow:
  - {from: shop, to: orders, operations: [list], user: required, when: "resource.owner == user.id"}
  - {from: shop, to: orders, operations: [list], user: required, when: "'admin' in user.roles"}
  - {from: shop, to: orders, operations: [list], user: required, when: "resource.department == user.department"}
deny:
  - {from: any, to: orders, when: "resource.confidential && !in_cidr(request.source_ip, '10.0.0.0/8')"}
"""


def timed(function, repeat):
    function()
    spent = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        spent.append((time.perf_counter() - start) * 1e6)
    spent.sort()
    return statistics.median(spent), spent[int(len(spent) * 0.99)]


def main():
    engine = Engine(parse_policy({"p.yaml": POLICY}))
    user = User(id="user-7", roles=("x",), attributes={"department": "d3"})
    context = Context(now=datetime(2026, 1, 1, tzinfo=UTC), user=user, source_ip="192.0.2.1")
    asked = {
        "caller": "spiffe://shop.example/service/shop",
        "target": "orders",
        "operation": "list",
        "context": context,
    }
    table = sa.Table(
        "orders",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("owner", sa.String, index=True),
        sa.Column("department", sa.String, index=True),
        sa.Column("confidential", sa.Boolean),
    )
    columns = Columns({name: table.c[name] for name in ("owner", "department", "confidential")})
    database = sa.create_engine("sqlite://")
    values = [
        {"id": n, "owner": f"user-{n % 5000}", "department": f"d{n % 1000}", "confidential": n % 3 == 0}
        for n in range(ROWS)
    ]
    resources = [
        Resource(id=str(one["id"]), attributes={k: one[k] for k in ("owner", "department", "confidential")})
        for one in values[:SAMPLE]
    ]
    with database.connect() as connection:
        table.metadata.create_all(connection)
        connection.execute(table.insert(), values)

        def query():
            found = filter_resources(engine, **asked)
            return list(
                connection.scalars(
                    sa.select(table.c.id).where(where(found, columns, dialect=database.dialect))
                )
            )

        def each():
            return [int(one.id) for one in enumerate_allowed(engine, **asked, resources=resources)]

        assert [one for one in sorted(query()) if one < SAMPLE] == each()
        print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}")
        median, late = timed(lambda: filter_resources(engine, **asked), 300)
        print(f"filter_resources           {median:10.0f} us median  {late:10.0f} us p99")
        median, late = timed(query, 50)
        print(
            f"filter, SQL and query      {median:10.0f} us median  {late:10.0f} us p99   ({len(query())} of {ROWS} rows)"
        )
        one, late = timed(each, 5)
        print(
            f"engine, each row           {one / SAMPLE:10.1f} us a row, so {one / SAMPLE * ROWS:10.0f} us for all"
        )
        print(f"ratio                      {one / SAMPLE * ROWS / median:10.0f} : 1")
    database.dispose()


if __name__ == "__main__":
    main()
