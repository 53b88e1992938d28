# SPDX-License-Identifier: Apache-2.0
"""Decisions for foreign proxies as lines of a spool, written before the proxy is told.

The same files as a sidecar's (:mod:`everyhop.dataplane.spool`), so the agent numbers, forwards and deletes them alike.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from everyhop.auditlog.model import MAX_NAME, MAX_PATH, Kind, Point, Record, Scalar, clip
from everyhop.auditlog.trace import trace_of
from everyhop.core.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

ASKED: Final = "asked"
_MAX_WHY: Final = 512
_HIGHEST_STATUS: Final = 999


class AskedLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One decision.  ``form`` is the protocol, ``uid`` the proxy's user, ``why`` what an operator should know.

    ``trace`` is the request's ``traceparent`` as it came.
    """

    kind: str
    id: str
    time: datetime
    form: str
    uid: int
    allowed: bool
    reason: str
    status: int
    ms: float
    caller: str | None = None
    target: str | None = None
    operation: str | None = None
    method: str | None = None
    path: str | None = None
    rule: str | None = None
    snapshot: str | None = None
    user: str | None = None
    trace: str | None = None
    why: str | None = None
    more: dict[str, Scalar] = {}  # msgspec copies an empty default


_decoder: Final = msgspec.json.Decoder(AskedLine)
_encoder: Final = msgspec.json.Encoder()


class AskedLog:
    """Appends to ``access.log`` of one directory.  The only writer there, and used from one thread."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = directory / "access.log"
        self._descriptor = -1
        self._inode = -1

    def write(self, line: AskedLine) -> None:
        """Append a line; raises Unavailable when that fails, and then the decision must not be acted upon."""
        data = _encoder.encode(line) + b"\n"
        try:
            self._open_if_moved()
            if os.write(self._descriptor, data) != len(data):
                raise OSError("a line was cut off")
        except OSError as error:
            self.close()
            raise Unavailable(f"the decision cannot be recorded: {error}") from error

    def _open_if_moved(self) -> None:
        """Go on in a new file once the reader has put a long one aside."""
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                return
        self.close()
        self._descriptor = os.open(
            self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        self._inode = os.fstat(self._descriptor).st_ino

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = self._inode = -1


def asked_record(line: bytes, *, instance: str, seq: int) -> Record:
    """Return the record of one line; raises msgspec.MsgspecError for one that is none."""
    asked = _decoder.decode(line)
    detail: dict[str, Any] = {"form": asked.form, "uid": asked.uid, **asked.more}
    if asked.user:
        detail["user"] = clip(asked.user, 256)
    if asked.why:
        detail["why"] = clip(asked.why, _MAX_WHY)
    return Record(
        id=asked.id,
        seq=seq,
        producer=instance,
        time=asked.time,
        kind=Kind.DECISION,
        point=Point.INGRESS,
        caller=None if asked.caller is None else clip(asked.caller),
        target=None if asked.target is None else clip(asked.target),
        operation=asked.operation,
        method=clip(asked.method, MAX_NAME) if asked.method else None,
        path=None if asked.path is None else clip(asked.path, MAX_PATH),
        decision="allow" if asked.allowed else "deny",
        rule=asked.rule,
        reason=asked.reason,
        snapshot=asked.snapshot,
        status=asked.status if 0 <= asked.status <= _HIGHEST_STATUS else None,
        latency_ms=max(asked.ms, 0.0),
        instance=instance,
        trace=trace_of(asked.trace),
        detail=detail,
    )
