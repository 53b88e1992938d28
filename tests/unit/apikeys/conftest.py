# SPDX-License-Identifier: Apache-2.0
"""API keys on a database of their own."""

import contextlib

import pytest
from tests.support.identity import FakeClock, TestEntropy
from tests.support.postgresql import engine_place_long, postgres

from everyhop.apikeys import ApiKeys
from everyhop.providers.keystores import MemoryKeyStore
from everyhop.storage import open_storage

__all__ = ["engine_place_long", "postgres"]


@pytest.fixture
def storage(engine_place_long):
    with contextlib.closing(open_storage(engine_place_long, entropy=TestEntropy())) as opened:
        yield opened


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def edge():
    """What the policy opens to the outside; tests change it."""
    return {"shop.checkout", "shop.browse", "search.query"}


@pytest.fixture
def make(storage, clock, edge):
    keystore = MemoryKeyStore()

    def build(**changed):
        values = {
            "store": storage.api_keys,
            "keystore": keystore,
            "edge_scopes": lambda: frozenset(edge),
            "clock": clock,
            "entropy": TestEntropy(),
        }
        return ApiKeys(**{**values, **changed})

    return build


@pytest.fixture
def keys(make):
    return make()
