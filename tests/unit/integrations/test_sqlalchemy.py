# SPDX-License-Identifier: Apache-2.0
"""Filters in a database: what is refused, what is exact, and pages that never end silently."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from everyhop.authz import Context, Engine, User, filter_resources
from everyhop.core.errors import InputError
from everyhop.integrations.sqlalchemy import (
    Columns,
    NotExpressibleError,
    filter_for,
    page,
    rows,
    superset,
    where,
)
from everyhop.policy import parse_policy

HEAD = """\
version: 1
trust_domain: shop.example
attributes:
  user: {department: string}
  resource: {owner: string, status: string, level: int, score: double, secret: bool, due: timestamp, tags: strings}
services: {shop: {}, orders: {operations: {list: GET /orders}}}
allow:
"""
NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
    number: Mapped[int] = mapped_column(unique=True)
    owner: Mapped[str | None] = mapped_column(sa.String(collation="NOCASE"))
    level: Mapped[int | None]
    secret: Mapped[bool | None]
    labels: Mapped[str] = mapped_column(default="")


COLUMNS = Columns(
    {"id": Order.id, "owner": Order.owner, "level": Order.level, "secret": Order.secret},
    read={"tags": lambda order: tuple(order.labels.split())},
)


def filtered(*allow, deny=()):
    lines = [
        f'  - {{from: any, to: orders, operations: [list], user: required, when: "{when}"}}\n'
        for when in allow
    ]
    text = HEAD + "".join(lines)
    if deny:
        text += "deny:\n" + "".join(f'  - {{from: any, to: orders, when: "{when}"}}\n' for when in deny)
    return filter_resources(
        Engine(parse_policy({"p.yaml": text.encode()})),
        caller="spiffe://shop.example/service/shop",
        target="orders",
        operation="list",
        context=Context(now=NOON, user=User(id="ann", roles=("a", "b"))),
    )


@pytest.fixture
def session():
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        for number in range(1000):
            session.add(
                Order(
                    id=f"o{number:04}",
                    number=number,
                    owner=["ann", "Ann", "ann ", None, "bob"][number % 5],
                    level=number % 7 or None,
                    secret=[True, False, None][number % 3],
                    labels="x y" if number % 10 == 0 else "y",
                )
            )
        session.commit()
        yield session
    engine.dispose()


# -- what is refused


@pytest.mark.parametrize(
    ("condition", "columns", "word"),
    [
        ("resource.owner.matches('^a')", {}, "matches"),
        ("'x' in resource.tags", {"tags": sa.column("tags", sa.Text)}, "tags"),
        ("resource.level + 1 > 3", {}, "resource.level + 1"),
        ("resource.owner.size() > 3", {}, "size"),
        ("resource.owner == 'x'", {"owner": "gone"}, "no column is named for resource.owner"),
        ("resource.owner == 'x'", {"owner": sa.column("owner", sa.Integer)}, "its column"),
        ("resource.owner == 'x'", {"owner": sa.column("owner", sa.CHAR(3))}, "its column"),
        ("resource.owner == 'x'", {"owner": sa.column("owner", sa.Enum("x", "y"))}, "its column"),
        ("resource.owner == 'x'", {"owner": sa.column("owner", sa.PickleType)}, "its column"),
        ("resource.owner == 'x'", {"owner": sa.column("owner")}, "its column"),
        ("resource.score > 1.0", {"score": sa.column("score", sa.Numeric(10, 2))}, "its column"),
        ("resource.score > 1.0", {"score": sa.column("score", sa.REAL)}, "its column"),
        ("resource.score > 1.0", {"score": sa.column("score", sa.Float(asdecimal=True))}, "its column"),
        ("resource.due > now", {"due": sa.column("due", sa.Date)}, "its column"),
        ("resource.due > now", {"due": sa.column("due", sa.DateTime)}, "naive moments"),
        (
            "resource.due > now",
            {"due": sa.column("due", sqlite.DATETIME(truncate_microseconds=True))},
            "form of its",
        ),
    ],
)
def test_what_cannot_be_exact_is_refused_by_name(condition, columns, word):
    found = filtered("resource.level == 3", condition)
    named = {**COLUMNS.columns, **columns}
    held = Columns({name: column for name, column in named.items() if not isinstance(column, str)})
    with pytest.raises(NotExpressibleError) as caught:
        where(found, held, dialect=sqlite.dialect())
    assert "allow[1]" in str(caught.value)
    assert word in str(caught.value)
    assert "allow[0]" not in str(caught.value)


@pytest.mark.parametrize("dialect", [mysql.dialect()])
def test_a_dialect_whose_comparisons_are_others_is_refused(dialect):
    found = filtered("resource.owner == user.id")
    with pytest.raises(NotExpressibleError, match="sqlite, postgresql"):
        where(found, COLUMNS, dialect=dialect)
    assert str(superset(found, COLUMNS, dialect=dialect)) == "true"


def test_an_attribute_is_in_one_place():
    with pytest.raises(InputError, match="owner"):
        Columns({"owner": Order.owner}, read={"owner": lambda _: "x"})


def test_pages_refuse_what_would_cut_rows_off(session):
    found = filtered("resource.owner == user.id")
    for statement in (sa.select(Order).limit(5), sa.select(Order).offset(5)):
        with pytest.raises(InputError, match="no limit"):
            page(session, statement, found, COLUMNS, key=Order.number)
    for bounds in ({"limit": 0}, {"examine": 0}):
        with pytest.raises(InputError, match="at least one"):
            page(session, sa.select(Order), found, COLUMNS, key=Order.number, **bounds)


# -- what is exact


def numbers(session, found, columns=COLUMNS):
    dialect = session.get_bind().dialect
    statement = filter_for(sa.select(Order.number), found, columns, dialect=dialect)
    return set(session.scalars(statement))


def test_text_is_exact_whatever_the_collation(session):
    assert numbers(session, filtered("resource.owner == user.id")) == set(range(0, 1000, 5))
    assert numbers(session, filtered("resource.owner in ['ANN', 'ann ']")) == set(range(2, 1000, 5))
    assert numbers(session, filtered("resource.owner.startsWith('A')")) == set(range(1, 1000, 5))


def test_null_never_opens_anything(session):
    is_null = set(range(3, 1000, 5))
    for condition in (
        "resource.owner != 'x'",
        "!(resource.owner == 'x')",
        "!(resource.owner in ['x'])",
        "!resource.owner.contains('x')",
        "!(user.id in [resource.owner, 'x'])",
        "resource.owner == 'x' ? false : true",
    ):
        assert not numbers(session, filtered(condition)) & is_null, condition
    everything = numbers(session, filtered("true", deny=["resource.owner == 'bob'"]))
    assert not everything & is_null
    assert not numbers(session, filtered("true", deny=["resource.secret"])) & set(range(2, 1000, 3))


def test_nothing_is_a_query_for_nothing(session):
    assert numbers(session, filtered("false")) == set()
    assert len(numbers(session, filtered("true"))) == 1000


# -- two steps


def test_pages_check_each_row_and_end_with_a_cursor(session):
    found = filtered("'x' in resource.tags && resource.owner == user.id")
    expected = list(range(0, 1000, 10))
    got, after, pages = [], None, 0
    while True:
        one = page(
            session, sa.select(Order), found, COLUMNS, key=Order.number, after=after, limit=7, examine=50
        )
        got += [order.number for order in one.items]
        assert len(one.items) <= 7
        assert one.examined <= 50
        pages += 1
        if one.is_last:
            break
        after = one.cursor
    assert got == expected
    assert pages > 10
    assert [
        order.number for order in rows(session, sa.select(Order), found, COLUMNS, key=Order.number)
    ] == expected


def test_a_page_may_be_empty_and_not_the_last(session):
    found = filtered("'z' in resource.tags || resource.level + 1 == 100")
    one = page(session, sa.select(Order), found, COLUMNS, key=Order.number, examine=30)
    assert (one.items, one.cursor, one.is_last, one.examined) == ((), 29, False, 30)
    last = page(session, sa.select(Order), found, COLUMNS, key=Order.number, after=995)
    assert (last.items, last.is_last) == ((), True)


def test_pages_of_an_exact_filter_and_of_columns(session):
    found = filtered("resource.owner == user.id")
    statement = sa.select(Order.number, Order.owner).order_by(Order.owner)
    got = list(rows(session, statement, found, COLUMNS, key=Order.id))
    assert got == [(number, "ann") for number in range(0, 1000, 5)]
    assert list(rows(session, sa.select(Order), filtered("false"), COLUMNS, key=Order.id)) == []


def test_an_index_serves_the_expression(session):
    session.execute(sa.text("create index by_owner on orders (owner collate binary)"))
    dialect = session.get_bind().dialect
    statement = filter_for(
        sa.select(Order.number), filtered("resource.owner == user.id"), COLUMNS, dialect=dialect
    )
    text = statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    plan = [row[-1] for row in session.execute(sa.text(f"explain query plan {text}".replace(":", "\\:")))]
    assert any("by_owner" in line for line in plan)


def test_postgresql_is_written_with_binary_collations():
    found = filtered(
        "resource.owner == user.id", "resource.owner in ['a', 'b']", "resource.owner.startsWith('a')"
    )
    text = str(where(found, COLUMNS, dialect=postgresql.dialect()).compile(dialect=postgresql.dialect()))
    assert text.count('COLLATE "C"') >= 4
    assert "starts_with" in text
    with pytest.raises(NotExpressibleError, match="NUL"):
        where(filtered("resource.owner == 'a\\\\x00'"), COLUMNS, dialect=postgresql.dialect())
