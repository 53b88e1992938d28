# SPDX-License-Identifier: Apache-2.0
"""The audit log: what was decided and what was changed, appended through one path and never edited."""

from everyhop.auditlog.append import AppendResult, append_event, append_records
from everyhop.auditlog.checkpoints import StoredCheckpoint
from everyhop.auditlog.codec import decode_record, decode_records, encode_record, encode_records
from everyhop.auditlog.model import Event, Kind, Point, Record, clip
from everyhop.auditlog.ports import LogTree, RecordStore, RecordWriter, SealStore
from everyhop.auditlog.query import MAX_PAGE, Order, Page, RecordFilter
from everyhop.auditlog.tally import Group, Report, Tally

__all__ = [
    "MAX_PAGE",
    "AppendResult",
    "Event",
    "Group",
    "Kind",
    "LogTree",
    "Order",
    "Page",
    "Point",
    "Record",
    "RecordFilter",
    "RecordStore",
    "RecordWriter",
    "Report",
    "SealStore",
    "StoredCheckpoint",
    "Tally",
    "append_event",
    "append_records",
    "clip",
    "decode_record",
    "decode_records",
    "encode_record",
    "encode_records",
]
