# SPDX-License-Identifier: Apache-2.0
"""Manifests that a command is given: files, directories of them, or standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STDIN: Final = "-"
_NAME_OF_STDIN: Final = "<stdin>"
_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
_MAX_FILES: Final = 10_000
_MAX_BYTES: Final = 64 * 1024 * 1024
_MAX_TOTAL: Final = 512 * 1024 * 1024


def read_files(names: Iterable[str]) -> dict[str, bytes]:
    """Return what the names stand for, by the names to show in errors.

    ``-`` is standard input; a directory all of its ``.yaml``, ``.yml`` and ``.json`` files, those below it too, hidden ones not.
    Raises InputError for what is not there, cannot be read or is too large.
    """
    found: dict[str, bytes] = {}
    total = 0
    for path in _paths(names):
        name = _NAME_OF_STDIN if path is None else str(path)
        try:
            data = _read(path)
        except OSError as error:
            raise InputError(f"cannot read {name}: {error.strerror}") from error
        total += len(data)
        if len(data) > _MAX_BYTES or total > _MAX_TOTAL or len(found) >= _MAX_FILES:
            message = f"{name}: at most {_MAX_FILES} files of {_MAX_BYTES} bytes, {_MAX_TOTAL} together"
            raise InputError(message)
        found[name] = data
    if not found:
        raise InputError("there is no .yaml, .yml or .json file")
    return found


def _read(path: Path | None) -> bytes:
    if path is None:
        return sys.stdin.buffer.read(_MAX_BYTES + 1)
    with path.open("rb") as stream:
        return stream.read(_MAX_BYTES + 1)


def _paths(names: Iterable[str]) -> Iterator[Path | None]:
    for name in names:
        if name == STDIN:
            yield None
            continue
        path = Path(name)
        if not path.is_dir():
            yield path
            continue
        for inner in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in inner.relative_to(path).parts)
            if inner.suffix in _SUFFIXES and not hidden and inner.is_file():
                yield inner
