# SPDX-License-Identifier: Apache-2.0
"""Lines of a spool that the agent writes itself: here may be lines missing, and why."""

from __future__ import annotations

import os
from datetime import datetime  # msgspec resolves annotations at run time
from typing import TYPE_CHECKING, Final

import msgspec

from everyhop.auditlog.gaps import Gap, gap_record

if TYPE_CHECKING:
    from pathlib import Path

    from everyhop.auditlog.gaps import GapReason
    from everyhop.auditlog.model import Record

GAP_LINE: Final = "gap"


class GapLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One such line; ``count`` of None is unknown.  Envoy writes its own kinds as constants, so no caller makes one."""

    kind: str = GAP_LINE
    time: datetime
    reason: str
    count: int | None = None


_decoder: Final = msgspec.json.Decoder(GapLine)


def append_gap(path: Path, reason: GapReason, *, now: datetime) -> None:
    """Append a gap of unknown size to a log that another process writes to; raises OSError.

    A line that the other process has left unfinished is ended first, so that it does not swallow this one.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        line = msgspec.json.encode(GapLine(time=now, reason=reason.value)) + b"\n"
        os.write(descriptor, b"\n" + line if is_torn else line)
    finally:
        os.close(descriptor)


def gap_line_record(line: bytes, *, instance: str, seq: int) -> Record:
    """Return the record of one line; raises msgspec.MsgspecError for one that is none."""
    told = _decoder.decode(line)
    gap = Gap(seq, seq, told.count, told.reason)
    return gap_record(gap, producer=instance, record_id=f"gap.{instance}-{seq}", now=told.time)
