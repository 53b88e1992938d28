# SPDX-License-Identifier: Apache-2.0
"""Label selectors (Kubernetes ``LabelSelector``): which labels they select."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Tell whether a selector with ``matchLabels`` and ``matchExpressions`` selects labels; an empty one selects all.

    Raises InputError for an operator that is none, or an unknown member: a guess could select too much or too little.
    """
    unknown = set(selector) - {"matchLabels", "matchExpressions"}
    if unknown:
        raise InputError(f"a label selector has no {min(unknown)!r}")
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_holds(expression, labels) for expression in selector.get("matchExpressions") or ())


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, operator = expression.get("key"), expression.get("operator")
    values = expression.get("values") or ()
    if not isinstance(key, str):
        raise InputError("a label selector's expression has no key")
    match operator:
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":  # also where the label is missing
            return key not in labels or labels[key] not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            raise InputError(f"a label selector has no operator {operator!r}")
