# SPDX-License-Identifier: Apache-2.0
"""Logging: one JSON object a line, to a stream; ids and codes, never secrets."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from pathlib import Path

MAX_LOG_BYTES: Final = 16 * 1024 * 1024
_TAIL_BYTES: Final = 16 * 1024

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Render a log record, with the fields given by ``extra``, as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line without a line break; control characters are escaped by JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logging(level: str) -> None:
    """Send everything at ``level`` and above to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("hpack", "asyncio", "uvicorn.error", "httpx", "httpcore", "alembic", "grpclib.server"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def open_log(path: Path) -> BinaryIO:
    """Open a log for appending, created with mode 0600; one that has grown large is turned over first."""
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "ab")


def last_lines(path: Path, count: int = 15, *, since: int = 0) -> str:
    """Return the end of a log behind the byte ``since``, to show with a failure; empty when there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(since, path.stat().st_size - _TAIL_BYTES))
            return b"\n".join(stream.read().splitlines()[-count:]).decode("utf-8", "replace")
    except OSError:
        return ""
