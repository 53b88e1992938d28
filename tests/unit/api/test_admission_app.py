# SPDX-License-Identifier: Apache-2.0
"""The validating webhook: what it cannot read is no answer, what it refuses is said and recorded."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest
from tests.support.admission_cases import CASES, DEFAULT_DENIES, POD, deployment, peer
from tests.support.sealed_log import SealedLog

from everyhop.admission.webhook import MAX_BODY_BYTES, PATH
from everyhop.api import admission_app
from everyhop.api.admission_app import AdmissionDoor
from everyhop.api.http import make_app
from everyhop.auditlog import Kind, RecordFilter
from everyhop.auditlog.ocsf import event_of
from everyhop.core.errors import Unavailable


def review(document, *, operation="CREATE", old=None, **more):
    request = {
        "uid": "u-1",
        "operation": operation,
        "object": document,
        "oldObject": old,
        "namespace": "shop",
        "name": "p",
        **more,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


@pytest.fixture
def log(tmp_path):
    tmp_path.chmod(0o700)
    made = SealedLog(tmp_path)
    yield made
    made.close()


@pytest.fixture
async def client(log):
    with ThreadPoolExecutor(1) as pool:
        app = make_app(AdmissionDoor(records=log.storage.records, clock=log.clock, pool=pool).routes())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://face") as made:
            yield made


def recorded(log):
    return list(log.storage.records.query(RecordFilter(kind=Kind.POLICY)).records)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}', 400),
        (
            b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": 1, "operation": "CREATE"}}',
            400,
        ),
        (
            b'{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {"uid": "1", "operation": "CREATE"}}',
            503,
        ),
        (b'{"a": "' + b"x" * MAX_BODY_BYTES + b'"}', 400),
        (b"[" * 100_000, 400),
    ],
    ids=["empty", "list", "no request", "wrong type", "other version", "large", "deep"],
)
async def test_what_is_no_review_is_an_error(client, log, body, status):
    answer = await client.post(PATH, content=body)
    assert answer.status_code == status
    assert "response" not in answer.json()
    assert recorded(log) == []


async def test_other_methods_are_refused(client):
    assert (await client.get(PATH)).status_code == 405


@pytest.mark.parametrize("name", ["permissive", "allow all", "literal password", "account by default"])
async def test_an_object_that_should_not_be_there_is_refused_and_recorded(client, log, name):
    document, codes = CASES[name]
    answer = (await client.post(PATH, json=review(document))).json()
    assert answer["kind"] == "AdmissionReview"
    assert (answer["response"]["uid"], answer["response"]["allowed"]) == ("u-1", False)
    assert answer["response"]["status"]["code"] == 403
    assert codes[0] in answer["response"]["status"]["message"]
    (record,) = recorded(log)
    assert (record.decision, record.reason, record.operation) == ("deny", codes[0], "admit")
    assert record.detail.get("value") != "x"
    assert event_of(record)


async def test_what_is_right_is_admitted_and_not_recorded(client, log):
    for name in ("strict", "deny all", "plain deployment", "an unknown kind"):
        answer = (await client.post(PATH, json=review(CASES[name][0]))).json()
        assert answer["response"] == {"uid": "u-1", "allowed": True}
    assert recorded(log) == []


@pytest.mark.parametrize(
    ("operation", "new"),
    [("DELETE", None), ("UPDATE", {**DEFAULT_DENIES["istio"], "spec": {"action": "DENY", "rules": [{}]}})],
)
async def test_a_default_deny_does_not_go(client, operation, new):
    answer = (
        await client.post(PATH, json=review(new, operation=operation, old=DEFAULT_DENIES["istio"]))
    ).json()
    assert not answer["response"]["allowed"]
    assert "default-deny-removed" in answer["response"]["status"]["message"]


async def test_a_permissive_object_may_always_be_deleted(client):
    answer = await client.post(PATH, json=review(None, operation="DELETE", old=CASES["permissive"][0]))
    assert answer.json()["response"]["allowed"]


async def test_a_dry_run_leaves_no_record(client, log):
    answer = await client.post(PATH, json=review(CASES["permissive"][0], dryRun=True))
    assert not answer.json()["response"]["allowed"]
    assert recorded(log) == []


async def test_records_are_bounded_and_what_was_left_out_is_told(client, log, monkeypatch):
    monkeypatch.setattr(admission_app, "RECORDS_A_MINUTE", 3)
    for _ in range(5):
        await client.post(PATH, json=review(CASES["permissive"][0]))
    assert len(recorded(log)) == 3
    log.clock.advance(timedelta(minutes=1))
    await client.post(PATH, json=review(CASES["permissive"][0]))
    assert max(record.detail["unrecorded"] for record in recorded(log)) == 2


async def test_a_log_that_does_not_answer_opens_nothing(log):
    class Broken:
        def note(self, event):
            raise Unavailable("the database is away")

    with ThreadPoolExecutor(1) as pool:
        app = make_app(AdmissionDoor(records=Broken(), clock=log.clock, pool=pool).routes())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://face") as made:
            assert not (await made.post(PATH, json=review(CASES["permissive"][0]))).json()["response"][
                "allowed"
            ]


async def test_many_at_once_are_answered_or_refused_and_never_admitted_wrongly(client):
    document = review(deployment({**POD, "automountServiceAccountToken": True}))
    answers = await asyncio.gather(*(client.post(PATH, json=document) for _ in range(60)))
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert not any(a.json()["response"]["allowed"] for a in answers if a.status_code == 200)
    assert (await client.post(PATH, json=review(peer({"mtls": {"mode": "STRICT"}})))).json()["response"][
        "allowed"
    ]
