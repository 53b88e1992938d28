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
MAX_FILES: Final = 10_000
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_TOTAL: Final = 512 * 1024 * 1024
_NAME_OF_STDIN: Final = "<stdin>"
_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})


def read_files(names: Iterable[str]) -> dict[str, bytes]:
    """Return what the names stand for, by the names to show in errors.

    ``-`` is standard input; a directory all of its ``.yaml``, ``.yml`` and ``.json`` files, those below it too, hidden ones not.
    Raises InputError for what is not there, cannot be read or is too large, and for a directory without manifests.
    """
    found: dict[str, bytes] = {}
    total = 0
    for path in _paths(names):
        name = _NAME_OF_STDIN if path is None else str(path)
        try:
            data = _read(path)
        except FileNotFoundError as error:
            raise InputError(f"cannot read {name}: {error.strerror}", hint="no manifests here") from error
        except OSError as error:
            raise InputError(f"cannot read {name}: {error.strerror}") from error
        total += len(data)
        if len(data) > MAX_BYTES or total > MAX_TOTAL or len(found) >= MAX_FILES:
            message = f"{name}: more than {MAX_FILES} files, {MAX_BYTES} bytes in one or {MAX_TOTAL} together"
            raise InputError(message)
        found[name] = data
    return found


def _read(path: Path | None) -> bytes:
    if path is None:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    with path.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)


def _paths(names: Iterable[str]) -> Iterator[Path | None]:
    for name in names:
        path = Path(name)
        if name == STDIN:
            yield None
        elif path.is_dir():
            yield from _below(path)
        else:
            yield path


def _below(directory: Path) -> Iterator[Path]:
    is_empty = True
    for path in sorted(directory.rglob("*")):
        is_hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if path.suffix in _SUFFIXES and not is_hidden and path.is_file():
            is_empty = False
            yield path
    if is_empty:
        raise InputError(f"{directory}: no manifests here", hint="files end in .yaml, .yml or .json")
