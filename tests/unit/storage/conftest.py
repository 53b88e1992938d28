# SPDX-License-Identifier: Apache-2.0
"""A database per test."""

import contextlib

import pytest
from tests.support.identity import TestEntropy

from everyhop.storage import open_storage


@pytest.fixture
def storage(tmp_path):
    with contextlib.closing(open_storage(tmp_path / "everyhop.db", entropy=TestEntropy())) as opened:
        yield opened
