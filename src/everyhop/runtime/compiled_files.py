# SPDX-License-Identifier: Apache-2.0
"""Compiled files on disk: written as a whole, compared with what is there, and nothing of anybody else touched.

``.everyhop-compiled.json`` in the directory lists what was written for each target, so that a file which is no longer compiled
is found and removed, and no other is.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import msgspec

from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from everyhop.targets.model import Compilation

LIST: Final = ".everyhop-compiled.json"


class _Listed(msgspec.Struct, frozen=True):
    targets: dict[str, list[str]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How a directory differs from what is compiled: paths below it."""

    missing: tuple[str, ...]
    changed: tuple[str, ...]
    stale: tuple[str, ...]

    @property
    def is_none(self) -> bool:
        """Tell whether the directory holds exactly what is compiled."""
        return not (self.missing or self.changed or self.stale)


def difference(directory: Path, compilations: Sequence[Compilation]) -> Difference:
    """Compare a directory with compilations; files of other targets and of other people do not count.

    Raises InputError when the list in the directory cannot be read.
    """
    wanted = _wanted(compilations)
    missing, changed = [], []
    for path, content in wanted.items():
        try:
            found = (directory / path).read_bytes()
        except FileNotFoundError:
            missing.append(path)
            continue
        except OSError as error:
            raise InputError(f"cannot read {directory / path}: {error.strerror}") from error
        if found != content:
            changed.append(path)
    stale = (path for path in _stale(directory, compilations) if (directory / path).is_file())
    return Difference(missing=tuple(missing), changed=tuple(changed), stale=tuple(stale))


def write(directory: Path, compilations: Sequence[Compilation]) -> Difference:
    """Bring a directory to what is compiled and return what that changed.

    Each file is replaced whole; what was compiled there for the same targets and is no more is removed.
    Raises InputError when something cannot be written; a second run completes what was left.
    """
    found = difference(directory, compilations)
    wanted = _wanted(compilations)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # The list first, with both the old and the new, so that an interrupted run leaves nothing that nobody knows.
        _replace(directory / LIST, _listing(directory, compilations, keep_stale=True))
        for path in (*found.missing, *found.changed):
            place = directory / path
            place.parent.mkdir(parents=True, exist_ok=True)
            _replace(place, wanted[path])
        for path in found.stale:
            (directory / path).unlink(missing_ok=True)
        _replace(directory / LIST, _listing(directory, compilations, keep_stale=False))
    except OSError as error:
        raise InputError(f"cannot write {error.filename or directory}: {error.strerror}") from error
    return found


def _wanted(compilations: Sequence[Compilation]) -> Mapping[str, bytes]:
    return {file.path: file.content for one in compilations for file in one.files}


def _stale(directory: Path, compilations: Sequence[Compilation]) -> Iterator[str]:
    listed, wanted = _listed(directory), _wanted(compilations)
    for one in compilations:
        yield from (path for path in listed.targets.get(one.target, ()) if path not in wanted)


def _listed(directory: Path) -> _Listed:
    try:
        listed = msgspec.json.decode((directory / LIST).read_bytes(), type=_Listed)
    except FileNotFoundError:
        return _Listed()
    except (OSError, msgspec.MsgspecError) as error:
        raise InputError(f"{directory / LIST} is not the list of compiled files", hint="remove it") from error
    for path in (path for paths in listed.targets.values() for path in paths):
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts:
            raise InputError(f"{directory / LIST} names a path outside: {path[:80]!r}", hint="remove it")
    return listed


def _listing(directory: Path, compilations: Sequence[Compilation], *, keep_stale: bool) -> bytes:
    targets = dict(_listed(directory).targets)
    for one in compilations:
        paths = {file.path for file in one.files}
        targets[one.target] = sorted(paths | set(targets.get(one.target, ())) if keep_stale else paths)
    return msgspec.json.format(msgspec.json.encode(_Listed(targets), order="sorted"), indent=2) + b"\n"


def _replace(place: Path, content: bytes) -> None:
    descriptor, draft = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(draft).chmod(0o644)
        Path(draft).replace(place)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
