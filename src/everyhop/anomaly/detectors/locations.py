# SPDX-License-Identifier: Apache-2.0
"""Where networks are: a table of ``network,latitude,longitude`` that the operator provides.

Nothing here knows a country or a city, and no table comes with everyhop: whoever has one (a public registry, an own list
of offices) points to it.  The most specific network that holds an address says where it is.
"""

from __future__ import annotations

import csv
import io
import math
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final, Self

from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Protocol

    class Rows(Protocol):
        """What the csv module reads with; it has no name there."""

        line_num: int

        def __iter__(self) -> Iterator[list[str]]: ...
        def __next__(self) -> list[str]: ...


HEADER: Final = ["network", "latitude", "longitude"]
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_ROWS: Final = 1_000_000
EARTH_KM: Final = 6371.0
_POLE: Final = 90.0
_DATE_LINE: Final = 180.0

Place = tuple[float, float]
"""Latitude and longitude in degrees."""


class Locations:
    """An immutable table; a look-up asks one dictionary for each length of prefix that occurs, longest first."""

    def __init__(self, tables: Mapping[tuple[int, int], Mapping[int, Place]]) -> None:
        """``tables`` are by version and length of prefix, and by the network's number; see :meth:`parse`."""
        self._tables = dict(tables)
        self._lengths = {v: sorted((n for w, n in tables if w == v), reverse=True) for v in (4, 6)}

    def __len__(self) -> int:
        return sum(map(len, self._tables.values()))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a CSV file in UTF-8 whose first line is ``network,latitude,longitude``.

        Raises InputError, naming the line, for anything else: a network with host bits, a place that is none, a network
        that is there twice, more than a million rows or 64 MiB.
        """
        if len(data) > MAX_BYTES:
            raise InputError(f"a table of locations has at most {MAX_BYTES} bytes")
        try:
            rows = csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True)
            return cls(_read(rows))
        except UnicodeDecodeError as error:
            raise InputError("a table of locations is UTF-8") from error
        except csv.Error as error:
            raise InputError(f"not CSV: {error}") from error

    def find(self, address: str) -> Place | None:
        """Return where an address is; None for what is not in the table or is no address."""
        try:
            parsed = ip_address(address.partition("/")[0])
        except ValueError:
            return None
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        number, bits = int(parsed), parsed.max_prefixlen
        for length in self._lengths[parsed.version]:
            place = self._tables[parsed.version, length].get(number >> (bits - length))
            if place is not None:
                return place
        return None


def distance_km(here: Place, there: Place) -> float:
    """Return the distance over the surface of the earth (haversine, on a sphere of 6,371 km)."""
    (lat1, lon1), (lat2, lon2) = [(math.radians(a), math.radians(b)) for a, b in (here, there)]
    half = math.sin((lat2 - lat1) / 2) ** 2
    half += math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(half)))


def _read(rows: Rows) -> dict[tuple[int, int], dict[int, Place]]:
    if next(iter(rows), None) != HEADER:
        raise InputError("a table of locations begins with the line " + ",".join(HEADER))
    tables: dict[tuple[int, int], dict[int, Place]] = {}
    for count, row in enumerate(rows):
        where = f"line {rows.line_num}"
        if count >= MAX_ROWS:
            raise InputError(f"a table of locations has at most {MAX_ROWS} networks")
        if len(row) != len(HEADER):
            raise InputError(f"{where}: expected three fields, found {len(row)}")
        try:
            network = ip_network(row[0])
        except ValueError as error:
            raise InputError(f"{where}: not a network: {error}") from error
        place = _degrees(row[1], _POLE, where), _degrees(row[2], _DATE_LINE, where)
        table = tables.setdefault((network.version, network.prefixlen), {})
        number = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
        if table.setdefault(number, place) is not place:
            raise InputError(f"{where}: {network} is there twice")
    return tables


def _degrees(text: str, most: float, where: str) -> float:
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not -most <= value <= most:  # also what is no number
        raise InputError(f"{where}: {text[:40]!r} is not between -{most:g} and {most:g} degrees")
    return value
