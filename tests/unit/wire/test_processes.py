# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
from pathlib import Path

import pytest

from everyhop.core.errors import AttestationError
from everyhop.wire import processes
from everyhop.wire.processes import ProcessHandle, ProcessRef, boot_id, parse_stat, read_ids, read_stat

TAIL = b"S 17 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 998877 1 2"


@pytest.mark.parametrize(
    "raw",
    [b"", b"1 (x", b"1 (x) S", b"1 (x) S y " + b"0 " * 30, b"\xff" * 100, b"1 (x) \xff 1 " + b"0 " * 30],
)
def test_text_that_is_no_stat(raw):
    with pytest.raises(AttestationError):
        parse_stat(raw)


@pytest.mark.parametrize("name", [b"sh", b"a b", b"x) R 1 (", b") ", b"\xff\n"])
def test_the_name_may_hold_anything(name):
    stat = parse_stat(b"42 (" + name + b") " + TAIL)
    assert (stat.state, stat.parent, stat.start_time, stat.is_dead) == ("S", 17, 998877, False)


def test_own_process():
    stat = read_stat(os.getpid())
    assert stat.parent == os.getppid()
    assert len(boot_id()) == 36


@pytest.fixture(params=["pidfd", "no pidfd"])
def opener(request, monkeypatch):
    if request.param == "no pidfd":

        def refuse(pid, flags=0):
            raise OSError(38, "not implemented")

        monkeypatch.setattr(processes.os, "pidfd_open", refuse)
    return ProcessHandle.open


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1])
def test_no_such_process(opener, pid):
    with pytest.raises(AttestationError):
        opener(pid)


def test_the_pid_of_a_process_that_was_reaped(opener):
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    with pytest.raises(AttestationError, match="gone"):
        opener(child.pid)


def test_alive_until_it_ends_also_before_it_is_reaped(opener):
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    handle = opener(child.pid)
    assert handle.is_alive()
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not handle.is_alive()
    child.wait()
    assert not handle.is_alive()
    handle.close()
    handle.close()
    assert not handle.is_alive()
    assert str(child.pid) in repr(handle)


def test_a_process_with_another_start_time_is_another(opener):
    own = read_stat(os.getpid())
    ref = ProcessRef(pid=os.getpid(), start_time=own.start_time)
    ProcessHandle.reopen(ref).close()
    with pytest.raises(AttestationError, match="given to another"):
        ProcessHandle.reopen(ProcessRef(pid=ref.pid, start_time=ref.start_time - 1))


def test_a_refused_descriptor_is_closed():
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(AttestationError):
            ProcessHandle.adopt(0, os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(AttestationError):
            ProcessHandle.reopen(ProcessRef(pid=os.getpid(), start_time=1))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_ids_of_this_process():
    ids = read_ids(os.getpid())
    assert ids.effective == (os.geteuid(), os.getegid())
    assert ids.uids == (*os.getresuid(), os.geteuid())
    assert len(ids.gids) == 4


def test_the_ids_of_a_process_that_is_gone():
    with pytest.raises(AttestationError, match="gone"):
        read_ids(2**22 + 1)


@pytest.mark.parametrize(
    "text", ["Name: x\n", "Uid: 0 0 0 0\n", "Uid: 0 0\nGid: 0 0 0 0\n", "Uid: 0 x 0 0\nGid: 0 0 0 0\n"]
)
def test_a_process_whose_ids_are_not_told_has_none(monkeypatch, text):
    monkeypatch.setattr(processes.Path, "read_text", lambda self, *args, **named: text)
    with pytest.raises(AttestationError):
        read_ids(1)
