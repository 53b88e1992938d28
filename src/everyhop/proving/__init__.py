# SPDX-License-Identifier: Apache-2.0
"""Whether what is enforced elsewhere is the policy: every kind of request asked of both, and what differs."""

from everyhop.proving.drift import find_drift, kinds_of
from everyhop.proving.drift_model import DriftReport, Finding, Severity
from everyhop.proving.model import Difference, Proof, TargetReport, Verdict
from everyhop.proving.proving import prove_policy
from everyhop.proving.rendering import describe, render

__all__ = [
    "Difference",
    "DriftReport",
    "Finding",
    "Proof",
    "Severity",
    "TargetReport",
    "Verdict",
    "describe",
    "find_drift",
    "kinds_of",
    "prove_policy",
    "render",
]
