# SPDX-License-Identifier: Apache-2.0
"""Durations: only a whole number with a unit."""

from __future__ import annotations

from datetime import timedelta

import pytest

from everyhop.core.durations import format_duration, parse_duration
from everyhop.core.errors import InputError


@pytest.mark.parametrize("text", ["", "5", "h", "1.5h", "-5m", "5 m", "5M", "٣m", "1h30m", "9999999999s"])
def test_refuses_everything_else(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_duration(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("90s", 90), ("5m", 300), ("1h", 3600), ("2d", 172800), (" 1s ", 1)],
)
def test_parses(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (12, "12s"), (3840, "1h 4m"), (90061, "1d 1h"), (-182, "-3m 2s"), (3600, "1h")],
)
def test_formats_in_two_units(seconds: int, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text
