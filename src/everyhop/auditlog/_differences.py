# SPDX-License-Identifier: Apache-2.0
"""Records that are not what was sealed in their place, told apart by what stands there instead."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from everyhop.auditlog.codec import decode_record
from everyhop.auditlog.verdict import Fault, Finding
from everyhop.core.errors import InputError
from everyhop.tlog import leaf_hash
from everyhop.tlog.tiles import WIDTH

MAX_REMEMBERED: Final = 4096  # places; what is wrong with the first ones tells what is wrong


@dataclass(frozen=True, slots=True)
class _Place:
    index: int
    line: bytes | None
    sealed: bytes

    @property
    def found(self) -> bytes | None:
        return None if self.line is None else leaf_hash(self.line)


class Differences:
    """Collects places that differ, in the order of the log."""

    def __init__(self) -> None:
        self._places: list[_Place] = []
        self._count = 0
        self._missing: list[int] = []
        self._missing_count = 0
        self._columns: list[tuple[int, str]] = []
        self._columns_count = 0

    def add(self, index: int, line: bytes | None, sealed: bytes) -> None:
        """Note that ``line`` stands where a leaf of the hash ``sealed`` belongs; None for nothing at all."""
        if line is None:
            self._missing_count += 1
            if len(self._missing) < MAX_REMEMBERED:
                self._missing.append(index)
            return
        self._count += 1
        if len(self._places) < MAX_REMEMBERED:
            self._places.append(_Place(index, line, sealed))

    def columns(self, index: int, wrong: str) -> None:
        """Note that what a record is found by contradicts its line."""
        self._columns_count += 1
        if not self._columns:
            self._columns.append((index, wrong))

    def missing_tiles(self) -> set[int]:
        """Return the first indexes of tiles in which records are missing."""
        return {index - index % WIDTH for index in self._missing}

    def findings(self, size: int) -> list[Finding]:
        """Return what was found in a log of ``size`` records, at most one finding of each fault."""
        found = []
        moved = self._moved()
        # Where all moved up by one, the place that is empty at the end is that of the one that was taken out.
        if self._missing and not (moved is not None and self._missing_count == 1):
            first, last = self._missing[0], self._missing[-1]
            is_end = first + self._missing_count == size
            found.append(
                Finding(
                    fault=Fault.TRUNCATED if is_end else Fault.MISSING,
                    index=first,
                    last=last if self._missing_count <= MAX_REMEMBERED else None,
                    count=self._missing_count,
                    message=f"the end is gone: records {first + 1} to {size}"
                    if is_end
                    else f"record {first + 1} is gone" + _more(self._missing_count),
                )
            )
        if self._columns:
            index, wrong = self._columns[0]
            found.append(
                Finding(
                    fault=Fault.COLUMNS,
                    index=index,
                    count=self._columns_count,
                    message=f"record {index + 1} is found by something that its line does not say: {wrong}"
                    + _more(self._columns_count),
                )
            )
        return found + (self._changed() if moved is None else [moved])

    def _changed(self) -> list[Finding]:
        places = self._places
        belongs = {place.sealed: place.index for place in places}
        swapped = [place for place in places if (place.found or b"") in belongs]
        altered = [place for place in places if place.found not in belongs]
        found = []
        if swapped:
            first = swapped[0]
            other = belongs[first.found or b""]
            found.append(
                Finding(
                    fault=Fault.REORDERED,
                    index=first.index,
                    last=swapped[-1].index,
                    count=len(swapped),
                    message=f"in the place of record {first.index + 1} stands record {other + 1}"
                    + _more(len(swapped)),
                )
            )
        if altered:
            first, count = altered[0], self._count - len(swapped)
            found.append(
                Finding(
                    fault=Fault.ALTERED,
                    index=first.index,
                    last=altered[-1].index if self._count == len(places) else None,
                    count=count,
                    message=f"record {first.index + 1}{_name(first.line)} is not what was sealed"
                    + _more(count),
                )
            )
        return found

    def _moved(self) -> Finding | None:
        """Recognise that everything behind one place moved by one: a record was taken out or put in."""
        places = self._places
        following = list(pairwise(places))
        if not following or any(b.index != a.index + 1 for a, b in following):
            return None
        first, last = places[0], places[-1]
        if first.found == last.sealed or last.found == first.sealed:
            return None  # a ring: nothing was taken out or put in
        if all(a.found == b.sealed for a, b in following):
            return Finding(
                fault=Fault.MISSING,
                index=first.index,
                count=1,
                message=f"record {first.index + 1} was taken out, and those behind it moved up",
            )
        if all(b.found == a.sealed for a, b in following):
            return Finding(
                fault=Fault.INSERTED,
                index=first.index,
                count=1,
                message=f"record {first.index + 1}{_name(first.line)} was put in, and those behind it moved down",
            )
        return None


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""


def _name(line: bytes | None) -> str:
    try:
        return f" ({decode_record(line or b'').id})"
    except InputError:
        return " (which is no record any more)"
