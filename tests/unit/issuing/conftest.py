# SPDX-License-Identifier: Apache-2.0
"""A token service per test."""

import contextlib

import pytest
from tests.support.identity import TestEntropy
from tests.support.issuer import IssuerUnderTest
from tests.support.postgresql import engine_place_long, postgres

from everyhop.providers.keystores import MemoryKeyStore
from everyhop.storage import open_storage

__all__ = ["engine_place_long", "postgres"]


@pytest.fixture
def storage(engine_place_long):
    with contextlib.closing(open_storage(engine_place_long, entropy=TestEntropy())) as opened:
        yield opened


@pytest.fixture
def make(storage):
    """Make a service on the shared store, as a restart with other settings would."""
    keystore = MemoryKeyStore()
    return lambda **settings: IssuerUnderTest(storage, keystore=keystore, **settings)


@pytest.fixture
def issuer(make):
    return make()
