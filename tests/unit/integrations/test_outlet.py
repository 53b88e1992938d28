# SPDX-License-Identifier: Apache-2.0
"""Where events go while there is no agent, and when it comes and goes: never into the application's way."""

import json
import logging
import threading

import pytest
from tests.support.taken_events import FakeTaker

from everyhop.core.errors import Unavailable
from everyhop.integrations._outlet import MAX_WAITING, RETRY_SECONDS, Outlet
from everyhop.sdk.events import AuditEvent


def event(n=0):
    return AuditEvent.now(f"action.{n}", metadata={"n": n})


class Connecting:
    """A connection that is made, or fails, when the test says so."""

    def __init__(self):
        self.go = threading.Event()
        self.error = None
        self.taker = FakeTaker()
        self.tries = 0

    def __call__(self):
        self.tries += 1
        self.go.wait(10)
        if self.error is not None:
            raise self.error
        return self.taker


@pytest.fixture
def connecting():
    return Connecting()


def finish(outlet):
    for thread in threading.enumerate():
        if thread.name == "everyhop-audit":
            thread.join(10)


def test_without_an_agent_there_is_one_warning_and_every_event_in_the_log(connecting, caplog):
    caplog.set_level(logging.INFO, "everyhop.audit")
    connecting.error = Unavailable("no socket")
    connecting.go.set()
    now = [0.0]
    outlet = Outlet(connect=connecting, monotonic=lambda: now[0])
    outlet.put(event(1))
    finish(outlet)
    outlet.put(event(2))
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert [r.getMessage() for r in warnings] == [
        "audit events are in the log of this process only: no socket"
    ]
    told = [json.loads(r.getMessage()) for r in caplog.records if r.levelno == logging.INFO]
    assert [one["action"] for one in told] == ["action.1", "action.2"]
    assert connecting.tries == 1
    now[0] = RETRY_SECONDS + 1
    connecting.error = None
    outlet.put(event(3))
    finish(outlet)
    assert [e.action for e in connecting.taker.events] == ["action.3"]


def test_a_connection_that_fails_with_anything_breaks_nothing(connecting, caplog):
    connecting.error = ValueError("broken")
    connecting.go.set()
    outlet = Outlet(connect=connecting)
    outlet.put(event(1))
    finish(outlet)
    assert "ValueError" in caplog.text


def test_events_wait_for_the_connection_within_a_bound_and_the_loss_is_told(connecting):
    outlet = Outlet(connect=connecting)
    for n in range(MAX_WAITING + 5):
        outlet.put(event(n))
    connecting.go.set()
    finish(outlet)
    taker = connecting.taker
    assert [e.action for e in taker.events] == [f"action.{n}" for n in range(MAX_WAITING)]
    assert taker.lost == 5


def test_an_agent_that_does_not_offer_it_leaves_them_to_the_log(caplog):
    caplog.set_level(logging.INFO, "everyhop.audit")
    taker = FakeTaker()
    taker.takes_events = False
    Outlet(taker).put(event(1))
    assert taker.events == []
    assert "action.1" in caplog.text


def test_a_demand_waits_for_the_connection(connecting):
    outlet = Outlet(connect=connecting)
    taken = outlet.submit(event(1))
    assert not taken.done()
    connecting.go.set()
    assert taken.result(10) is None
    assert [e.action for e in connecting.taker.demanded] == ["action.1"]


def test_a_demand_fails_with_the_connection(connecting):
    connecting.error = Unavailable("no socket")
    outlet = Outlet(connect=connecting)
    taken = outlet.submit(event(1))
    connecting.go.set()
    with pytest.raises(Unavailable):
        taken.result(10)
    finish(outlet)
    with pytest.raises(Unavailable):
        outlet.submit(event(2)).result(1)
    assert connecting.tries == 1


def test_a_demand_that_is_refused():
    taker = FakeTaker()
    taker.answer = "refuse"
    with pytest.raises(Unavailable, match="no room"):
        Outlet(taker).submit(event(1)).result(1)


def test_a_child_begins_anew(connecting, monkeypatch):
    outlet = Outlet(connect=connecting)
    outlet.put(event(1))
    assert len(outlet._waiting) == 1
    monkeypatch.setattr("os.getpid", lambda: 999_999_999)
    outlet.put(event(2))  # begins anew before the connection is there
    connecting.go.set()
    finish(outlet)
    assert [e.action for e in connecting.taker.events] == ["action.2"]
