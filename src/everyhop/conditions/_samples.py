# SPDX-License-Identifier: Apache-2.0
"""The values on both sides of a boundary: numbers, text, lists, addresses, moments."""

from __future__ import annotations

import ipaddress
import math
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from everyhop.conditions._helpers import parse_network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NOON: Final = datetime(2026, 1, 15, 12, tzinfo=UTC)
"""A moment for conditions that compare two moments; a winter day, on a Thursday."""

_MIN_INT: Final = -(2**63)
_MAX_INT: Final = 2**63 - 1
_MAX_SIZE: Final = 1000
_SECOND: Final = timedelta(seconds=1)
_SUNDAY: Final = datetime(2026, 1, 11)  # noqa: DTZ001  # local times; the zone is put on below
_DAYS: Final = (datetime(2026, 1, 15), datetime(2026, 7, 15))  # noqa: DTZ001  # in winter and in summer time


def around_int(n: int) -> tuple[int, ...]:
    """Return the number and its neighbours."""
    return tuple(m for m in (n - 1, n, n + 1) if _MIN_INT <= m <= _MAX_INT)


def around_double(x: float) -> tuple[float, ...]:
    """Return the number and the nearest ones that differ."""
    return tuple(
        y for y in (math.nextafter(x, -math.inf), x, math.nextafter(x, math.inf)) if math.isfinite(y)
    )


def around_text(text: str) -> tuple[str, ...]:
    """Return the text, one that differs and comes after it, and one that comes before it."""
    return (text, f"{text}~", text[:-1])


def around_moment(moment: datetime) -> tuple[datetime, ...]:
    """Return the moment, and a second to each side."""
    return (moment - _SECOND, moment, moment + _SECOND)


def sizes(n: int, make: Callable[[int], object]) -> tuple[object, ...]:
    """Return what ``make`` gives for the sizes around n, as far as these are small."""
    return tuple(make(size) for size in (n - 1, n, n + 1) if 0 <= size <= _MAX_SIZE)


def text_of(size: int) -> str:
    """Return text of a length."""
    return "a" * size


def list_of(size: int) -> tuple[str, ...]:
    """Return a list of a length, with elements that differ."""
    return tuple(f"e{n}" for n in range(size))


def map_of(size: int) -> dict[str, str]:
    """Return a map of a size."""
    return {f"k{n}": f"v{n}" for n in range(size)}


def around_list(wanted: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return lists with all of the strings, with each alone, with another one, and with none."""
    other = f"not-{wanted[0]}"
    return ((), (other,), *((text,) for text in wanted), tuple(wanted), (*wanted, other))


def around_network(text: str) -> tuple[str, ...]:
    """Return the first and last address of a network, and those just outside of it."""
    network = parse_network(text)
    kind = type(network.network_address)
    first, last = int(network.network_address), int(network.broadcast_address)
    widest = 2**network.max_prefixlen - 1
    family: ipaddress.IPv4Address | ipaddress.IPv6Address
    found = []
    for number in (first - 1, first, last, last + 1):
        if 0 <= number <= widest:
            family = kind(number)
            found.append(str(family))
    return tuple(found)


def around_clock(getter: str, n: int, zone: str) -> tuple[datetime, ...]:
    """Return the first and the last second for which a getter of a moment gives n, n - 1 and n + 1."""
    found = []
    for value in (n - 1, n, n + 1):
        for start, length in _spans(getter, value):
            local = start.replace(tzinfo=_zone(zone))
            end = (start + length - _SECOND).replace(tzinfo=_zone(zone))
            found += [local.astimezone(UTC), end.astimezone(UTC)]
    return tuple(found)


def _spans(getter: str, value: int) -> list[tuple[datetime, timedelta]]:
    """Return local times at which a getter begins to give a value, with how long it does."""
    day, units = timedelta(days=1), {"getHours": (24, 3600), "getMinutes": (60, 60), "getSeconds": (60, 1)}
    if getter in units:
        count, seconds = units[getter]
        length = timedelta(seconds=seconds)
        return [(start + value * length, length) for start in _DAYS] if 0 <= value < count else []
    if getter == "getDayOfWeek":
        return [(_SUNDAY + value * day, day)] if 0 <= value < 7 else []  # noqa: PLR2004  # days of a week
    if getter in {"getDate", "getDayOfMonth"}:
        value -= getter == "getDate"
        return [(datetime(2026, 1, 1) + value * day, day)] if 0 <= value < 31 else []  # noqa: DTZ001, PLR2004
    if getter == "getDayOfYear":
        return [(datetime(2026, 1, 1) + value * day, day)] if 0 <= value < 365 else []  # noqa: DTZ001, PLR2004
    if getter == "getMonth":
        return [(datetime(2026, value + 1, 1), 28 * day)] if 0 <= value < 12 else []  # noqa: DTZ001, PLR2004
    if getter == "getFullYear":
        return [(datetime(value, 1, 1), 365 * day)] if 2 <= value <= 9998 else []  # noqa: DTZ001, PLR2004
    return [(_DAYS[0] + value * timedelta(milliseconds=1), _SECOND)] if 0 <= value < 1000 else []  # noqa: PLR2004


def _zone(name: str) -> tzinfo:
    """Return the zone of a literal that was checked: a name, or an offset such as ``+02:00``."""
    if name[0] not in "+-":
        return ZoneInfo(name)
    offset = timedelta(hours=int(name[1:3]), minutes=int(name[4:6]))
    return timezone(-offset if name[0] == "-" else offset)
