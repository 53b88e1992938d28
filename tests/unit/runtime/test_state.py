# SPDX-License-Identifier: Apache-2.0
"""The state directory: modes, length of socket paths, one holder at a time."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from everyhop.core.errors import Conflict, SettingsError
from everyhop.runtime.layout import StateLayout, default_state
from everyhop.runtime.locks import StateLock


def test_a_path_too_long_for_sockets_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    layout = StateLayout(tmp_path / ("x" * 100))
    with pytest.raises(SettingsError, match="too long"):
        layout.create()
    assert not layout.root.exists()


def test_private_directories_are_private_whatever_the_umask(short_path: Path) -> None:
    layout = StateLayout(short_path / "s")
    before = os.umask(0)
    try:
        layout.create()
    finally:
        os.umask(before)
    for path, mode in (
        (layout.root, 0o711),
        (layout.run, 0o711),
        (layout.keys, 0o700),
        (layout.spool, 0o700),
    ):
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_modes_that_were_left_open_are_tightened(short_path: Path) -> None:
    layout = StateLayout(short_path / "s")
    layout.create()
    layout.keys.chmod(0o755)
    layout.create()
    assert stat.S_IMODE(layout.keys.stat().st_mode) == 0o700


def test_a_second_holder_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    first, second = StateLock(tmp_path / "lock"), StateLock(tmp_path / "lock")
    first.acquire()
    with pytest.raises(Conflict, match=f"pid {os.getpid()}"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()
    second.release()


def test_the_default_state_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("EVERYHOP_STATE", raising=False)
    assert default_state() == tmp_path / "everyhop"
    monkeypatch.setenv("EVERYHOP_STATE", "/elsewhere")
    assert default_state() == Path("/elsewhere")
    monkeypatch.delenv("EVERYHOP_STATE")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_state() == Path.home() / ".local" / "state" / "everyhop"
