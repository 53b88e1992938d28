# SPDX-License-Identifier: Apache-2.0
"""Durations as people write them: ``90s``, ``5m``, ``1h``, ``2d``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from everyhop.core.errors import InputError

_FORM = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)", re.ASCII)
_UNITS: Final = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


def parse_duration(text: str) -> timedelta:
    """Parse a whole number with a unit of ``ms``, ``s``, ``m``, ``h`` or ``d``.

    Raises InputError for anything else; a bare number has no unit and is refused.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise InputError(
            f"{text[:40]!r} is not a duration", hint="write a number and a unit: 250ms, 30s, 5m, 1h, 7d"
        )
    return int(match[1]) * _UNITS[match[2]]


def format_duration(value: timedelta) -> str:
    """Render a duration for people, in the two largest units that matter: ``1h 4m``, ``12s``, ``-3m 2s``."""
    seconds = int(value.total_seconds())
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return sign + " ".join(parts[:2])
