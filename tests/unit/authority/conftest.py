# SPDX-License-Identifier: Apache-2.0
"""An authority on a database of its own, with a clock that moves when told to."""

import contextlib

import pytest
from tests.support.identity import DOMAIN, FakeClock, TestEntropy

from everyhop.authority import Authority
from everyhop.providers.keystores import MemoryKeyStore
from everyhop.spiffe import TrustDomain
from everyhop.storage import open_storage


@pytest.fixture
def storage(tmp_path):
    with contextlib.closing(open_storage(tmp_path / "everyhop.db", entropy=TestEntropy())) as opened:
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
