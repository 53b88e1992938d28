# SPDX-License-Identifier: Apache-2.0
"""What only PostgreSQL can do wrong: addresses, encodings, replicas that start or write at once, a restart."""

import contextlib
import os
import signal
import threading
import time

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from tests.support.identity import NOW, TestEntropy
from tests.support.ledger import record
from tests.support.postgresql import PostgresServer, absent

from everyhop.auditlog import Event, Kind
from everyhop.core.errors import InputError, SettingsError, Unavailable
from everyhop.storage import current_revision, metadata, migrate, open_postgresql, open_storage

if why := absent():
    pytest.skip(why, allow_module_level=True)


@pytest.fixture
def url(postgres):
    return postgres.empty()


@pytest.fixture
def fresh(postgres):
    name = postgres.new_database()
    yield postgres.url(name)
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://user:hunter2%zz@host/y",
        "postgresql://user:hunter2@host/y?nonsense=1",
        "mysql://user:hunter2@host/y",
        "host=a password=hunter2",
        "",
    ],
)
def test_what_is_no_url_is_refused_without_repeating_it(text):
    with pytest.raises(SettingsError, match="no URL") as caught:
        open_storage(text)
    error = caught.value
    assert "hunter2" not in f"{error!r} {error.hint} {error.__cause__!r}"


def test_a_server_that_is_not_there_is_unavailable_at_once(tmp_path):
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        open_storage(f"postgresql://user:hunter2@/everyhop?host={tmp_path}")
    assert time.monotonic() - began < 2
    assert caught.value.retry
    assert "hunter2" not in str(caught.value)


def test_a_database_that_is_not_there(postgres):
    with pytest.raises(Unavailable, match="does not exist"):
        open_storage(postgres.url("nowhere"))


def test_a_database_that_cannot_hold_every_text(postgres):
    postgres.execute("CREATE DATABASE narrow ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(SettingsError, match="LATIN1"):
        open_storage(postgres.url("narrow"))


def test_confirmed_means_on_the_disk_whatever_the_database_says(url):
    with open_postgresql(url + "&options=-csynchronous_commit%3Doff") as database:
        for transaction in (database.reading, database.writing):
            with transaction() as connection:
                assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"


def test_a_role_that_may_only_read_and_write_rows_is_enough(url, postgres):
    database = url.partition("@/")[2].partition("?")[0]
    with open_postgresql(url) as opened, opened.writing() as connection:
        connection.exec_driver_sql("DROP ROLE IF EXISTS modest")
        connection.exec_driver_sql("CREATE ROLE modest LOGIN")
        connection.exec_driver_sql(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO modest"
        )
        connection.exec_driver_sql("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO modest")
    with contextlib.closing(
        open_storage(f"postgresql://modest@/{database}?host={postgres.directory}")
    ) as storage:
        storage.records.append([record(n) for n in range(1, 300)])
        storage.records.prune(now=NOW, keep_rows=0)
        storage.snapshots.save(b"{}", "a" * 64, "file", NOW)
    with open_postgresql(url) as opened, opened.writing() as connection:
        connection.exec_driver_sql("DROP OWNED BY modest")
        connection.exec_driver_sql("DROP ROLE modest")


def test_readers_cannot_write(url):
    with open_postgresql(url) as database:
        with pytest.raises(Unavailable, match="read-only") as caught, database.reading() as connection:
            connection.exec_driver_sql("INSERT INTO meta VALUES ('a', 'b')")
        assert caught.value.retry  # as of a server that is a standby for a moment


def test_a_table_that_is_missing_is_no_passing_fault(url):
    with (
        open_postgresql(url) as database,
        pytest.raises(Unavailable, match="refuses") as caught,
        database.reading() as connection,
    ):
        connection.exec_driver_sql("SELECT * FROM nonsense")
    assert not caught.value.retry


def test_a_nul_is_an_input_error(url):
    with contextlib.closing(open_storage(url)) as storage, pytest.raises(InputError):
        storage.meta.set("a", "\0")


def test_replicas_that_start_at_once_migrate_once(fresh):
    errors, results = [], []

    def start():
        try:
            with open_postgresql(fresh) as database:
                results.append(migrate(database))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (errors, sorted(results)) == ([], [False, False, False, True])


def test_the_schema_is_what_the_migrations_make(fresh):
    with open_postgresql(fresh) as database:
        migrate(database)
        with database.reading() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
            migrated = shape(connection)
        migrate(database, "0001")
        with database.writing() as connection:
            from everyhop.storage.migrate import _run

            _run(connection, "base", is_upgrade=False)
        with database.reading() as connection:
            assert current_revision(connection) is None
            assert sa.inspect(connection).get_table_names() == ["alembic_version"]
        with database.writing() as connection:
            metadata.create_all(connection)
            assert shape(connection) == migrated


def shape(connection):
    """Return what PostgreSQL says about columns, constraints and indexes."""
    columns = (
        "SELECT table_name, column_name, data_type, is_nullable, collation_name, column_default"
        " FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'"
    )
    constraints = (
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace AND conrelid <> 'alembic_version'::regclass"
    )
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
    questions = (columns, constraints, indexes)
    return [sorted(map(tuple, connection.exec_driver_sql(question))) for question in questions]


def test_a_writer_of_another_server_is_waited_for_two_seconds_at_most(url):
    with open_postgresql(url) as one, open_postgresql(url) as other, one.writing():
        began = time.monotonic()
        with pytest.raises(Unavailable, match="lock") as caught, other.writing():
            pass
        assert 1.5 < time.monotonic() - began < 3
        assert caught.value.retry


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root to stop a process of PostgreSQL's user")
def test_a_database_that_freezes_is_unavailable_and_nobody_hangs(url):
    with open_postgresql(url) as database:
        with database.writing() as connection:
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(Unavailable) as caught, database.writing():
                pass
            assert 2 < time.monotonic() - began < 5
            assert caught.value.retry
        finally:
            os.kill(pid, signal.SIGCONT)
        with database.writing() as connection:
            assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() != pid


def test_the_lock_ends_with_the_server_that_held_it(url, postgres):
    with open_postgresql(url) as one, open_postgresql(url) as other:
        with pytest.raises(Unavailable), one.writing() as connection:
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
            connection.exec_driver_sql("INSERT INTO meta VALUES ('a', 'half')")
            postgres.execute(f"SELECT pg_terminate_backend({pid})")
            with other.writing() as second:
                second.exec_driver_sql("INSERT INTO meta VALUES ('a', 'whole')")
        with other.reading() as connection:
            assert connection.exec_driver_sql("SELECT value FROM meta").scalar() == "whole"


def test_two_servers_number_their_own_records_without_gaps(url):
    def note(storage):
        for _ in range(25):
            storage.records.note(Event(kind=Kind.LIFECYCLE, action="start", time=NOW))

    with contextlib.ExitStack() as stack:
        replicas = [
            stack.enter_context(contextlib.closing(open_storage(url, entropy=TestEntropy())))
            for _ in range(2)
        ]
        threads = [threading.Thread(target=note, args=(replica,)) for replica in replicas]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (replicas[0].records.last_seq("server"), replicas[1].records.count()) == (50, 50)


def test_a_restart_of_the_database_is_survived():
    server = PostgresServer()
    try:
        with contextlib.closing(open_storage(server.url())) as storage:
            storage.records.append([record(1)])
            server.stop()
            with pytest.raises(Unavailable) as caught:
                storage.records.append([record(2)])
            assert caught.value.retry
            server.start()
            assert storage.records.append([record(1), record(2)]).stored == 1
    finally:
        server.close()
