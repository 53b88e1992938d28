# SPDX-License-Identifier: Apache-2.0
"""How detectors speak.

No text of a finding names a person or an address: who it is stands in the finding's subject, which becomes a pseudonym in the log
and can be forgotten; a title could not.
"""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from everyhop.anomaly.model import SubjectKind
from everyhop.core.durations import format_duration

if TYPE_CHECKING:
    from datetime import timedelta

    from everyhop.anomaly.model import Subject

MAX_RECENT: Final = 64
_SUBJECT: Final = "SUBJECT"
_WORDS: Final = {
    SubjectKind.USER: "a user",
    SubjectKind.API_KEY: "an API key",
    SubjectKind.ADDRESS: "an address",
}
_DAY: Final = 86_400


def short(identity: str) -> str:
    """Return what people call an identity: the last part of its SPIFFE ID."""
    return identity.rstrip("/").rpartition("/")[2] or identity


def named(subject: Subject) -> str:
    """Return what a subject is called in a text: the short name of an identity, of others only what they are."""
    return short(subject.value) if subject.kind is SubjectKind.IDENTITY else _WORDS[subject.kind]


def days(seconds: float) -> str:
    """Return a number of days as text."""
    count = int(seconds // _DAY)
    return "1 day" if count == 1 else f"{count} days"


def spoken(duration: timedelta) -> str:
    """Return a duration as text."""
    return format_duration(duration)


def moment(seconds: float) -> datetime:
    """Return a time that was remembered as seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def why(record: str) -> str:
    """Return the command that explains a record."""
    return f"everyhop why {shlex.quote(record)}"


def block(subject: Subject, reason: str, *, hours: int = 1) -> str:
    """Return the command that blocks a subject."""
    return f"everyhop block {_pasted(subject)} --for {hours}h --reason {shlex.quote(reason)}"


def quarantine(subject: Subject, reason: str) -> str:
    """Return the command that ends a workload."""
    return f"everyhop quarantine {_pasted(subject)} --reason {shlex.quote(reason)}"


def revoke() -> str:
    """Return the command that takes back what a user has."""
    return f"everyhop token revoke --subject {_SUBJECT}"


def _pasted(subject: Subject) -> str:
    return shlex.quote(str(subject)) if subject.kind is SubjectKind.IDENTITY else _SUBJECT
