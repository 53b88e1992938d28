# SPDX-License-Identifier: Apache-2.0
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from everyhop.core.errors import AttestationError, InputError
from everyhop.providers.attestors import ExecutableDigests, ProcInspector, inspector as module
from everyhop.wire.peers import PeerInfo
from everyhop.wire.processes import ProcessHandle, ProcessRef, read_stat

CAT = os.path.realpath("/bin/cat")
CAT_DIGEST = hashlib.sha256(Path(CAT).read_bytes()).hexdigest()


@pytest.fixture
def started():
    children = []

    def start(program=CAT, **options):
        child = subprocess.Popen([program], executable=program, stdin=subprocess.PIPE, **options)
        children.append(child)
        return child

    yield start
    for child in children:
        child.stdin.close()
        child.wait()


@pytest.fixture
def inspector():
    opened = ProcInspector()
    yield opened
    opened.close()


def peer(pid, uid=None, gid=None):
    return PeerInfo(
        pid=pid,
        uid=os.getuid() if uid is None else uid,
        gid=os.getgid() if gid is None else gid,
        process=ProcessHandle.open(pid),
    )


def look(inspector, pid, *, path=True, sha256=True, **who):
    return inspector.read(peer(pid, **who), path=path, sha256=sha256)


def test_a_peer_of_another_pid_namespace(inspector):
    nobody = PeerInfo(pid=0, uid=0, gid=0, process=ProcessHandle(ProcessRef(pid=0, start_time=0), None))
    with pytest.raises(AttestationError, match="namespace"):
        inspector.read(nobody, path=True, sha256=True)


def test_a_peer_that_ended(inspector, started):
    child = started()
    asked = peer(child.pid)
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(AttestationError):
        inspector.read(asked, path=False, sha256=False)
    child.wait()
    with pytest.raises(AttestationError):
        inspector.read(asked, path=True, sha256=True)


async def test_path_digest_and_ancestors(inspector, started):
    child = started()
    facts = await inspector.inspect(peer(child.pid), path=True, sha256=True)
    assert facts.path == CAT
    assert facts.sha256 == CAT_DIGEST
    own = ProcessRef(pid=os.getpid(), start_time=read_stat(os.getpid()).start_time)
    assert facts.ancestors[0].pid == child.pid
    assert facts.ancestors[1] == own
    assert facts.ancestors[-1].pid == 1
    assert dict(facts.unknown) == {}


def test_the_program_is_not_looked_at_unasked(inspector):
    facts = look(inspector, os.getpid(), path=False, sha256=False)
    assert (facts.path, facts.sha256, dict(facts.unknown)) == (None, None, {})
    assert facts.groups == tuple(sorted(set(os.getgroups())))


def test_a_deleted_program_has_no_path_but_its_digest(inspector, started, tmp_path):
    copy = tmp_path / "program"
    shutil.copy(CAT, copy)
    child = started(str(copy))
    assert look(inspector, child.pid).path == str(copy)
    copy.unlink()
    facts = look(inspector, child.pid)
    assert facts.path is None
    assert "deleted or replaced" in facts.unknown["path"]
    assert facts.sha256 == CAT_DIGEST


def test_a_file_that_takes_the_name_of_a_deleted_program(inspector, started, tmp_path):
    copy = tmp_path / "program"
    shutil.copy(CAT, copy)
    child = started(str(copy))
    copy.unlink()
    for name in ("program", "program (deleted)"):
        shutil.copy(CAT, tmp_path / name)
    assert look(inspector, child.pid).path is None


def test_a_replaced_program_has_the_old_digest(inspector, started, tmp_path):
    copy = tmp_path / "program"
    shutil.copy(CAT, copy)
    child = started(str(copy))
    other = tmp_path / "new"
    shutil.copy(os.path.realpath("/bin/true"), other)
    other.replace(copy)
    facts = look(inspector, child.pid)
    assert facts.path is None
    assert facts.sha256 == CAT_DIGEST


def test_a_program_replaced_while_it_is_looked_at(inspector, monkeypatch):
    monkeypatch.setattr(module, "_runs", lambda pid, descriptor: False)
    with pytest.raises(AttestationError, match="replaced its program"):
        look(inspector, os.getpid())


def test_a_program_that_may_not_be_seen(inspector, monkeypatch):
    def refuse(*args, **named):
        raise PermissionError(13, "no")

    monkeypatch.setattr(module.os, "open", refuse)
    facts = look(inspector, os.getpid())
    assert (facts.path, facts.sha256) == (None, None)
    assert set(facts.unknown) == {"path", "sha256"}
    assert "run the agent as root" in facts.unknown["path"]
    assert dict(look(inspector, os.getpid(), path=False).unknown).keys() == {"sha256"}


def test_users_and_groups_without_a_name(inspector):
    facts = look(inspector, os.getpid(), uid=4_000_000, gid=4_000_001)
    assert (facts.uid, facts.user, facts.gid, facts.group) == (4_000_000, None, 4_000_001, None)


def test_a_chain_whose_parent_changes_hands_ends_there(monkeypatch):
    child = read_stat(os.getpid())
    answers = iter([child, child, type(child)(state="S", parent=1, start_time=child.start_time)] * 3)
    monkeypatch.setattr(module, "read_stat", lambda pid: next(answers))
    ref = ProcessRef(pid=os.getpid(), start_time=child.start_time)
    assert list(module._ancestors(ref)) == [ref]


def test_a_chain_whose_process_was_replaced_ends_there(monkeypatch):
    ref = ProcessRef(pid=os.getpid(), start_time=1)
    assert list(module._ancestors(ref)) == [ref]


def test_a_kernel_thread_or_zombie_has_no_program(inspector):
    if not Path("/proc/2/exe").is_symlink() or os.getuid() != 0:
        pytest.skip("no kernel thread to look at")
    facts = look(inspector, 2, uid=0)
    assert facts.path is None
    assert "no program" in facts.unknown["path"]


def test_digests_of_what_is_no_file_or_too_large(tmp_path):
    digests = ExecutableDigests(max_bytes=10)
    with Path("/dev/null").open("rb") as device, pytest.raises(InputError, match="regular"):
        digests.of(device.fileno())
    large = tmp_path / "large"
    large.write_bytes(b"x" * 11)
    with large.open("rb") as file, pytest.raises(InputError, match="more than 10"):
        digests.of(file.fileno())


def test_digests_are_remembered_until_the_file_changes(tmp_path, monkeypatch):
    digests = ExecutableDigests(max_remembered=2)
    file = tmp_path / "f"
    file.write_bytes(b"one")
    with file.open("rb") as opened:
        assert digests.of(opened.fileno()) == hashlib.sha256(b"one").hexdigest()
        reads = []
        real = ExecutableDigests._read
        monkeypatch.setattr(ExecutableDigests, "_read", lambda self, fd: reads.append(fd) or real(self, fd))
        digests.of(opened.fileno())
        assert reads == []
        file.write_bytes(b"other")
        assert digests.of(opened.fileno()) == hashlib.sha256(b"other").hexdigest()
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
        with (tmp_path / name).open("rb") as opened:
            digests.of(opened.fileno())
    assert len(digests._known) == 2


def test_a_file_that_changes_under_the_reader(tmp_path, monkeypatch):
    file = tmp_path / "f"
    file.write_bytes(b"one")
    digests = ExecutableDigests(max_bytes=100)

    def change(self, descriptor):
        file.write_bytes(b"longer")
        return "0" * 64

    monkeypatch.setattr(ExecutableDigests, "_read", change)
    with file.open("rb") as opened, pytest.raises(InputError, match="changed"):
        digests.of(opened.fileno())


def test_a_file_that_grows_beyond_the_limit(tmp_path, monkeypatch):
    file = tmp_path / "f"
    file.write_bytes(b"x" * 50)
    digests = ExecutableDigests(max_bytes=100)
    with file.open("rb") as opened:
        real = os.pread
        monkeypatch.setattr("everyhop.providers.attestors.digests.os.pread", lambda *a: real(*a) or b"x" * 60)
        with pytest.raises(InputError, match="more than 100"):
            digests.of(opened.fileno())
