# SPDX-License-Identifier: Apache-2.0
"""The sources against the agent's own Workload API: attested by the kernel, rotated, withdrawn, restarted."""

import shutil
import tempfile
from pathlib import Path

import pytest
from tests.support.agent_under_test import AgentUnderTest
from tests.support.trust_domain import wait_until

from everyhop.core.errors import AccessDenied, Unavailable
from everyhop.sdk import JwtSource, WorkloadApiClient, X509Source


@pytest.fixture
def directory():
    found = Path(tempfile.mkdtemp(prefix="eh-", dir="/tmp"))
    yield found
    shutil.rmtree(found)


@pytest.fixture
def agent(directory):
    with AgentUnderTest(directory) as found:
        found.apply({"orders": "[{run: true}]"})
        yield found


def test_refused_until_launched_then_rotated_then_withdrawn(agent):
    with X509Source(agent.endpoint) as source:
        with pytest.raises(AccessDenied):
            source.wait_ready(0.5)
        agent.launch("i1", "orders")
        assert str(source.wait_ready(10).spiffe_id) == "spiffe://shop.example/service/orders"
        for _ in range(3):
            before = source.thumbprint
            agent.rotate()
            wait_until(lambda old=before: source.thumbprint != old)
        agent.apply({"payments": "[{run: true}]"})
        wait_until(lambda: _gone(source))


def _gone(source):
    try:
        return source.svid is None
    except AccessDenied:
        return True


def test_jwt_svids_and_their_validation(agent):
    agent.launch("i1", "orders")
    with JwtSource(agent.endpoint) as source, WorkloadApiClient(agent.endpoint) as client:
        source.wait_ready(10)
        token = source.fetch("payments")
        assert str(source.validate(token, "payments").spiffe_id) == "spiffe://shop.example/service/orders"
        assert str(client.validate_jwt_svid(token, "payments").spiffe_id).endswith("/orders")
        assert client.fetch_x509_bundles()


def test_an_agent_that_is_restarted(directory):
    with AgentUnderTest(directory) as first:
        first.apply({"orders": "[{run: true}]"})
        first.launch("i1", "orders")
        source = X509Source(first.endpoint)
        identity = source.wait_ready(10)
    assert source.svid is identity
    with AgentUnderTest(directory) as second:
        second.apply({"orders": "[{run: true}]"})  # it finds the launch again by itself
        wait_until(lambda: source.svid.x5t != identity.x5t)
        source.close()
    other = X509Source(second.endpoint)
    with pytest.raises(Unavailable):
        other.wait_ready(0.2)
    other.close()
