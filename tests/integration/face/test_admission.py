# SPDX-License-Identifier: Apache-2.0
"""The webhook through the real face: it is there only when asked for, and only it may be sent large objects."""

import json

import pytest
from tests.support.admission_cases import CASES, container, deployment
from tests.support.face_under_test import FaceUnderTest

from everyhop.admission.webhook import MAX_BODY_BYTES, PATH


def review(document):
    request = {"uid": "u-1", "operation": "CREATE", "object": document, "namespace": "shop", "name": "p"}
    return json.dumps(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    ).encode()


@pytest.fixture(scope="module")
def webhook():
    with FaceUnderTest(admission=True) as started:
        yield started


def test_without_the_setting_there_is_no_webhook(face):
    assert face.call("POST", PATH, body=review(CASES["strict"][0])).status == 404


def test_large_objects_are_judged_and_larger_ones_are_not_read(webhook):
    large = deployment(
        container(env=[{"name": "NOTE", "value": "x" * 3_000_000}, {"name": "A_TOKEN", "value": "x"}])
    )
    answer = webhook.call("POST", PATH, body=review(large))
    assert answer.status == 200
    assert answer.json["response"]["allowed"] is False
    assert webhook.call("POST", PATH, body=b" " * (MAX_BODY_BYTES + 1)).status == 413
    assert webhook.call("POST", "/token", body=b" " * 100_000).status == 413


def test_a_caller_without_a_certificate_is_answered(webhook):
    answer = webhook.call("POST", PATH, body=review(CASES["strict"][0]))
    assert answer.json["response"] == {"uid": "u-1", "allowed": True}
