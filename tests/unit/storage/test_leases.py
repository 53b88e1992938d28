# SPDX-License-Identifier: Apache-2.0
"""Leases: one holder at a time, taken over only after the end."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from tests.support.identity import NOW

from everyhop.core.errors import InputError

TTL = timedelta(seconds=15)


@pytest.mark.parametrize(
    ("name", "holder", "ttl"), [("", "a", TTL), ("x", "", TTL), ("x", "a", timedelta(0)), ("x", "a", -TTL)]
)
def test_what_is_no_lease(storage, name, holder, ttl):
    with pytest.raises(InputError):
        storage.leases.take(name, holder, now=NOW, ttl=ttl)


def test_somebody_elses_is_not_to_be_had_before_its_end(storage):
    assert storage.leases.take("exports", "a", now=NOW, ttl=TTL)
    assert not storage.leases.take("exports", "b", now=NOW, ttl=TTL)
    assert not storage.leases.take("exports", "b", now=NOW + TTL - timedelta(microseconds=1), ttl=TTL)
    assert storage.leases.holder("exports", now=NOW) == "a"
    assert storage.leases.holder("exports", now=NOW + TTL) is None
    assert storage.leases.take("exports", "b", now=NOW + TTL, ttl=TTL)
    assert storage.leases.holder("exports", now=NOW + TTL) == "b"
    assert not storage.leases.take("exports", "a", now=NOW + TTL, ttl=TTL)


def test_renewing_keeps_it(storage):
    assert storage.leases.take("exports", "a", now=NOW, ttl=TTL)
    assert storage.leases.take("exports", "a", now=NOW + TTL / 2, ttl=TTL)
    assert not storage.leases.take("exports", "b", now=NOW + TTL, ttl=TTL)


def test_only_the_holder_releases(storage):
    storage.leases.take("exports", "a", now=NOW, ttl=TTL)
    storage.leases.release("exports", "b")
    assert storage.leases.holder("exports", now=NOW) == "a"
    storage.leases.release("exports", "a")
    assert storage.leases.take("exports", "b", now=NOW, ttl=TTL)


def test_leases_are_apart(storage):
    assert storage.leases.take("exports", "a", now=NOW, ttl=TTL)
    assert storage.leases.take("detection", "b", now=NOW, ttl=TTL)


def test_of_many_at_once_one_gets_it(storage):
    def take(holder):
        return storage.leases.take("exports", f"server-{holder}", now=NOW, ttl=TTL)

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(take, range(12))) == 1
