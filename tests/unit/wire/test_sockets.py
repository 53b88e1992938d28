# SPDX-License-Identifier: Apache-2.0
import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from everyhop.core.errors import Conflict, InputError, Unavailable
from everyhop.core.limits import MAX_SOCKET_PATH_BYTES
from everyhop.wire.sockets import UnixListener


@pytest.fixture
def directory():
    with tempfile.TemporaryDirectory(prefix="eh-") as name:
        yield Path(name)


def test_a_path_that_does_not_fit(directory):
    name = "x" * (MAX_SOCKET_PATH_BYTES - len(str(directory)))
    with pytest.raises(InputError, match="107"):
        UnixListener.bind(directory / name, mode=0o600)
    UnixListener.bind(directory / name[1:], mode=0o600).close()
    assert list(directory.iterdir()) == []


def test_somebody_listens(directory):
    path = directory / "s"
    first = UnixListener.bind(path, mode=0o600)
    with pytest.raises(Conflict, match="listens"):
        UnixListener.bind(path, mode=0o600)
    first.close()
    UnixListener.bind(path, mode=0o600).close()


def test_somebody_with_a_full_backlog_listens(directory):
    path = directory / "s"
    with (
        UnixListener.bind(path, mode=0o600, backlog=0).sock as listening,
        socket.socket(socket.AF_UNIX) as one,
    ):
        one.connect(str(path))
        assert listening
        with pytest.raises(Conflict):
            UnixListener.bind(path, mode=0o600)


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("/nowhere")])
def test_what_is_no_socket_is_left_alone(directory, make):
    path = directory / "s"
    make(path)
    with pytest.raises(Conflict, match="not a socket"):
        UnixListener.bind(path, mode=0o600)
    assert os.path.lexists(path)


def test_a_missing_directory(directory):
    with pytest.raises(Unavailable):
        UnixListener.bind(directory / "none" / "s", mode=0o600)


def test_a_socket_left_behind_is_replaced(directory):
    path = directory / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    listener = UnixListener.bind(path, mode=0o600)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o777])
def test_exact_mode_whatever_the_umask(directory, umask, mode):
    before = os.umask(umask)
    try:
        listener = UnixListener.bind(directory / "s", mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((directory / "s").stat().st_mode) == mode
    assert [entry.name for entry in directory.iterdir()] == ["s"]
    assert not os.get_inheritable(listener.sock.fileno())
    listener.close()


def test_closing_leaves_the_socket_of_a_successor(directory):
    path = directory / "s"
    first = UnixListener.bind(path, mode=0o600)
    first.sock.close()
    second = UnixListener.bind(path, mode=0o600)
    first.close()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    second.close()
    second.close()
    assert not path.exists()


def test_an_interrupt_leaves_nothing_behind(directory, monkeypatch):
    def interrupt(*args, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("everyhop.wire.sockets._place", interrupt)
    with pytest.raises(KeyboardInterrupt):
        UnixListener.bind(directory / "s", mode=0o600)
    assert list(directory.iterdir()) == []
