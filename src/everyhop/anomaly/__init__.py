# SPDX-License-Identifier: Apache-2.0
"""Abuse, as it shows in the log: what is counted, what is suspicious, who is blocked.  Pure."""

from everyhop.anomaly.finding import Action, Answer, Finding, Severity
from everyhop.anomaly.model import Block, BlockMode, Blocks, Subject, SubjectKind
from everyhop.anomaly.observation import Observation, Outcome, observe
from everyhop.anomaly.ports import Detector, Responder

__all__ = [
    "Action",
    "Answer",
    "Block",
    "BlockMode",
    "Blocks",
    "Detector",
    "Finding",
    "Observation",
    "Outcome",
    "Responder",
    "Severity",
    "Subject",
    "SubjectKind",
    "observe",
]
