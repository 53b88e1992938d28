# SPDX-License-Identifier: Apache-2.0
"""W3C Trace Context, level 1: read strictly, passed on with a new span each time.

A header that breaks the standard is as good as none: a new trace begins (section 4.2 of the recommendation).
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_KEY: Final = r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_VALUE: Final = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER: Final = re.compile(rf"({_KEY})={_VALUE}", re.ASCII)
_MAX_MEMBERS: Final = 32
_MAX_STATE: Final = 512
_SAMPLED: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceContext:
    """One trace: its id, the span that called us (None where the trace begins here), flags and vendors' state."""

    trace_id: str
    parent_id: str | None = None
    sampled: bool = False
    state: str | None = None

    @property
    def record(self) -> str:
        """Return the trace and the span that called us as a record holds them; empty where the trace begins here."""
        return f"{self.trace_id}-{self.parent_id}" if self.parent_id else ""

    def child_headers(self) -> dict[str, str]:
        """Return ``traceparent`` with a new span id, and ``tracestate`` as it came."""
        headers = {"traceparent": f"00-{self.trace_id}-{_random_id(8)}-{int(self.sampled):02x}"}
        if self.state:
            headers["tracestate"] = self.state
        return headers


def new_trace() -> TraceContext:
    """Begin a trace, not sampled: whether to sample is for a tracer to say."""
    return TraceContext(trace_id=_random_id(16))


def parse_trace(traceparents: Sequence[str], tracestates: Sequence[str] = ()) -> TraceContext:
    """Read the values of the two headers as they came; begin a new trace when they do not hold.

    Refused are: none or several ``traceparent``, upper case, all-zero ids, version ``ff``, anything behind the
    flags of version 00.  A ``tracestate`` that does not hold is dropped alone.
    """
    match = _TRACEPARENT.fullmatch(traceparents[0]) if len(traceparents) == 1 else None
    if match is None:
        return new_trace()
    version, trace_id, parent_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace_id, 16) or not int(parent_id, 16):
        return new_trace()
    return TraceContext(
        trace_id=trace_id,
        parent_id=parent_id,
        sampled=bool(int(flags, 16) & _SAMPLED),
        state=_parse_state(tracestates),
    )


def _parse_state(values: Sequence[str]) -> str | None:
    members = [member.strip(" \t") for value in values for member in value.split(",")]
    members = [member for member in members if member]
    matches = [_MEMBER.fullmatch(member) for member in members]
    keys = [match[1] for match in matches if match is not None]
    text = ",".join(members)
    if not members or len(keys) != len(members) or len(set(keys)) != len(keys):
        return None
    return text if len(members) <= _MAX_MEMBERS and len(text) <= _MAX_STATE else None


def _random_id(size: int) -> str:
    while not int(found := secrets.token_hex(size), 16):  # all zeros are not an id
        pass
    return found
