# SPDX-License-Identifier: Apache-2.0
"""The record: one type for everything that is ever written to the audit log.

Much of a decision record comes from the caller (path, method), so every text has a bound; a writer cuts with
:func:`clip`, because a record that is refused for its length would be a way to act unseen.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from everyhop.auditlog.trace import TraceId

MAX_PATH: Final = 8192
MAX_TEXT: Final = 2048
MAX_NAME: Final = 128
MAX_DETAILS: Final = 32
_CUT: Final = "…"

Scalar = str | int | float | bool | None
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Kind(StrEnum):
    """What a record is about."""

    DECISION = "decision"  # a call or connection allowed or denied
    IDENTITY = "identity"  # an SVID issued or refused
    KEY = "key"  # an authority's life
    POLICY = "policy"  # a snapshot accepted or refused
    TOKEN = "token"  # noqa: S105  # a token issued or refused, an API key's life
    LIFECYCLE = "lifecycle"  # a process started, ended, crashed
    LOG = "log"  # the log itself: records that may be missing, a read or export, its key, what was forgotten
    FINDING = "finding"  # what a detector found
    RESPONSE = "response"  # a block, a quarantine, and their ends
    APPLICATION = "application"  # what an application says that somebody did in it


class Point(StrEnum):
    """Where it happened."""

    INGRESS = "ingress"
    EGRESS = "egress"
    EDGE = "edge"
    CONTROL = "control"
    SDK = "sdk"  # a workload's own word, told by its agent


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One line of the audit log.

    ``id`` is unique for ever and is what a denied caller is shown.  ``producer`` and ``seq`` (from 1, without
    gaps) name the place in the spool it came from.  ``time`` is aware.  ``caller`` is a SPIFFE ID, or what stood in
    its place; ``target`` a service; ``rule`` a rule id; ``snapshot`` the policy's hash; ``latency_ms`` milliseconds;
    ``trace`` the W3C trace and span of the call as it came (:mod:`.trace`).
    """

    id: Name
    seq: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    producer: Name
    time: Moment
    kind: Kind
    point: Point
    caller: Text | None = None
    target: Text | None = None
    operation: Text | None = None
    method: Name | None = None
    path: Annotated[str, msgspec.Meta(max_length=MAX_PATH)] | None = None
    decision: Annotated[str, msgspec.Meta(pattern=r"\A(allow|deny)\Z")] | None = None
    rule: Text | None = None
    reason: Text | None = None
    snapshot: Name | None = None
    status: Annotated[int, msgspec.Meta(ge=0, le=999)] | None = None
    latency_ms: Annotated[float, msgspec.Meta(ge=0)] | None = None
    instance: Text | None = None
    trace: TraceId | None = None
    detail: dict[Name, Scalar] = {}  # msgspec copies an empty default


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that this process did itself; it becomes a :class:`Record` when it is appended.

    ``action`` is a verb of the kind, e.g. ``activate`` of a key or ``apply`` of a policy, and becomes ``operation``.
    """

    kind: Kind
    action: str
    time: datetime
    caller: str | None = None
    target: str | None = None
    decision: str | None = None
    rule: str | None = None
    reason: str | None = None
    snapshot: str | None = None
    detail: dict[str, Scalar] = {}  # msgspec copies an empty default


def clip(text: str, limit: int = MAX_TEXT) -> str:
    """Cut ``text`` to ``limit`` characters, the last one an ellipsis when something was cut."""
    return text if len(text) <= limit else text[: limit - 1] + _CUT
