# SPDX-License-Identifier: Apache-2.0
"""A workload's own decisions on ``workload.sock``: the messages and the path of the method."""

from __future__ import annotations

from typing import Final

from everyhop.wire.decisions_pb2 import Decision, ReportRequest, ReportResponse

__all__ = ["MAX_DECISIONS", "REPORT", "Decision", "ReportRequest", "ReportResponse"]

REPORT: Final = "/everyhop.workload.v1.Decisions/Report"
"""Unary: a batch of decisions, oldest first."""
MAX_DECISIONS: Final = 200
"""How many decisions a batch has at most."""
