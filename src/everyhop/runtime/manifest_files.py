# SPDX-License-Identifier: Apache-2.0
"""Manifests from files, directories and standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError
from everyhop.manifests import Manifests, read_manifests

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STANDARD_INPUT: Final = "-"
SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
MAX_FILES: Final = 20_000
MAX_BYTES: Final = 512 * 1024 * 1024


def manifests_of(places: Iterable[str]) -> Manifests:
    """Read manifests: files, directories (their ``.yaml``, ``.yml`` and ``.json`` files, hidden ones left out) and ``-``.

    At most 20,000 files and 512 MiB.  Raises InputError for what cannot be read, and for a directory without manifests.
    """
    files: dict[str, bytes] = {}
    size = 0
    for place in places:
        for name, content in _contents(place):
            size += len(content)
            if size > MAX_BYTES or len(files) >= MAX_FILES:
                raise InputError(f"more than {MAX_FILES} files or {MAX_BYTES} bytes of manifests")
            files[name] = content
    return read_manifests(files)


def _contents(place: str) -> Iterator[tuple[str, bytes]]:
    if place == STANDARD_INPUT:
        yield "standard input", sys.stdin.buffer.read(MAX_BYTES + 1)
        return
    path = Path(place)
    if not path.is_dir():
        yield place, _read(path)
        return
    found = sorted(
        one for one in path.rglob("*") if one.suffix in SUFFIXES and _is_shown(one.relative_to(path))
    )
    if not found:
        raise InputError(f"there is no manifest in {place}", hint="files end in .yaml, .yml or .json")
    for one in found:
        yield str(one), _read(one)


def _is_shown(path: Path) -> bool:
    return not any(part.startswith(".") for part in path.parts)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
