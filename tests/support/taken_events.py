# SPDX-License-Identifier: Apache-2.0
"""A workload as far as audit events go: keeps what it is told, or refuses, or never answers."""

from concurrent.futures import Future

from everyhop.core.errors import Unavailable


class FakeTaker:
    def __init__(self):
        self.events = []
        self.demanded = []
        self.lost = 0
        self.takes_events = True
        self.answer = "take"

    def note_event(self, event, *, lost=0):
        self.lost += lost
        self.events.append(event)

    def submit_event(self, event):
        done = Future()
        if self.answer == "take":
            self.demanded.append(event)
            done.set_result(None)
        elif self.answer == "refuse":
            done.set_exception(Unavailable("no room"))
        return done
