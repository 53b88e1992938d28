# SPDX-License-Identifier: Apache-2.0
"""``Decisions`` on ``workload.sock``: a real socket, a real peer, hostile messages."""

import shutil
import struct
import tempfile
from pathlib import Path

import pytest
from tests.support.agent_under_test import AgentUnderTest
from tests.support.raw_grpc import RawGrpc

from everyhop.dataplane.spool import Delivery
from everyhop.wire.decisions import MAX_DECISIONS, REPORT, Decision, ReportRequest, ReportResponse

INVALID_ARGUMENT, PERMISSION_DENIED, RESOURCE_EXHAUSTED = 3, 7, 8
ID = "5f0c9c1e-1111-4222-8333-444444444444"


@pytest.fixture
def agent():
    directory = Path(tempfile.mkdtemp(prefix="eh-", dir="/tmp"))
    with AgentUnderTest(directory) as found:
        found.apply({"orders": "[{run: true}]", "payments": "[{run: true}]"})
        yield found
    shutil.rmtree(directory)


def ask(agent, request, **options):
    with RawGrpc(agent.socket) as client:
        message = request if isinstance(request, bytes) else request.SerializeToString()
        return client.ask(REPORT, message, **options)


def forwarded(agent):
    found = []

    async def send(records, _previous):
        found.extend(records)
        return Delivery(held=records[-1].seq)

    async def all_of_them():
        for spool in agent.decisions.spools:
            await spool.forward(send)

    agent.call(all_of_them)
    return found


def test_the_security_header_is_required(agent):
    agent.launch("i1", "orders")
    (outcome,) = ask(agent, ReportRequest(decisions=[Decision(id=ID)]), metadata=())
    assert outcome[:2] == ("status", INVALID_ARGUMENT)
    assert forwarded(agent) == []


def test_who_is_no_workload_reports_nothing(agent):
    (outcome,) = ask(agent, ReportRequest(decisions=[Decision(id=ID)]))
    assert outcome[:2] == ("status", PERMISSION_DENIED)
    assert forwarded(agent) == []


def test_no_decision_of_another_service(agent):
    agent.launch("i1", "orders")
    other = "spiffe://shop.example/service/payments"
    (outcome,) = ask(agent, ReportRequest(decisions=[Decision(id=ID)], spiffe_id=other))
    assert outcome[:2] == ("status", PERMISSION_DENIED)
    assert forwarded(agent) == []


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (ReportRequest(decisions=[Decision(id=ID)] * (MAX_DECISIONS + 1)), INVALID_ARGUMENT),
        (ReportRequest(decisions=[Decision(id="a b")]), INVALID_ARGUMENT),
        (b"\xff\xff\xff", INVALID_ARGUMENT),
    ],
    ids=["long", "id", "junk"],
)
def test_hostile_batches_keep_nothing(agent, request_, status):
    agent.launch("i1", "orders")
    assert ask(agent, request_)[-1][:2] == ("status", status)
    assert forwarded(agent) == []


def test_a_message_beyond_the_limit_is_refused_by_its_announced_length(agent):
    agent.launch("i1", "orders")
    with RawGrpc(agent.socket) as client:
        stream = client.open(REPORT, None, end=False)
        client.h2.send_data(stream, struct.pack(">BI", 0, 1024 * 1024))
        client.flush()
        assert client.next()[:2] == ("status", RESOURCE_EXHAUSTED)
    assert forwarded(agent) == []


def test_a_batch_is_kept_under_the_attested_service(agent):
    agent.launch("i1", "orders")
    claims = [Decision(id=ID, path="/a\nb", status=2**32 - 1, time=-(2**63)), Decision(id=ID, allowed=True)]
    answer = ask(agent, ReportRequest(decisions=claims, dropped=3))
    assert ReportResponse.FromString(answer[0][1]).taken == 2
    first, second, lost = forwarded(agent)
    assert (first.target, first.point.value, first.path, first.status) == ("orders", "sdk", "/a\ufffdb", None)
    assert (second.decision, lost.detail["count"]) == ("allow", 3)
