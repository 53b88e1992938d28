# SPDX-License-Identifier: Apache-2.0
"""Label selectors."""

import pytest

from everyhop.core.errors import InputError
from everyhop.manifests.selectors import selects

LABELS = {"app": "a", "tier": "web"}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({}, True),
        ({"matchLabels": {"app": "a"}}, True),
        ({"matchLabels": {"app": "b"}}, False),
        ({"matchLabels": {"app": "a", "zone": "1"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]}, False),
        ({"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["a"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, False),
        ({"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}, False),
    ],
)
def test_selects(selector, expected):
    assert selects(selector, LABELS) is expected


@pytest.mark.parametrize(
    "selector",
    [
        {"app": "a"},
        {"matchExpressions": [{"key": "a", "operator": "Is"}]},
        {"matchExpressions": [{"operator": "In"}]},
    ],
)
def test_what_is_no_selector_is_refused(selector):
    with pytest.raises(InputError):
        selects(selector, LABELS)
