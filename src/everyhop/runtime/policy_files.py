# SPDX-License-Identifier: Apache-2.0
"""A policy on disk: one file, or every ``*.yaml`` and ``*.yml`` of one directory (not below it).

The JSON files that operations name as the schema of their ``body`` belong to it, wherever below they lie.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from everyhop.anomaly.detectors import read_settings
from everyhop.authz import run_tests
from everyhop.control.proposals import UNKNOWN_FILE, Actor, Origin
from everyhop.core.errors import InputError, PolicyError
from everyhop.core.problems import Problem, Span
from everyhop.policy import parse_policy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.policy.model import Snapshot

MAX_FILES: Final = 500
_BODY: Final = re.compile(rb"\bbody['\"]?\s*:\s*['\"]?([A-Za-z0-9_.-][A-Za-z0-9_./-]{0,250}\.json)\b")
MAX_FILE_BYTES: Final = 4 * 1024 * 1024


class PolicyFiles:
    """A policy file or directory, read whole each time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._documents: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """Return the path as the user gave it."""
        return str(self._path)

    def _files(self) -> list[Path]:
        if self._path.is_dir():
            found = sorted(
                p
                for p in self._path.iterdir()
                if p.suffix in {".yaml", ".yml"} and not p.name.startswith(".")
            )
            if not found:
                raise InputError(
                    f"{self._path} holds no policy file", hint="policy files end in .yaml or .yml"
                )
            if len(found) > MAX_FILES:
                raise InputError(f"{self._path} holds more than {MAX_FILES} policy files")
            return found
        return [self._path]

    def fingerprint(self) -> object:
        """Return names, sizes and times of the files; an unreadable path has a fingerprint of its own."""
        try:
            stats = [(str(p), p.stat()) for p in (*self._files(), *self._documents)]
        except (OSError, InputError) as error:
            return str(error)
        return tuple((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in stats)

    def actor(self) -> Actor:
        """Return the owner of the file that was written last; who wrote it, nobody can tell afterwards."""
        try:
            newest = max((path.stat() for path in self._files()), key=lambda s: s.st_mtime_ns)
        except (OSError, InputError):
            return UNKNOWN_FILE
        return Actor(origin=Origin.FILE, uid=newest.st_uid)

    def read(self) -> Mapping[str, bytes]:
        """Return each file's bytes by the name to show in errors.

        Raises InputError when the path does not exist, cannot be read or is too large.
        """
        try:
            files = {str(path): _read(path) for path in self._files()}
            self._documents = tuple(
                path for name, data in files.items() for path in _documents(Path(name).parent, data)
            )
            files.update({str(path): _read(path) for path in self._documents if path.exists()})
        except OSError as error:
            raise InputError(
                f"cannot read the policy: {error.strerror}: {error.filename}",
                hint="name a file or directory with --policy, or make one with: everyhop init",
            ) from error
        return files


def _read(path: Path) -> bytes:
    with path.open("rb") as stream:
        if os.fstat(stream.fileno()).st_mode & stat.S_IWOTH:
            raise InputError(f"every user of this machine may write {path}", hint=f"chmod o-w {path}")
        data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    return data


def _documents(directory: Path, text: bytes) -> list[Path]:
    """Return the JSON files that a policy text may name as ``body``.

    Only a guess at which files to offer: what the text means is for the parser, which refuses a name that is not there.
    """
    names = sorted({match.group(1).decode() for match in _BODY.finditer(text)})
    return [Path(os.path.normpath(directory / name)) for name in names if ".." not in name.split("/")]


class PureRules:
    """The policy language and its tests, as the control plane's port."""

    def parse(self, files: Mapping[str, bytes]) -> Snapshot:
        """Return the snapshot, or raise PolicyError with every problem; wishes for detectors are checked as well."""
        snapshot = parse_policy(files)
        detection = snapshot.detection
        try:
            read_settings(detection.detectors)
        except InputError as error:
            span = detection.span or Span(file=next(iter(files)), line=1, column=1)
            problem = Problem(
                code="detectors",
                span=span,
                message=f"detect: detectors: {error.message}",
                suggestion=error.hint,
            )
            raise PolicyError((problem,)) from error
        return snapshot

    def failed_tests(self, snapshot: Snapshot) -> list[Problem]:
        """Return one problem per failed test of the policy."""
        return [problem for result in run_tests(snapshot) if (problem := result.problem()) is not None]
