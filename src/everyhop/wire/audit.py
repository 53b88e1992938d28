# SPDX-License-Identifier: Apache-2.0
"""What somebody did in an application, on ``workload.sock``: the messages and the path of the method."""

from __future__ import annotations

from typing import Final

from everyhop.wire.audit_pb2 import Event, Metadatum, RecordRequest, RecordResponse

__all__ = ["MAX_EVENTS", "RECORD", "Event", "Metadatum", "RecordRequest", "RecordResponse"]

RECORD: Final = "/everyhop.workload.v1.Audit/Record"
"""Unary: a batch of events, oldest first."""
MAX_EVENTS: Final = 200
"""How many events a batch has at most."""
