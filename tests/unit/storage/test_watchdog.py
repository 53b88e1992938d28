# SPDX-License-Identifier: Apache-2.0
"""A socket that is in use for too long is shut down, and no other one."""

import math
import socket

import pytest

from everyhop.storage.watchdog import Watchdog


@pytest.fixture
def pair():
    one, other = socket.socketpair()
    one.settimeout(10)
    with one, other:
        yield one, other


def test_who_waits_for_ever_is_released(pair):
    with Watchdog().limit(pair[0].fileno(), 0.05):
        assert pair[0].recv(1) == b""  # as of a peer that went away


def test_who_is_done_in_time_is_left_alone(pair):
    watchdog = Watchdog()
    with watchdog.limit(pair[0].fileno(), 0.05):
        pass
    with watchdog.limit(pair[0].fileno(), math.inf):
        pass
    later, other = socket.socketpair()
    with later, other, watchdog.limit(later.fileno(), 0.05):
        later.settimeout(10)
        assert later.recv(1) == b""
    pair[1].send(b"x")
    assert pair[0].recv(1) == b"x"


def test_each_has_a_limit_of_its_own(pair):
    one, other = socket.socketpair()
    watchdog = Watchdog()
    with one, other, watchdog.limit(pair[0].fileno(), 60), watchdog.limit(one.fileno(), 0.05):
        assert one.recv(1) == b""
        pair[1].send(b"x")
        assert pair[0].recv(1) == b"x"


def test_a_descriptor_that_was_closed_meanwhile_harms_nobody(pair):
    watchdog = Watchdog()
    descriptor = pair[0].fileno()
    with watchdog.limit(descriptor, 0.05):
        pair[0].close()
        one, other = socket.socketpair()  # one of them has the number now
        assert descriptor in {one.fileno(), other.fileno()}
        with one, other:
            one.settimeout(0.2)
            with pytest.raises(TimeoutError):
                one.recv(1)
