# SPDX-License-Identifier: Apache-2.0
"""A token service per test."""

import contextlib

import pytest
from tests.support.identity import TestEntropy
from tests.support.issuer import IssuerUnderTest

from everyhop.providers.keystores import MemoryKeyStore
from everyhop.storage import open_storage


@pytest.fixture
def storage(tmp_path):
    with contextlib.closing(open_storage(tmp_path / "everyhop.db", entropy=TestEntropy())) as opened:
        yield opened


@pytest.fixture
def make(storage):
    """Make a service on the shared store, as a restart with other settings would."""
    keystore = MemoryKeyStore()
    return lambda **settings: IssuerUnderTest(storage, keystore=keystore, **settings)


@pytest.fixture
def issuer(make):
    return make()
