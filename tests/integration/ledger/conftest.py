# SPDX-License-Identifier: Apache-2.0
"""Databases that sync to the disk, on either engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.postgresql import PostgresServer, absent

from everyhop.storage import open_storage


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL that really syncs."""
    if why := absent():
        pytest.skip(why)
    started = PostgresServer(durable=True)
    yield started
    started.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """A database with the newest schema, as ``open_storage`` takes it."""
    found: Path | str = tmp_path / "everyhop.db"
    if request.param == "postgresql":
        started: PostgresServer = request.getfixturevalue("server")
        found = started.url(started.new_database())
    open_storage(found).close()
    return found
