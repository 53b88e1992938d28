# SPDX-License-Identifier: Apache-2.0
"""Where the application listens, from the kernel's tables."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from everyhop.runtime import listening
from everyhop.runtime.listening import Listening, find_listening, parse_listeners

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 100 0 0 10 0
   1: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 3 1 0 100 0 0 10 0
   3: short
"""


def test_only_listeners_on_the_port_count() -> None:
    assert parse_listeners(TABLE, 0x1F90) == [("0100007F", 1000)]
    assert parse_listeners(TABLE, 0x1F91) == [("00000000", 0)]
    assert parse_listeners(TABLE, 80) == []


def test_a_port_that_another_user_took_is_not_the_application(tmp_path: Path, monkeypatch: object) -> None:
    del monkeypatch
    table = tmp_path / "tcp"
    table.write_text(TABLE.replace("  1000 ", f"  {os.getuid() + 1} "), encoding="ascii")
    before = listening._TABLES
    try:
        listening._TABLES = (table,)  # type: ignore[misc]  # the kernel's own table cannot be made to say this
        assert find_listening(tmp_path / "none.sock", 0x1F90) == Listening(app=None)
    finally:
        listening._TABLES = before  # type: ignore[misc]  # as above


def test_loopback_port_every_interface_and_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket() as loopback, socket.socket() as exposed, socket.socket(socket.AF_UNIX) as unix:
        loopback.bind(("127.0.0.1", 0))
        loopback.listen()
        exposed.bind(("0.0.0.0", 0))  # the case to be warned about
        exposed.listen()
        assert find_listening(path, loopback.getsockname()[1]) == Listening(app="port")
        assert find_listening(path, exposed.getsockname()[1]) == Listening(app="port", exposed=True)
        path.write_text("not a socket")
        assert find_listening(path, 1) == Listening(app=None)
        path.unlink()
        unix.bind(str(path))
        assert find_listening(path, loopback.getsockname()[1]) == Listening(app="unix")
