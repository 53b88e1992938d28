# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL of a test's own, on a Unix socket; tests share one database of it, and empty it."""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_PR_SET_PDEATHSIG = 1
_EMPTY = """
DO $$
DECLARE name text;
BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid();
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'
        ORDER BY tablename DESC
    LOOP
        EXECUTE format('DELETE FROM %I', name);
    END LOOP;
    INSERT INTO log_head VALUES (1, 0, decode('0000000000000000', 'hex'));
END $$
"""


def programs() -> Path | None:
    """Return the directory of PostgreSQL's programs, the newest version first, or None."""
    for place in (
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
        Path(shutil.which("initdb") or "/x").parent,
    ):
        if (place / "initdb").exists() and (place / "pg_ctl").exists():
            return place
    return None


def absent() -> str | None:
    """Say why there can be no PostgreSQL here, or None."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed"
    if programs() is None:
        return "PostgreSQL is not installed"
    if os.getuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "PostgreSQL does not run as root, and there is no account for it"
    return None


class PostgresServer:
    """A running server; call :meth:`close`.  With ``durable`` it syncs to the disk, as a real one does."""

    def __init__(self, *, durable: bool = False) -> None:
        place = programs()
        assert place is not None
        self._programs = place
        self.directory = Path(tempfile.mkdtemp(prefix="pg-"))
        self._as_user: dict[str, Any] = {}
        if os.getuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(self.directory, account.pw_uid, account.pw_gid)
            self._as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self._options = ["-k", str(self.directory), "-c", "listen_addresses="]
        self._options += [] if durable else ["-c", "fsync=off"]
        self._data = str(self.directory / "data")
        self._count = itertools.count(1)
        self._initdb("-A", "trust", "-U", "test", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.directory / "log").open("ab") as output:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, *self._options],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_end_with_parent,  # noqa: PLW1509  # it makes one system call
                **self._as_user,
            )
        self._wait()

    def _wait(self) -> None:
        import psycopg

        end = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url()).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.directory / "log").read_text()[-2000:]
                assert time.monotonic() < end, "PostgreSQL does not answer"
                time.sleep(0.02)
            else:
                return

    def stop(self, mode: str = "fast") -> None:
        """Stop it; ``immediate`` is a crash."""
        self._process.send_signal(signal.SIGQUIT if mode == "immediate" else signal.SIGINT)
        self._process.wait(60)

    def url(self, database: str = "postgres") -> str:
        """Return what the setting ``database`` takes."""
        return f"postgresql://test@/{database}?host={self.directory}"

    def execute(self, statement: str) -> None:
        """Execute one statement in the first database."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)

    def new_database(self, template: str = "template0") -> str:
        """Make a database; return its name."""
        name = f"d{next(self._count)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    @functools.cached_property
    def migrated(self) -> str:
        """The URL of a database with the newest schema."""
        from everyhop.storage import open_storage

        url = self.url(self.new_database())
        open_storage(url).close()
        return url

    def empty(self) -> str:
        """Empty that database and return its URL: a hundred times as fast as making another one."""
        import psycopg

        with psycopg.connect(self.migrated) as connection:
            connection.execute(_EMPTY)
        return self.migrated

    def close(self) -> None:
        """Stop it without ceremony, and remove it."""
        if self._process.poll() is None:
            self.stop("immediate")
        shutil.rmtree(self.directory, ignore_errors=True)

    def _initdb(self, *arguments: str) -> None:
        subprocess.run(
            [self._programs / "initdb", "-D", self._data, *arguments],
            check=True,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            **self._as_user,
        )


def _end_with_parent() -> None:
    """Ask the kernel for SIGQUIT, which is PostgreSQL's immediate stop, when the tests are killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests of a worker; skips where there is none."""
    if why := absent():
        pytest.skip(why)
    server = PostgresServer()
    yield server
    server.close()


def _place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    if request.param == "sqlite":
        return tmp_path / "everyhop.db"
    url: str = request.getfixturevalue("postgres").empty()
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def engine_place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """A database on either engine, as ``open_storage`` takes it; that of PostgreSQL has the newest schema."""
    return _place(request, tmp_path)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def engine_place_long(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """The same for suites that test storage by the way: PostgreSQL's turn comes with the long tests."""
    return _place(request, tmp_path)
