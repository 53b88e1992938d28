# SPDX-License-Identifier: Apache-2.0
"""How detectors speak: names for people, durations, days."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from everyhop.core.durations import format_duration

if TYPE_CHECKING:
    from datetime import timedelta

    from everyhop.anomaly.model import Subject

MAX_RECENT: Final = 64
_DAY: Final = 86_400


def short(identity: str) -> str:
    """Return what people call an identity: the last part of its SPIFFE ID."""
    return identity.rstrip("/").rpartition("/")[2] or identity


def named(subject: Subject) -> str:
    """Return what people call a subject."""
    return (
        short(subject.value)
        if subject.value.startswith("spiffe://")
        else f"{subject.kind.value} {subject.value}"
    )


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
    """Return the command that blocks a subject; names of people are quoted, since somebody will paste this."""
    return f"everyhop block {shlex.quote(str(subject))} --for {hours}h --reason {shlex.quote(reason)}"


def quarantine(subject: Subject, reason: str) -> str:
    """Return the command that ends a workload."""
    return f"everyhop quarantine {shlex.quote(str(subject))} --reason {shlex.quote(reason)}"


def revoke(subject: Subject) -> str:
    """Return the command that takes back what a subject has."""
    return f"everyhop token revoke --subject {shlex.quote(subject.value)}"
