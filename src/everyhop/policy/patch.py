# SPDX-License-Identifier: Apache-2.0
"""A change of policy files as a unified diff, which ``patch -p1`` and ``git apply`` take."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NO_NEWLINE: Final = "\\ No newline at end of file\n"


def unified_diff(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> str:
    """Return the difference between two states of the same files, "" where there is none.

    Names are those of ``before``; a relative one gets ``a/`` and ``b/`` in front.  The files are UTF-8.
    """
    return "".join(
        part for name in sorted(before) if before[name] != after[name] for part in _file(name, before, after)
    )


def _file(name: str, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> Iterator[str]:
    old, new = (files[name].decode().split("\n") for files in (before, after))
    prefixes = ("", "") if name.startswith("/") else ("a/", "b/")
    lines = difflib.unified_diff(
        _lines(old), _lines(new), fromfile=prefixes[0] + name, tofile=prefixes[1] + name
    )
    for line in lines:
        yield line if line.endswith("\n") else f"{line}\n{_NO_NEWLINE}"


def _lines(parts: list[str]) -> list[str]:
    """Return lines with their newlines; the last one has none where the file does not end with one."""
    whole = [f"{part}\n" for part in parts[:-1]]
    return [*whole, parts[-1]] if parts[-1] else whole
