# SPDX-License-Identifier: Apache-2.0
"""Attacks on conditions: a caller with a rule, whose call does not fulfil it, or hides what would tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.demo.model import Attempt, Seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from everyhop.demo.range import Range

_THEME: Final = "condition"
_EU: Final = ("x-region", "eu")
_REPORT: Final = "/reports/2026"
_CALLS: Final[tuple[tuple[str, str, str, tuple[tuple[str, str], ...], str], ...]] = (
    ("without the header that the condition reads", "storefront", _REPORT, (), "403 condition-error"),
    ("another value", "storefront", _REPORT, (("x-region", "us"),), "403 condition-false"),
    ("another case of the value", "storefront", _REPORT, (("x-region", "EU"),), "403 condition-false"),
    ("the header twice", "storefront", _REPORT, (_EU, ("x-region", "us")), "403 condition-error"),
    ("the header twice, both good", "storefront", _REPORT, (_EU, _EU), "403 condition-error"),
    ("two values in one header", "storefront", _REPORT, (("x-region", "eu,us"),), "403 condition-error"),
    ("the header under a folded name", "storefront", _REPORT, (("x_region", "eu"),), "400"),
    ("in the query instead", "storefront", _REPORT + "?x-region=eu", (), "403 condition-error"),
    ("a path parameter that is not listed", "storefront", "/reports/2024", (_EU,), "403 condition-false"),
    ("the listed one, encoded", "storefront", "/reports/%32026", (_EU,), "400 ambiguous-path"),
    ("the condition holds, but for another caller", "intruder", _REPORT, (_EU,), "403 no-rule"),
    ("what a deny rule looks for", "storefront", "/reports/trace", (("x-debug", "1"),), "403 denied-by-rule"),
    (
        "what a deny rule looks for, hidden by sending it twice",
        "storefront",
        "/reports/trace",
        (("x-debug", ""), ("x-debug", "1")),
        "403 condition-error",
    ),
)


def _call(caller: str, path: str, headers: tuple[tuple[str, str], ...]) -> Callable[[Range], Seen]:
    def run(field: Range) -> Seen:
        reply = field.call(caller, "orders", "GET", path, headers=headers)
        return Seen(text=reply.text, decision=reply.decision)

    return run


def attacks() -> list[Attempt]:
    """Return the attacks of this theme."""
    return [
        Attempt(theme=_THEME, name=name, expected=expected, run=_call(caller, path, headers))
        for name, caller, path, headers, expected in _CALLS
    ]
