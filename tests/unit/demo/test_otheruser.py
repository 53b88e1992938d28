# SPDX-License-Identifier: Apache-2.0
"""What another user can do: told by modes where the demo is not root, and tried where it is."""

import os
import socket
import tempfile
from pathlib import Path

import pytest

from everyhop.demo import otheruser


@pytest.fixture
def place():
    """A directory that others may pass, below one that everybody may pass."""
    with tempfile.TemporaryDirectory(prefix="ehdemo-", dir="/tmp") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(params=["told", "tried"])
def way(request, monkeypatch):
    if request.param == "told":
        monkeypatch.setattr(otheruser, "can_change_user", lambda: False)
    elif os.geteuid() != 0:
        pytest.skip("only root can try it as another user")
    return request.param


@pytest.mark.parametrize(
    ("directory", "mode", "seen"),
    [(0o711, 0o644, "read"), (0o711, 0o600, "EACCES"), (0o700, 0o644, "EACCES")],
)
def test_a_file_is_open_only_when_it_and_its_directory_are(place, way, directory, mode, seen):
    inner = place / "d"
    inner.mkdir()
    (inner / "f").write_text("x")
    (inner / "f").chmod(mode)
    inner.chmod(directory)
    assert otheruser.try_file(inner / "f").text == seen


@pytest.mark.parametrize(
    ("directory", "mode", "seen"),
    [(0o711, 0o666, "connected"), (0o711, 0o600, "EACCES"), (0o700, 0o666, "EACCES")],
)
def test_a_socket_is_open_only_when_it_and_its_directory_are(place, way, directory, mode, seen):
    inner = place / "d"
    inner.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(inner / "s"))
        listener.listen()
        (inner / "s").chmod(mode)
        inner.chmod(directory)
        assert otheruser.try_socket(inner / "s").text == seen
