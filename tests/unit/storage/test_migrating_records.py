# SPDX-License-Identifier: Apache-2.0
"""Records of an older everyhop are numbered and sealed when the schema moves on, and stay when it moves back."""

import pytest
import sqlalchemy as sa
from tests.support.ledger import naive_root, record

from everyhop.auditlog import encode_record
from everyhop.storage import migrate, open_database, open_postgresql
from everyhop.storage.log_tree import SqlLogTree
from everyhop.storage.records import SqlRecordWriter
from everyhop.storage.schema import to_micros

_COLUMNS = "n, id, producer, seq, time, kind, caller, target, decision, rule, line"


def old_rows(records, *, start=1, step=1):
    return [
        {
            "n": start + number * step,
            "id": r.id,
            "producer": r.producer,
            "seq": r.seq,
            "time": to_micros(r.time),
            "kind": r.kind.value,
            "caller": r.caller,
            "target": r.target,
            "decision": r.decision,
            "rule": r.rule,
            "line": encode_record(r),
        }
        for number, r in enumerate(records)
    ]


def insert_old(database, rows):
    names = _COLUMNS.split(", ")
    table = sa.table("records", *(sa.column(name) for name in names))
    with database.writing() as connection:
        connection.execute(sa.insert(table), rows)


def dump(database):
    with database.reading() as connection:
        return connection.execute(sa.text(f"SELECT {_COLUMNS} FROM records ORDER BY n")).all()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    if request.param == "sqlite":
        with open_database(tmp_path / "everyhop.db") as opened:
            yield opened
        return
    server = request.getfixturevalue("postgres")
    name = server.new_database()
    with open_postgresql(server.url(name)) as opened:
        yield opened
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_records_with_holes_are_numbered_sealed_and_found_by_user(database):
    batch = [record(n, detail={"user": f"u{n % 3}"} if n % 2 else {}) for n in range(5, 5005)]
    migrate(database, "0002")
    insert_old(database, old_rows(batch, start=40, step=3))
    migrate(database)
    tree = SqlLogTree(database)
    size, frontier = tree.head()
    lines = [encode_record(r) for r in batch]
    assert (size, frontier.root()) == (5000, naive_root(lines))
    assert [line for page in tree.lines(0, size) for line in page] == lines
    assert tree.tile(1, 0, 19)[:32] == naive_root(lines[:256])
    with database.reading() as connection:
        found = connection.execute(sa.text("SELECT count(*) FROM records WHERE subject = 'u1'")).scalar()
    assert found == sum(r.detail.get("user") == "u1" for r in batch)
    # What was pruned before is known as such, and the log goes on.
    with database.writing() as connection:
        result = SqlRecordWriter(connection).insert([record(4), record(5004), record(5005)])
    assert (result.stored, result.duplicates, result.conflicts) == (1, 2, ())


def test_down_and_up_again_with_records(database):
    batch = [record(n) for n in range(1, 700)]
    migrate(database)
    with database.writing() as connection:
        SqlRecordWriter(connection).insert(batch)
    before, head = dump(database), SqlLogTree(database).head()[1].to_bytes()
    migrate(database, "0002")
    assert dump(database) == before
    with database.reading() as connection:
        assert "log_head" not in sa.inspect(connection).get_table_names()
    insert_old(database, old_rows([record(700)], start=700))
    migrate(database)
    assert dump(database)[:-1] == before
    assert SqlLogTree(database).head()[0] == 700
    assert SqlLogTree(database).head()[1].to_bytes() != head


def test_an_empty_log(database):
    for revision in ("0001", "0003", "0001", "0003"):
        migrate(database, revision)
    assert SqlLogTree(database).head()[0] == 0
