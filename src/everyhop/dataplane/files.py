# SPDX-License-Identifier: Apache-2.0
"""Rendered files onto disk, each of them whole: the readable truth about a sidecar, and what the agent serves."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DIRECTORIES: Final = ("xds", "ecds", "eds", "rds")
"""Resources by kind of discovery service; the files in them are given to Envoy (:mod:`.configuration`)."""

_SCRATCH: Final = ".new"


def write_files(directory: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Make ``directory`` hold exactly ``files``; return what was written or removed, in that order.

    Files whose content is there already are left alone.  Each one is written elsewhere and renamed into place, mode
    0600.  Raises OSError when the disk refuses.
    """
    for name in (_SCRATCH, *DIRECTORIES):
        (directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    _clear_scratch(directory)
    changed = list(replace_files(directory, files))
    for name in _stale(directory, files):
        (directory / name).unlink()
        changed.append(name)
    return tuple(changed)


def replace_files(directory: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Write some files of a directory that :func:`write_files` has made, in the order given; leave the others."""
    changed = [name for name, content in files.items() if _read(directory / name) != content]
    for name in changed:
        _replace(directory, name, files[name])
    return tuple(changed)


def _stale(directory: Path, files: Mapping[str, bytes]) -> list[str]:
    found = (path.relative_to(directory) for name in DIRECTORIES for path in (directory / name).iterdir())
    return sorted(str(path) for path in found if str(path) not in files)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _replace(directory: Path, name: str, content: bytes) -> None:
    scratch = directory / _SCRATCH / secrets.token_hex(8)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
    scratch.replace(directory / name)


def _clear_scratch(directory: Path) -> None:
    """Remove what a writer left that was killed."""
    for path in (directory / _SCRATCH).iterdir():
        with contextlib.suppress(OSError):
            path.unlink()
