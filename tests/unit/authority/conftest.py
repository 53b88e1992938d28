# SPDX-License-Identifier: Apache-2.0
"""An authority on a database of its own, with a clock that moves when told to."""

import contextlib

import pytest
from tests.support.identity import DOMAIN, FakeClock, TestEntropy
from tests.support.postgresql import engine_place_long, postgres

from everyhop.authority import Authority
from everyhop.providers.keystores import MemoryKeyStore
from everyhop.spiffe import TrustDomain
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
def keystore():
    return MemoryKeyStore()


@pytest.fixture
def make(storage, clock, keystore):
    """Make an authority on the shared store, as a second process or a restart would."""

    def build(**changed):
        values = {
            "trust_domain": TrustDomain.parse(DOMAIN),
            "store": storage.authorities,
            "keystore": keystore,
            "clock": clock,
            "entropy": TestEntropy(),
        }
        return Authority(**{**values, **changed})

    return build


@pytest.fixture
def authority(make):
    started = make()
    started.start()
    return started
