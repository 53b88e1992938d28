# SPDX-License-Identifier: Apache-2.0
"""Records as events of the Open Cybersecurity Schema Framework: a pure view, made when it is asked for.

What is sealed in the log is the record; so the mapping can improve without touching what was sealed.
"""

from everyhop.auditlog.ocsf.classes import (
    AnyEvent,
    ApiActivity,
    Authentication,
    AuthorizeSession,
    DetectionFinding,
    EntityManagement,
    OcsfEvent,
)
from everyhop.auditlog.ocsf.mapping import encode_event, event_of, leaf_hash_of
from everyhop.auditlog.ocsf.schema import SchemaFormat, render_schema, schema_of
from everyhop.auditlog.ocsf.values import VERSION

__all__ = [
    "VERSION",
    "AnyEvent",
    "ApiActivity",
    "Authentication",
    "AuthorizeSession",
    "DetectionFinding",
    "EntityManagement",
    "OcsfEvent",
    "SchemaFormat",
    "encode_event",
    "event_of",
    "leaf_hash_of",
    "render_schema",
    "schema_of",
]
