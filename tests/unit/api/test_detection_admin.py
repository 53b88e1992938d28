# SPDX-License-Identifier: Apache-2.0
"""The owner's door to detection: thresholds, one counter, findings, and what another policy would have found."""

from __future__ import annotations

import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest
from tests.support.control_plane import POLICY, ControlUnderTest, TextSource

from everyhop.api.server_app import AdminDoor
from everyhop.auditlog import Kind, Point, Record, RecordFilter
from everyhop.core.clock import rfc3339
from everyhop.runtime.detection import detection_of
from everyhop.runtime.settings import Settings

ORDERS = "spiffe://shop.example/service/orders"


@pytest.fixture
async def under_test(tmp_path):
    made = ControlUnderTest(tmp_path)
    await made.control.start(TextSource())
    with ThreadPoolExecutor(1) as pool:
        made.control.detection = detection_of(
            made.storage,
            Settings(),
            snapshot=lambda: made.control.snapshot,
            clock=made.clock,
            pool=pool,
            responder=made.control.responder,
            reveal=made.control._p.pseudonymity.reveal,
        )
        yield made
    made.close()


@pytest.fixture
async def admin(under_test):
    transport = httpx.ASGITransport(app=AdminDoor(under_test.control).app(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield client


async def watched(under_test):
    """Look at everything that is recorded."""
    detection = under_test.control.detection
    if not detection._position:
        await detection._call(detection._begin)
    while (await detection.status())["head"] != detection._position:
        await detection._once()


def calls(under_test, n, **fields):
    base = {"time": under_test.clock.now(), "kind": Kind.DECISION, "point": Point.EDGE, "caller": "outside", "decision": "deny",
            "reason": "MISSING_TOKEN", "detail": {"host": "203.0.113.7"}}  # fmt: skip
    producer = secrets.token_hex(4)
    under_test.storage.records.append(
        [
            Record(**{"id": f"{producer}-{k}", "seq": k, "producer": producer, **base, **fields})
            for k in range(1, n + 1)
        ]
    )


async def test_the_way_from_calls_to_a_block_and_what_is_shown_of_it(under_test, admin):
    await watched(under_test)
    calls(under_test, 500)
    await watched(under_test)
    found = (await admin.get("/v1/findings", params={"detector": "rate-anomaly"})).json()["findings"]
    assert [(one["answer"], one["subject"], one["observed"]) for one in found] == [
        ("alert", "address:203.0.113.7", 100),
        ("blocked", "address:203.0.113.7", 500),
    ]
    assert len(found[1]["evidence"]) == 8
    shown = (await admin.get("/v1/detect/subject", params={"subject": "address:203.0.113.7"})).json()
    assert (shown["blocked"], shown["count"], shown["limits"]["block"]) == (True, 0, 500)
    assert shown["counting_again_in"] == pytest.approx(3600, abs=60)
    reads = under_test.storage.records.query(RecordFilter(kind=Kind.LOG), limit=10).records
    assert [one.operation for one in reads] == ["read"]


async def test_findings_are_looked_for(under_test, admin):
    await watched(under_test)
    calls(under_test, 100)
    await watched(under_test)
    under_test.clock.move(minutes=10)
    calls(under_test, 100, detail={"host": "198.51.100.9"})
    await watched(under_test)

    async def subjects(**params):
        answer = await admin.get("/v1/findings", params={"detector": "rate-anomaly", **params})
        return [one["subject"] for one in answer.json()["findings"]]

    assert await subjects() == ["address:203.0.113.7", "address:198.51.100.9"]
    assert await subjects(subject="address:198.51.100.9") == ["address:198.51.100.9"]
    assert await subjects(limit=1) == ["address:198.51.100.9"]
    assert await subjects(detector="nobody") == []
    assert await subjects(since=rfc3339(under_test.clock.now() + timedelta(seconds=1))) == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/findings?limit=0", 400),
        ("/v1/findings?limit=x", 400),
        ("/v1/findings?since=yesterday", 400),
        ("/v1/findings?subject=nobody", 404),
        ("/v1/detect/subject", 404),
        ("/v1/detect/subject?subject=address:x", 400),
    ],
)
async def test_questions_that_are_none(under_test, admin, path, status):
    assert (await admin.get(path)).status_code == status


async def test_the_status_names_what_holds_and_what_is_off(under_test, admin):
    policy = POLICY + "detect: {mode: observe, users: {alert: 7}, detectors: {volume: off}}\n"
    await under_test.control.apply_policy({"shop.yaml": policy.encode()}, source="x")
    await watched(under_test)
    calls(under_test, 1)
    await watched(under_test)
    status = (await admin.get("/v1/detect")).json()
    assert status["limits"]["users"]["alert"] == 7
    assert status["limits"]["services"]["count"] == ["denied", "failed", "undeclared"]
    assert status["written"]["mode"] == "observe"
    assert {"volume", "impossible-travel"} <= set(status["off"])
    assert "new-edge" in status["detectors"]


async def test_a_policy_with_a_detector_that_does_not_exist_is_refused(under_test, admin):
    text = POLICY + "detect: {detectors: {new-edges: off}}\n"
    answer = await admin.post("/v1/policy", json={"files": {"shop.yaml": text}})
    assert answer.status_code == 422
    assert "new-edges" in answer.text


async def replayed(admin, under_test, **message):
    since = rfc3339(under_test.clock.now() - timedelta(hours=1))
    answer = await admin.post("/v1/detect/replay", json={"since": since, **message})
    return [json.loads(line) for line in answer.content.splitlines()]


async def test_a_replay_says_what_another_policy_would_have_found(under_test, admin):
    calls(under_test, 300)
    *_, last = await replayed(admin, under_test)
    (alert,) = [c for c in last["result"]["counts"] if c["detector"] == "rate-anomaly"]
    assert (alert["answer"], alert["count"], last["result"]["blocked"]) == ("alert", 1, [])
    stricter = {"shop.yaml": POLICY + "detect: {addresses: {alert: 10, block: 50}}\n"}
    *_, last = await replayed(admin, under_test, files=stricter)
    assert last["result"]["blocked"] == ["address:203.0.113.7"]
    assert last["result"]["records"] >= 300
    assert not under_test.control.responder.blocks.by_subject
    reads = under_test.storage.records.query(RecordFilter(kind=Kind.LOG), limit=10).records
    assert [one.detail["what"] for one in reads] == ["replay", "replay"]


async def test_a_replay_of_what_does_not_parse_is_refused(under_test, admin):
    since = rfc3339(under_test.clock.now())
    answer = await admin.post("/v1/detect/replay", json={"since": since, "files": {"p.yaml": "version: 7"}})
    assert answer.status_code == 422
    assert (await admin.post("/v1/detect/replay", json={})).status_code == 400


async def test_without_detection_it_says_so(under_test, admin):
    under_test.control.detection = None
    assert (await admin.get("/v1/detect")).status_code == 503
