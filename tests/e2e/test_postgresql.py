# SPDX-License-Identifier: Apache-2.0
"""``everyhop up`` on PostgreSQL, end to end: calls, records, a crash of the database, a second server on it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.ledger_writers import check_log
from tests.support.postgresql import PostgresServer, absent
from trust_domain import TrustDomainUnderTest, trust_domain, wait_until

from everyhop.storage import open_storage


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL of this file's own."""
    if why := absent():
        pytest.skip(why)
    started = PostgresServer()
    yield started
    started.close()


def _call(domain: TrustDomainUnderTest) -> int:
    return int(domain.json("call", "orders", "GET", "/orders", "--as", "storefront")["status"])


@pytest.mark.timeout(300)
def test_a_trust_domain_on_postgresql(server: PostgresServer) -> None:
    url = server.url(server.new_database())
    with trust_domain(database=url) as domain:
        assert not (domain.state / "everyhop.db").exists()
        domain.serve()
        assert _call(domain) == 200
        assert domain.cli("call", "orders", "POST", "/orders", "--as", "storefront", code=None)
        wait_until(lambda: {r["decision"] for r in domain.records()} == {"allow", "deny"}, what="records")

        # The database crashes and comes back: calls went on meanwhile, and what they left is recorded after all.
        before = len(domain.records())
        server.stop("immediate")
        assert _call(domain) == 200
        server.start()
        wait_until(lambda: _recorded(domain) > before, seconds=40, what="what was spooled is recorded")

        _second_server(domain, url)
    with contextlib.closing(open_storage(url)) as storage:
        check_log(storage, {})


def _recorded(domain: TrustDomainUnderTest) -> int:
    from everyhop.core.errors import EveryhopError

    with contextlib.suppress(EveryhopError):
        return len(domain.records())
    return 0


def _second_server(domain: TrustDomainUnderTest, url: str) -> None:
    """Start another server on the same database, with a copy of the keys: one trust domain, one log."""
    other = TrustDomainUnderTest(database=url)
    other.state.mkdir(mode=0o700)
    shutil.copytree(domain.state / "keys", other.state / "keys", copy_function=_copy)
    with other:
        assert other.status()["snapshot"] == domain.status()["snapshot"]
        other.serve()
        assert _call(other) == 200
        wait_until(
            lambda: {r["instance"] for r in domain.records()} == {r["instance"] for r in other.records()},
            what="both servers show the same log",
        )
        assert _call(domain) == 200


def _copy(source: str, target: str) -> None:
    shutil.copy2(source, target)
    Path(target).chmod(0o600)
