# SPDX-License-Identifier: Apache-2.0
"""The metadata document of a PDP (section 9), and where its endpoints are (section 10.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from everyhop.authzen.model import Json

WELL_KNOWN: Final = "/.well-known/authzen-configuration"
EVALUATION_PATH: Final = "/access/v1/evaluation"
EVALUATIONS_PATH: Final = "/access/v1/evaluations"
SUBJECT_SEARCH_PATH: Final = "/access/v1/search/subject"
RESOURCE_SEARCH_PATH: Final = "/access/v1/search/resource"
ACTION_SEARCH_PATH: Final = "/access/v1/search/action"

_PARAMETERS: Final = {
    "access_evaluation_endpoint": EVALUATION_PATH,
    "access_evaluations_endpoint": EVALUATIONS_PATH,
    "search_subject_endpoint": SUBJECT_SEARCH_PATH,
    "search_resource_endpoint": RESOURCE_SEARCH_PATH,
    "search_action_endpoint": ACTION_SEARCH_PATH,
}


def metadata(pdp: str) -> Json:
    """Return the document of the PDP at the URL ``pdp`` (https, no slash at its end).

    There are no capabilities and no signed metadata, and what has no value is left out (section 9.2.2).
    """
    return {"policy_decision_point": pdp, **{name: pdp + path for name, path in _PARAMETERS.items()}}
