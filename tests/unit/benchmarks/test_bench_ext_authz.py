# SPDX-License-Identifier: Apache-2.0
"""The benchmark of decision points compares every answer, and believes none that says two things."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from benchmarks import bench_ext_authz as bench
from benchmarks.authorization_cases import case_of

from everyhop.wire.ext_authz import CheckRequest, CheckResponse


@pytest.fixture
def questions():
    case = case_of("edges", bench.RULES)
    return [(bench.message_of(request), request.expected) for request in case.requests]


def test_an_answer_that_allows_and_denies_is_no_answer():
    response = CheckResponse()
    response.denied_response.status.code = 403
    with pytest.raises(ValueError, match="allows and denies"):
        bench.is_allowed(response.SerializeToString())
    response.status.code = 7
    assert bench.is_allowed(response.SerializeToString()) is False
    assert bench.is_allowed(b"") is True


def test_a_request_is_what_envoy_would_send(questions):
    message = CheckRequest.FromString(questions[0][0])
    assert message.attributes.source.principal.startswith("spiffe://")
    assert len(message.attributes.request.http.headers) == 15


async def test_one_wrong_answer_ends_the_run(questions, monkeypatch):
    monkeypatch.setattr(bench, "ALONE_SECONDS", 0.05)
    monkeypatch.setattr(bench, "TOGETHER_SECONDS", 0.05)
    with (
        tempfile.TemporaryDirectory(prefix="ea-") as directory,
        bench.everyhop_side(Path(directory), 1) as running,
    ):
        questions = questions[:60]
        side = bench.Side("everyhop", *running)
        await side.round(questions)
        assert side.rate > 0
        message, expected = questions[-1]
        with pytest.raises(bench.WrongAnswerError):
            await bench.Side("everyhop", *running).round([*questions[:-1], (message, not expected)])
