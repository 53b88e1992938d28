# SPDX-License-Identifier: Apache-2.0
"""Identity follows the process: its user, its program, its launch, its end."""

import hashlib
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support import forked
from tests.support.agent_under_test import AgentUnderTest
from tests.support.raw_grpc import RawGrpc

from everyhop.wire.transport import Limits
from everyhop.wire.workload_pb2 import X509SVIDResponse

PERMISSION_DENIED = 7
X509 = "/SpiffeWorkloadAPI/FetchX509SVID"
as_root = pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root")
SLEEP = shutil.which("sleep")


def hints(socket):
    """What the calling process gets: names, or the gRPC status that refused it."""
    with RawGrpc(socket) as client:
        client.open(X509)
        event = client.next()
        if event[0] == "message":
            return [svid.hint for svid in X509SVIDResponse.FromString(event[1]).svids]
        return event[1] if event[0] == "status" else event[0]


@pytest.fixture(params=[True, False], ids=["peerpidfd", "older-kernel"])
def either(request, directory):
    with AgentUnderTest(directory, kernel_pidfd=request.param) as running:
        running.apply({"orders": f"[{{unix: {{uid: {os.getuid()}}}}}]"})
        yield running


def hand_over_and_exit(socket):
    """Open a stream, let a child inherit the connection, exit; the child tells what it saw afterwards."""
    client = RawGrpc(socket)
    client.open(X509)
    assert client.next()[0] == "message"
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.read(reader, 1)  # the parent is about to exit
        seen = client.next()
        late = hints(socket)
        os.write(int(os.environ["EH_TEST_PIPE"]), repr((seen, late)).encode())
        os._exit(0)
    os.write(writer, b"x")
    os._exit(0)


def test_identity_ends_with_the_process_although_a_child_holds_its_socket(either):
    reader, writer = os.pipe()
    os.environ["EH_TEST_PIPE"] = str(writer)
    os.set_inheritable(writer, True)
    try:
        pid, pipe = forked.start(hand_over_and_exit, either.socket)
        os.waitpid(pid, 0)
        ended = time.monotonic()
        assert select.select([reader], [], [], 10)[0]
        assert (
            os.read(reader, 1000) == b"(('end',), ['orders'])"
        )  # cut off; in its own name the child may ask anew
        assert time.monotonic() - ended < 5
    finally:
        os.close(pipe)
        os.close(reader)
        os.close(writer)
        del os.environ["EH_TEST_PIPE"]


def test_a_request_through_the_socket_of_a_dead_process_gets_nothing(either):
    """The case of the notes: SO_PEERCRED still names the pid; whoever has it next must not be taken for the peer."""

    def parent():
        client = RawGrpc(either.socket)
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(writer)
            os.read(reader, 1)  # returns at the parent's exit
            time.sleep(0.2)
            try:
                client.open(X509)
                seen = client.next()
            except OSError:
                seen = ("end",)
            os.write(int(os.environ["EH_TEST_PIPE"]), repr(seen).encode())
            os._exit(0)
        os._exit(0)

    reader, writer = os.pipe()
    os.environ["EH_TEST_PIPE"] = str(writer)
    try:
        pid, pipe = forked.start(parent)
        os.waitpid(pid, 0)
        assert select.select([reader], [], [], 10)[0]
        assert os.read(reader, 1000) == b"('end',)"
    finally:
        for fd in (pipe, reader, writer):
            os.close(fd)
        del os.environ["EH_TEST_PIPE"]


@as_root
def test_different_users_get_different_identities(either):
    either.apply({"orders": "[{unix: {uid: 65534}}]", "payments": "[{unix: {uid: 0}}]"})
    assert forked.run(hints, either.socket, uid=65534) == ["orders"]
    assert forked.run(hints, either.socket) == ["payments"]
    assert forked.run(hints, either.socket, uid=65533) == PERMISSION_DENIED


@as_root
def test_groups_and_names(agent):
    agent.apply(
        {
            "alpha": "[{unix: {user: nobody, group: nogroup}}]",
            "beta": "[{unix: {uid: 65534, group: adm}}]",
            "gamma": "[{unix: {gid: 4242}}]",
        }
    )
    assert forked.run(hints, agent.socket, uid=65534) == ["alpha"]
    assert forked.run(hints, agent.socket, uid=65534, groups=[4]) == ["alpha", "beta"]
    assert forked.run(hints, agent.socket, uid=65533, gid=4242) == ["gamma"]
    assert forked.run(hints, agent.socket, uid=65533) == PERMISSION_DENIED


@as_root
def test_one_users_connections_do_not_take_the_others_place(directory):
    with AgentUnderTest(directory, limits=Limits(connections_per_uid=3)) as agent:
        agent.apply({"orders": "[{unix: {uid: 0}}, {unix: {uid: 65534}}]"})
        kept = [RawGrpc(agent.socket) for _ in range(3)]
        assert _refused(agent.socket)
        assert forked.run(hints, agent.socket, uid=65534) == ["orders"]
        for client in kept:
            client.close()
        deadline = time.monotonic() + 5
        while agent.server.peers and time.monotonic() < deadline:
            time.sleep(0.01)
        assert hints(agent.socket) == ["orders"]


def _refused(socket):
    try:
        return hints(socket) == "end"
    except OSError:
        return True


def test_path_and_digest_of_this_program(agent):
    program = os.path.realpath(sys.executable)
    digest = hashlib.sha256(Path(program).read_bytes()).hexdigest()
    agent.apply(
        {
            "alpha": f"[{{unix: {{path: {program}}}}}]",
            "beta": f"[{{unix: {{sha256: {digest}}}}}]",
            "gamma": f"[{{unix: {{path: {program}, sha256: {digest}}}}}]",
            "delta": "[{unix: {path: /usr/bin/true}}]",
            "omega": f"[{{unix: {{sha256: {'0' * 64}}}}}]",
        }
    )
    assert hints(agent.socket) == ["gamma", "beta", "alpha"]


def test_run_holds_for_the_launch_and_what_it_started_only(agent):
    agent.apply({"orders": "[{run: true}]", "payments": "[{run: true}]"})
    assert hints(agent.socket) == PERMISSION_DENIED
    other = subprocess.Popen([SLEEP, "60"])
    try:
        agent.launch("p1", "payments", other.pid)
        assert forked.run(hints, agent.socket) == PERMISSION_DENIED
        agent.launch("o1", "orders")
        assert hints(agent.socket) == ["orders"]
        assert forked.run(hints, agent.socket) == ["orders"]
        assert forked.run(lambda: forked.run(hints, agent.socket)) == ["orders"]
        agent.call(agent.launches.remove, "o1")
        assert hints(agent.socket) == PERMISSION_DENIED
    finally:
        other.kill()
        other.wait()


def test_the_end_of_a_launch_withdraws_the_identity_of_its_children(agent):
    agent.apply({"orders": "[{run: true}]"})

    def launch_and_leave_a_child():
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(reader)
            client = RawGrpc(agent.socket)
            client.open(X509)
            assert client.next()[0] == "message"
            os.write(writer, b"x")
            seen = client.next()
            os.write(int(os.environ["EH_TEST_PIPE"]), repr(seen[:2]).encode())
            os._exit(0)
        os.read(reader, 1)
        return os.getpid()

    reader, writer = os.pipe()
    os.environ["EH_TEST_PIPE"] = str(writer)
    gate_reader, gate_writer = os.pipe()
    try:

        def run():
            os.read(gate_reader, 1)  # registered by now
            return launch_and_leave_a_child()

        started = forked.start(run)
        agent.launch("o1", "orders", started[0])
        os.write(gate_writer, b"x")
        assert forked.result(started) == started[0]
        assert select.select([reader], [], [], 10)[0]
        assert os.read(reader, 1000) == f"('status', {PERMISSION_DENIED})".encode()
        assert agent.call(agent.launches.live) == ()
    finally:
        for fd in (reader, writer, gate_reader, gate_writer):
            os.close(fd)
        del os.environ["EH_TEST_PIPE"]


def test_launched_services_have_their_svid_before_they_ask(agent):
    agent.apply({"orders": "[{run: true}]"})
    agent.launch("o1", "orders")
    deadline = time.monotonic() + 5
    while not agent.call(agent.identities.held) and time.monotonic() < deadline:
        time.sleep(0.01)
    agent.control.down = True
    assert hints(agent.socket) == ["orders"]
