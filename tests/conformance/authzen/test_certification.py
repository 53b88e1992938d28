# SPDX-License-Identifier: Apache-2.0
"""The certification scenario over HTTP, by a service with its certificate and by the holder of an API key."""

import pytest
import scenario
from authzen_policies import CERTIFICATION

KEY = "eh_live_key_abcdefgh_" + "x" * 32 + "_000000"


@pytest.fixture(scope="module")
def served(serve):
    return serve(CERTIFICATION.replace("CALLER", "[gateway, outside]"))


@pytest.fixture(scope="module", params=["certificate", "api key"])
def pdp(request, served):
    if request.param == "certificate":
        return scenario.Pdp(served.as_service("gateway"))
    return scenario.Pdp(served.with_key(KEY, "records.read", "records.write", "records.delete"))


@pytest.mark.parametrize("check", scenario.CHECKS, ids=str)
def test_check(pdp, check):
    assert scenario.run(pdp, check) == []


def test_pages(pdp):
    assert scenario.run_pages(pdp) == []


def test_discovery(served):
    client = served.as_service("gateway")
    found, problems = scenario.discover(client, "https://127.0.0.1:8443")
    assert problems == []
    assert set(found) == set(scenario.DEFAULT_PATHS)
    assert scenario.run(scenario.Pdp(client, found), scenario.BASIC_CORE[0]) == []
    assert scenario.discover(client, "https://localhost:8443")[1] == []


def test_the_runner_sees_a_pdp_that_answers_without_evaluating(served):
    """A canned PDP must fail: the runner is worth nothing otherwise."""

    class Canned:
        def __init__(self, answer):
            self.answer = answer

        def post(self, *args, **kwargs):
            return self.answer

    for document in ({"decision": True}, {"decision": False}, {"decision": "true"}, {"results": []}, {}):
        answer = scenario.httpx.Response(200, json=document)
        failed = [check for check in scenario.CHECKS if scenario.run(scenario.Pdp(Canned(answer)), check)]
        levels = {check.level for check in failed}
        assert len(levels) == 6, (document, levels)
