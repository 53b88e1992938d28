# SPDX-License-Identifier: Apache-2.0
"""The semantic difference between two policies: which calls would get another answer, with an example of each.

Pure.  Texts are not compared; both policies are asked (docs/guides/changes.md says what is asked, and its limits).
"""

from everyhop.authz.difference.compare import compare
from everyhop.authz.difference.describing import command, counts, describe
from everyhop.authz.difference.model import (
    Callers,
    Change,
    Direction,
    Example,
    Group,
    Plan,
    RouteChange,
    TermChange,
    Unexplored,
    Users,
    Weight,
)
from everyhop.authz.difference.rendering import Mark, render, summary

__all__ = [
    "Callers",
    "Change",
    "Direction",
    "Example",
    "Group",
    "Mark",
    "Plan",
    "RouteChange",
    "TermChange",
    "Unexplored",
    "Users",
    "Weight",
    "command",
    "compare",
    "counts",
    "describe",
    "render",
    "summary",
]
