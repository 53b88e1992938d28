# SPDX-License-Identifier: Apache-2.0
"""A policy on disk: one file, or every ``*.yaml`` and ``*.yml`` of one directory (not below it)."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from everyhop.authz import run_tests
from everyhop.core.errors import InputError
from everyhop.policy import parse_policy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from everyhop.core.problems import Problem
    from everyhop.policy.model import Snapshot

MAX_FILES: Final = 500
MAX_FILE_BYTES: Final = 4 * 1024 * 1024


class PolicyFiles:
    """A policy file or directory, read whole each time."""

    def __init__(self, path: Path) -> None:
        self._path = path

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
            stats = [(str(p), p.stat()) for p in self._files()]
        except (OSError, InputError) as error:
            return str(error)
        return tuple((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in stats)

    def read(self) -> Mapping[str, bytes]:
        """Return each file's bytes by the name to show in errors.

        Raises InputError when the path does not exist, cannot be read or is too large.
        """
        files: dict[str, bytes] = {}
        try:
            for path in self._files():
                with path.open("rb") as stream:
                    if os.fstat(stream.fileno()).st_mode & stat.S_IWOTH:
                        raise InputError(
                            f"every user of this machine may write {path}", hint=f"chmod o-w {path}"
                        )
                    files[str(path)] = stream.read(MAX_FILE_BYTES + 1)
                if len(files[str(path)]) > MAX_FILE_BYTES:
                    raise InputError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
        except OSError as error:
            raise InputError(
                f"cannot read the policy: {error.strerror}: {error.filename}",
                hint="name a file or directory with --policy, or make one with: everyhop init",
            ) from error
        return files


class PureRules:
    """The policy language and its tests, as the control plane's port."""

    def parse(self, files: Mapping[str, bytes]) -> Snapshot:
        """Return the snapshot, or raise PolicyError with every problem."""
        return parse_policy(files)

    def failed_tests(self, snapshot: Snapshot) -> list[Problem]:
        """Return one problem per failed test of the policy."""
        return [problem for result in run_tests(snapshot) if (problem := result.problem()) is not None]
