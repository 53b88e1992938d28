# SPDX-License-Identifier: Apache-2.0
"""Fixtures for pytest.  In ``conftest.py``: ``pytest_plugins = ["everyhop.testing.pytest_plugin"]``.

``everyhop_policy`` is for you to override: the text of the policy, and the service under test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from everyhop.testing import Authority, FakeAgent, Issuer, service_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everyhop.sdk.context import ServiceContext


@pytest.fixture
def everyhop_policy() -> tuple[str, str]:
    """Return (policy text, service under test); override it in your conftest."""
    raise NotImplementedError("override the fixture everyhop_policy: return (policy text, service name)")


@pytest.fixture
def everyhop_authority() -> Authority:
    """Return a certificate authority of the trust domain ``shop.example``."""
    return Authority()


@pytest.fixture
def everyhop_issuer(everyhop_authority: Authority) -> Issuer:
    """Return an issuer of tokens of the same trust domain."""
    return Issuer(everyhop_authority.trust_domain.name)


@pytest.fixture
def everyhop_context(everyhop_policy: tuple[str, str], everyhop_issuer: Issuer) -> ServiceContext:
    """Return the context of the service under test."""
    policy, service = everyhop_policy
    return service_context(policy, service, everyhop_issuer)


@pytest.fixture
def everyhop_agent(
    everyhop_policy: tuple[str, str],
    everyhop_authority: Authority,
    everyhop_issuer: Issuer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FakeAgent]:
    """Yield an agent that serves the service under test; SPIFFE_ENDPOINT_SOCKET names it."""
    policy, service = everyhop_policy
    with FakeAgent(policy, service, authority=everyhop_authority, issuer=everyhop_issuer) as agent:
        monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", agent.socket)
        yield agent
