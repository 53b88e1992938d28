# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry logs: attributes in protobuf's JSON, partial success told and not sent again."""

import json

import pytest
from tests.support.exported import item
from tests.support.identity import NOW
from tests.support.receiver import Receiver, Reply

from everyhop.auditlog import Kind
from everyhop.core.errors import Unavailable
from everyhop.core.secret import Secret
from everyhop.exports import Format, OtlpSettings, RefusedError
from everyhop.exports.otlp import OtlpSink, log_record_of, rejected_of


class Clock:
    def now(self):
        return NOW


@pytest.fixture
def receiver():
    with Receiver() as opened:
        yield opened


def sink(receiver, **changes):
    settings = OtlpSettings(
        name="otel", format=Format.RECORD, url=f"http://127.0.0.1:{receiver.port}/v1/logs", **changes
    )
    return OtlpSink(settings, Clock())


@pytest.mark.parametrize(
    "answer",
    [b"[]", b"x", b'{"partialSuccess": 3}', b'{"partialSuccess":{"rejectedLogRecords":"many"}}', b"\xff"],
)
def test_answers_that_are_none(answer):
    with pytest.raises(Unavailable):
        rejected_of(answer)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", (0, "")),
        (b"{}", (0, "")),
        (b'{"partialSuccess":{}}', (0, "")),
        (b'{"partialSuccess":null}', (0, "")),
        (b'{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"no\\nroom"}}', (2, "no_room")),
        (b'{"partialSuccess":{"rejectedLogRecords":-2}}', (0, "")),
        (b'{"partialSuccess":{"errorMessage":"a warning"}}', (0, "a warning")),
    ],
)
def test_answers(answer, expected):
    assert rejected_of(answer) == expected


@pytest.mark.parametrize("header", [b"a\r\nevil: 1", b"a\x00b"])
async def test_headers_that_are_none(receiver, header):
    otlp = sink(receiver, headers={"authorization": lambda: Secret(header)})
    with pytest.raises(Unavailable, match="header"):
        await otlp.send([item(1)])
    assert receiver.got == []


async def test_a_request(receiver):
    otlp = sink(
        receiver,
        headers={"authorization": lambda: Secret(b"Bearer x\n")},
        resource={"deployment.environment.name": "test"},
    )
    assert await otlp.send([item(4), item(5)]) == 5
    assert await otlp.close() == 5
    (got,) = receiver.got
    assert got.path == "/v1/logs"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["authorization"] == "Bearer x"
    (resource_logs,) = json.loads(got.body)["resourceLogs"]
    resource = {a["key"]: a["value"] for a in resource_logs["resource"]["attributes"]}
    assert resource == {
        "service.name": {"stringValue": "everyhop"},
        "deployment.environment.name": {"stringValue": "test"},
    }
    (scope_logs,) = resource_logs["scopeLogs"]
    assert scope_logs["scope"]["name"] == "everyhop.auditlog"
    first, second = scope_logs["logRecords"]
    assert "body" not in first
    assert first["eventName"] == "everyhop.decision"
    assert (first["severityNumber"], second["severityNumber"]) == (9, 13)
    assert first["timeUnixNano"] == str(round(item(4).record.time.timestamp() * 1e6) * 1000)


def attributes(one):
    return {a["key"]: a["value"] for a in log_record_of(one, observed=NOW)["attributes"]}


def test_attributes():
    one = item(5, latency_ms=1.5, detail={"flag": True, "n": 2**70, "none": None, "t": "x"})
    found = attributes(one)
    assert found["log.record.uid"] == {"stringValue": f"{5:024x}"}
    assert found["everyhop.index"] == {"intValue": "5"}
    assert found["http.response.status_code"] == {"intValue": "403"}
    assert found["everyhop.latency_ms"] == {"doubleValue": 1.5}
    assert found["everyhop.detail.flag"] == {"boolValue": True}
    assert found["everyhop.detail.n"] == {"stringValue": str(2**70)}
    assert "everyhop.detail.none" not in found


def test_traces():
    assert "traceId" not in log_record_of(item(1), observed=NOW)
    made = log_record_of(item(1, trace="ab" * 16 + "-" + "cd" * 8), observed=NOW)
    assert (made["traceId"], made["spanId"]) == ("ab" * 16, "cd" * 8)


def test_a_finding_is_severe():
    made = log_record_of(item(1, kind=Kind.FINDING, detail={"severity": "critical"}), observed=NOW)
    assert (made["severityNumber"], made["severityText"], made["eventName"]) == (
        21,
        "FATAL",
        "everyhop.finding",
    )


async def test_partial_success_is_told_once_and_not_sent_again(receiver):
    receiver.replies = [Reply(body=b'{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"bad"}}')]
    otlp = sink(receiver)
    assert await otlp.send([item(1), item(2)]) == 2
    (told,) = otlp.told()
    assert told.reason == "rejected-by-receiver"
    assert told.detail == {"from": 1, "to": 2, "count": 1, "message": "bad"}
    assert otlp.told() == []
    await otlp.close()


@pytest.mark.parametrize(("status", "patient"), [(429, False), (503, False), (400, True), (401, True)])
async def test_refusals(receiver, status, patient):
    receiver.replies = [Reply(status)]
    otlp = sink(receiver)
    with pytest.raises(RefusedError) as caught:
        await otlp.send([item(1)])
    assert caught.value.is_patient is patient
    await otlp.close()


async def test_an_answer_of_something_else_confirms_nothing(receiver):
    receiver.replies = [Reply(body=b"<html>a captive portal</html>")]
    otlp = sink(receiver)
    with pytest.raises(Unavailable, match="log receiver"):
        await otlp.send([item(1)])
    assert await otlp.close() == 0
