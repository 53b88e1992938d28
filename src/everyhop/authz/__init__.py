# SPDX-License-Identifier: Apache-2.0
"""The decision point (PDP): snapshot in, decisions and explanations out.

Pure and total: no IO, no clock, and an answer for every text.  What enforces decisions (Envoy) is compiled
from :class:`ServiceTable` and must agree with :class:`Engine` on every request.
"""

from everyhop.authz.checks import TestResult, resolve_caller, run_tests
from everyhop.authz.engine import Engine
from everyhop.authz.explanation import Cited, Difference, Edit, Explanation, Suggestion
from everyhop.authz.filtering import Clause, Extent, Filter, enumerate_allowed, filter_resources
from everyhop.authz.paths import AmbiguousPath, CleanPath, PathFlaw, classify_path
from everyhop.authz.permissions import Permissions
from everyhop.authz.requirements import Grants, Requirement
from everyhop.authz.table import OperationEntry, ServiceTable, Verdict, reachable_targets, service_table
from everyhop.policy.facts import Context, Resource, User

__all__ = [
    "AmbiguousPath",
    "Cited",
    "Clause",
    "CleanPath",
    "Context",
    "Difference",
    "Edit",
    "Engine",
    "Explanation",
    "Extent",
    "Filter",
    "Grants",
    "OperationEntry",
    "PathFlaw",
    "Permissions",
    "Requirement",
    "Resource",
    "ServiceTable",
    "Suggestion",
    "TestResult",
    "User",
    "Verdict",
    "classify_path",
    "enumerate_allowed",
    "filter_resources",
    "reachable_targets",
    "resolve_caller",
    "run_tests",
    "service_table",
]
