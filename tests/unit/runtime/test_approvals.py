# SPDX-License-Identifier: Apache-2.0
"""The approval socket: a safe directory, users who exist, and nobody else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from everyhop.core.errors import SettingsError
from everyhop.runtime.approvals import EVERYBODY, approval_door, uid_named
from everyhop.runtime.settings import Settings


def settings_of(path: Path, approvers: tuple[str, ...] = ("0",)) -> Settings:
    return Settings(two_person=True, approvers=approvers, approval_socket=str(path))


CONTROL: Any = object()


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777, 0o757])
def test_a_directory_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(SettingsError, match="only its owner"):
        approval_door(CONTROL, settings_of(tmp_path / "s"))


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        approval_door(CONTROL, settings_of(tmp_path / "none" / "s"))


def test_a_user_who_does_not_exist_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(SettingsError, match="no user"):
        approval_door(CONTROL, settings_of(tmp_path / "s", ("no-such-user",)))


def test_without_settings_there_is_no_door() -> None:
    assert approval_door(CONTROL, Settings()) is None


def test_a_door(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    door = approval_door(CONTROL, settings_of(tmp_path / "s", ("root", "1000")))
    assert door is not None
    assert (door.path, door.mode) == (tmp_path / "s", EVERYBODY)
    assert uid_named("root") == 0
    assert uid_named(str(os.getuid())) == os.getuid()
