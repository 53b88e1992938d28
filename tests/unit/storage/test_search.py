# SPDX-License-Identifier: Apache-2.0
"""Search in SQL says what the filter says in Python, and the common questions are answered by an index."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from tests.support.identity import NOW

from everyhop.auditlog import Kind, Order, Point, Record, RecordFilter
from everyhop.storage.record_conditions import conditions_of, place_of
from everyhop.storage.schema import records

ORDERS = "spiffe://shop.example/service/orders"
FILTERS = [
    RecordFilter(),
    RecordFilter(service="orders"),
    RecordFilter(caller=ORDERS),
    RecordFilter(user="alice"),
    RecordFilter(user="nobody"),
    RecordFilter(operation="list"),
    RecordFilter(operation='li"st'),
    RecordFilter(reason="no-rule"),
    RecordFilter(reason="é\n"),
    RecordFilter(point=Point.EDGE),
    RecordFilter(api_key="abcdefgh"),
    RecordFilter(address="203.0.113.7"),
    RecordFilter(address="2001:db8::/64"),
    RecordFilter(id_prefix="r1"),
    RecordFilter(id_prefix="r%"),
    RecordFilter(kinds=frozenset({Kind.KEY, Kind.LOG})),
    RecordFilter(kind=Kind.DECISION, denied=True, reason="no-rule"),
    RecordFilter(since=NOW + timedelta(minutes=3), until=NOW + timedelta(minutes=9), point=Point.INGRESS),
]


def made():
    return [
        Record(
            id=f"r{n}",
            seq=n,
            producer="p",
            time=NOW + timedelta(minutes=n),
            kind=(Kind.DECISION, Kind.KEY, Kind.LOG)[n % 3],
            point=(Point.INGRESS, Point.EDGE)[n % 2],
            caller=(ORDERS, None, "outside")[n % 3],
            target=("orders", "payments")[n % 2],
            operation=("list", 'li"st', None, "reason")[n % 4],
            decision=("allow", "deny", None, "deny")[n % 4],
            reason=("no-rule", "é\n", None)[n % 3],
            detail=(
                {},
                {"user": "alice", "host": "203.0.113.7:80"},
                {"host": "2001:db8::5", "reason": "no-rule"},  # the words of another member
                {"api_key": "abcdefgh", "operation": "list", "source": "203.0.113.7"},
                {"point": "edge"},
            )[n % 5],
        )
        for n in range(1, 41)
    ]


@pytest.mark.parametrize("wanted", FILTERS, ids=lambda wanted: f"filter{FILTERS.index(wanted)}")
@pytest.mark.parametrize("order", Order)
def test_sql_and_python_agree_page_by_page(storage, wanted, order):
    batch = made()
    storage.records.append(batch)
    expected = [(n, record) for n, record in enumerate(batch, 1) if wanted.matches(record)]
    expected = expected[::-1] if order is Order.NEWEST else expected
    found, cursor = [], None
    while True:
        page = storage.records.query(wanted, order=order, cursor=cursor, limit=3)
        found += zip(page.positions, page.records, strict=True)
        assert len(page.records) == 3 or not page.more
        cursor = page.last
        if not page.more:
            break
    assert found == expected
    if wanted not in {RecordFilter(user="nobody"), RecordFilter(id_prefix="r%")}:
        assert expected


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (RecordFilter(service="orders"), "records_target"),
        (RecordFilter(caller=ORDERS), "records_caller"),
        (RecordFilter(user="alice"), "records_subject"),
        (RecordFilter(rule="allow[0]"), "records_rule"),
        (RecordFilter(denied=True), "records_denied"),
        (RecordFilter(kind=Kind.DECISION, denied=True), "records_denied"),
        (RecordFilter(user="alice", reason="no-rule"), "records_subject"),
        (RecordFilter(id_prefix="r1"), "(id>? AND id<?)"),
        (RecordFilter(), "PRIMARY KEY"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("engine_place", ["sqlite"], indirect=True)  # the plan is in SQLite's words
def test_common_questions_are_answered_by_an_index(storage, wanted, index):
    if storage.database.engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL plans by statistics, and forty rows are fastest read whole")
    storage.records.append(made())
    statement = sa.select(records.c.n, records.c.line).where(*conditions_of(wanted))
    statement = statement.order_by(place_of(wanted).desc()).limit(21)
    sql = str(statement.compile(storage.database.engine, compile_kwargs={"literal_binds": True}))
    with storage.database.reading() as connection:
        plan = " ".join(row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}"))
    if index == "PRIMARY KEY":
        assert plan == "SCAN records"  # backwards over the key, 21 rows and no more
    else:
        assert index in plan, plan
    assert "TEMP B-TREE" not in plan or wanted == replace(RecordFilter(), id_prefix="r1")
