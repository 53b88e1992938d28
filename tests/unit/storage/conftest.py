# SPDX-License-Identifier: Apache-2.0
"""A database per test, on either engine."""

import contextlib

import pytest
from tests.support.identity import TestEntropy
from tests.support.postgresql import engine_place, postgres

from everyhop.storage import open_storage

__all__ = ["engine_place", "postgres"]


@pytest.fixture
def storage(engine_place):
    with contextlib.closing(open_storage(engine_place, entropy=TestEntropy())) as opened:
        yield opened
