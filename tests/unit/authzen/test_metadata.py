# SPDX-License-Identifier: Apache-2.0
"""The metadata document."""

from everyhop.authzen import metadata


def test_every_endpoint_is_below_the_pdp():
    document = metadata("https://pdp.example/base")
    assert document.pop("policy_decision_point") == "https://pdp.example/base"
    assert set(document) == {
        "access_evaluation_endpoint",
        "access_evaluations_endpoint",
        "search_subject_endpoint",
        "search_resource_endpoint",
        "search_action_endpoint",
    }
    assert all(url.startswith("https://pdp.example/base/access/v1/") for url in document.values())
