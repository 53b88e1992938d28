# SPDX-License-Identifier: Apache-2.0
"""One trust domain for the tests that only look; those that break things start their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from trust_domain import TrustDomainUnderTest, trust_domain


@pytest.fixture(scope="module")
def domain() -> Iterator[TrustDomainUnderTest]:
    """A trust domain with one ready instance of orders."""
    with trust_domain() as started:
        started.serve()
        yield started
