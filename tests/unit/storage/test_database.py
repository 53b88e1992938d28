# SPDX-License-Identifier: Apache-2.0
"""The file, its modes and pragmas, its schema and its errors."""

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from tests.support.identity import NOW

from everyhop.auditlog import Event, Kind
from everyhop.core.errors import SettingsError, Unavailable
from everyhop.storage import HEAD, current_revision, metadata, migrate, open_database, open_storage
from everyhop.storage.database import POOL_SIZE
from everyhop.storage.migrate import MIGRATIONS
from everyhop.storage.schema import from_micros, to_micros
from everyhop.storage.service import _RecordIds


@pytest.fixture
def path(tmp_path):
    return tmp_path / "everyhop.db"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_that_others_may_open(path, mode):
    path.touch()
    path.chmod(mode)
    with pytest.raises(SettingsError, match="others may open"):
        open_database(path)


def test_a_symbolic_link(path):
    path.symlink_to("real.db")
    with pytest.raises(SettingsError):
        open_database(path)
    assert not path.with_name("real.db").exists()


def test_no_directory(path):
    with pytest.raises(SettingsError, match="cannot open"):
        open_database(path / "x.db")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root to give a file away")
def test_a_file_of_another_user(path):
    path.touch(0o600)
    os.chown(path, 65534, 65534)
    with pytest.raises(SettingsError, match="not a file of this user"):
        open_database(path)


def test_a_file_that_is_no_database(path):
    path.touch(0o600)
    path.write_bytes(b"no database at all, but long enough to look at" * 100)
    with pytest.raises(Unavailable, match="damaged") as caught:
        open_storage(path)
    assert not caught.value.retry


def test_a_database_of_a_newer_everyhop(path):
    open_storage(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(SettingsError, match="schema 9999") as caught:
        open_storage(path)
    assert "newer everyhop" in caught.value.hint


def test_every_file_is_for_its_owner_alone(path):
    before = os.umask(0)
    try:
        storage = open_storage(path)
        storage.meta.set("a", "b")
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
        storage.close()
    finally:
        os.umask(before)
    assert modes == {"everyhop.db": 0o600, "everyhop.db-wal": 0o600, "everyhop.db-shm": 0o600}


def test_pragmas(path):
    with open_database(path) as database, database.reading() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert values == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


def test_the_schema_is_what_the_migrations_make(path):
    with open_database(path) as database:
        assert migrate(database)
        assert not migrate(database)
        with database.reading() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
            migrated = shape(connection)
    other = path.with_name("other.db")
    with open_database(other) as database, database.writing() as connection:
        metadata.create_all(connection)
        assert shape(connection) == migrated


def shape(connection):
    """Return what SQLite itself says about every table and index, constraints included."""
    rows = connection.exec_driver_sql(
        "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%' AND name NOT LIKE 'sqlite_autoindex_alembic%'"
    )
    return {name: sql and sorted(" ".join(sql.split()).replace(" ,", ",").split(", ")) for name, sql in rows}


def test_head_is_the_newest_migration():
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_down_and_up_again(path):
    with open_database(path) as database:
        migrate(database)
        with database.writing() as connection:
            from everyhop.storage.migrate import _run

            _run(connection, "base", is_upgrade=False)
        with database.reading() as connection:
            assert sa.inspect(connection).get_table_names() == ["alembic_version"]
            assert current_revision(connection) is None
        assert migrate(database)


def test_two_that_start_at_once_migrate_once(path):
    databases = [open_database(path) for _ in range(4)]
    results = []
    threads = [threading.Thread(target=lambda d=d: results.append(migrate(d))) for d in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for database in databases:
        database.close()
    assert sorted(results) == [False, False, False, True]


def test_a_warm_start_does_not_load_alembic(path):
    open_storage(path).close()
    code = (
        "import sys, pathlib; from everyhop.storage import open_storage;"
        "open_storage(pathlib.Path(sys.argv[1])).close(); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0


def test_a_failed_transaction_leaves_nothing(storage):
    with pytest.raises(ZeroDivisionError), storage.database.writing() as connection:
        connection.exec_driver_sql("INSERT INTO meta VALUES ('a', 'b')")
        raise ZeroDivisionError
    assert storage.meta.get("a") is None


def test_a_lock_that_is_not_to_be_had_is_unavailable(storage, engine_place):
    with contextlib.closing(open_storage(engine_place)) as other, storage.database.writing():
        began = time.monotonic()
        with pytest.raises(Unavailable) as caught, other.database.writing(wait=0.3):
            pass
        assert 0.2 < time.monotonic() - began < 2
    assert caught.value.retry
    assert "lock" in caught.value.message


def test_moments_are_exact():
    for moment in (NOW, NOW.replace(microsecond=1), NOW.replace(year=1969), NOW.replace(year=9999)):
        assert from_micros(to_micros(moment)) == moment


def test_meta(storage):
    assert storage.meta.get("a") is None
    storage.meta.set("a", "1")
    storage.meta.set("a", "2")
    assert storage.meta.get("a") == "2"
    assert storage.meta.set_once("a", "3") == "2"
    assert storage.meta.set_once("b", "4") == "4"


def test_threads_that_wait_too_long_for_their_turn_are_told(storage):
    with storage.database.writing(), pytest.raises(Unavailable), storage.database.writing(wait=0.01):
        pass
    storage.meta.set("the turn", "was given back")


def test_readers_that_hold_every_connection_keep_no_writer_waiting(storage):
    with contextlib.ExitStack() as stack:
        for _ in range(POOL_SIZE):
            stack.enter_context(storage.database.reading()).execute(sa.text("SELECT count(*) FROM records"))
        storage.meta.set("a", "b")
    assert storage.meta.get("a") == "b"


def test_a_reader_sees_one_state_and_waits_for_nobody(storage):
    storage.meta.set("a", "1")
    read = sa.text("SELECT value FROM meta WHERE key = 'a'")
    with storage.database.reading() as reader:
        assert reader.execute(read).scalar() == "1"
        with storage.database.writing() as writer:
            writer.execute(sa.text("UPDATE meta SET value = '2'"))
            assert reader.execute(read).scalar() == "1"
        assert reader.execute(read).scalar() == "1"
    assert storage.meta.get("a") == "2"


def test_a_writer_sees_what_was_written_while_it_waited(storage, engine_place):
    """Two servers count up: with a snapshot of before the lock, one would take the other's number again."""
    storage.meta.set("a", "0")
    read = sa.text("SELECT value FROM meta WHERE key = 'a'")

    def count(place):
        for _ in range(20):
            with place.database.writing() as connection:
                value = int(connection.execute(read).scalar()) + 1
                connection.execute(sa.text("UPDATE meta SET value = :value"), {"value": str(value)})

    with contextlib.closing(open_storage(engine_place)) as other:
        threads = [
            threading.Thread(target=count, args=(place,)) for place in (storage, other, storage, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert storage.meta.get("a") == "80"


def test_a_broken_constraint_is_left_to_the_repositories(storage):
    with pytest.raises(sa.exc.IntegrityError), storage.database.writing() as connection:
        connection.exec_driver_sql("INSERT INTO meta (key) VALUES ('a')")


def test_ids_of_our_own_records_need_no_entropy_given(path):
    storage = open_storage(path)
    events = [storage.records.note(Event(kind=Kind.LIFECYCLE, action="start", time=NOW)) for _ in range(2)]
    storage.close()
    assert len({event.id for event in events}) == 2
    assert 0 <= _RecordIds().fraction() < 1
