# SPDX-License-Identifier: Apache-2.0
import errno
import os
import socket
import struct

import pytest

from everyhop.core.errors import AttestationError
from everyhop.wire.peers import peer_of


class FakeSocket:
    """Answers getsockopt like the kernel of our choice."""

    def __init__(self, pid, uid=None, pidfd_error=errno.ENOPROTOOPT):
        self.credentials = struct.pack("3i", pid, os.getuid() if uid is None else uid, os.getgid())
        self.pidfd_error = pidfd_error

    def getsockopt(self, level, option, size=0):
        if option == socket.SO_PEERCRED:
            return self.credentials
        raise OSError(self.pidfd_error, "")


def test_another_pid_namespace_is_refused():
    with pytest.raises(AttestationError, match="namespace"):
        peer_of(FakeSocket(0))


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ESRCH, errno.ENODATA])
def test_a_peer_that_is_gone_is_not_looked_up_by_its_pid(number):
    with pytest.raises(AttestationError, match="gone"):
        peer_of(FakeSocket(os.getpid(), pidfd_error=number))


def test_without_the_option_the_uid_must_be_that_of_the_pid_now():
    with pytest.raises(AttestationError, match="not the one"):
        peer_of(FakeSocket(os.getpid(), uid=4242))
    peer = peer_of(FakeSocket(os.getpid()))
    assert (peer.pid, peer.uid, peer.is_alive()) == (os.getpid(), os.getuid(), True)
    peer.process.close()


def test_without_the_option_a_free_pid_is_refused():
    with pytest.raises(AttestationError):
        peer_of(FakeSocket(2**22 + 1))


@pytest.mark.parametrize("kernel_pidfd", [True, False])
def test_a_real_peer(kernel_pidfd):
    one, other = socket.socketpair()
    with one, other:
        peer = peer_of(one, kernel_pidfd=kernel_pidfd)
        assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.getuid(), os.getgid())
        if peer.process.fd is not None:
            assert not os.get_inheritable(peer.process.fd)
        peer.process.close()


def test_a_socket_without_credentials():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.close()
        with pytest.raises(AttestationError, match="no credentials"):
            peer_of(sock)
