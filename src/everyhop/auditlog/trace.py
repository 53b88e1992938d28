# SPDX-License-Identifier: Apache-2.0
"""The trace that a call was part of, as a record holds it: ``TRACE-SPAN`` in 32 and 16 hexadecimal digits."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

_ZEROS: Final = ("0" * 32, "0" * 16)
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.{0,512})?", re.ASCII
)
MAX_TRACEPARENT: Final = 256

TraceId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}-[0-9a-f]{16}\Z")]


def trace_of(traceparent: str | None) -> str | None:
    """Return the trace and span of a ``traceparent`` header, None where it is absent or breaks the recommendation.

    Refused are (W3C Trace Context, section 3.2): upper case, ids of zeros alone, version ``ff``, more behind the flags
    of version 00, and anything longer than 256 characters.
    """
    if not traceparent or len(traceparent) > MAX_TRACEPARENT:
        return None
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or (traceparent.startswith("00") and match[3]):
        return None
    return joined(match[1], match[2])


def joined(trace: str, span: str) -> str | None:
    """Return two ids as a record holds them, None unless both have their form and are not zeros alone."""
    if trace in _ZEROS or span in _ZEROS:
        return None
    text = f"{trace}-{span}"
    return text if _JOINED.fullmatch(text) else None


def parted(trace: str) -> tuple[str, str] | None:
    """Return the trace and the span of a record's text, None for another one."""
    return (trace[:32], trace[33:]) if _JOINED.fullmatch(trace) else None


_JOINED: Final = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}", re.ASCII)
