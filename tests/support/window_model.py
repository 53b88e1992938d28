# SPDX-License-Identifier: Apache-2.0
"""The rules of sliding windows as plainly as they can be said: every call is remembered, and all are counted each time."""

from __future__ import annotations

from everyhop.anomaly.window import NOTHING, Count, Crossing


class PlainWindows:
    """One subject.  All times are whole milliseconds."""

    def __init__(self, *, window, alert, block, block_ms):
        self.window, self.alert, self.block, self.block_ms = window, alert, block, block_ms
        self.width = window // 60
        self.calls = []
        self.alerted_at = self.blocked_until = None
        self.floor = float("-inf")

    def count(self, now, age):
        if self.blocked_until is not None:
            if now < self.blocked_until:
                return NOTHING
            self.floor, self.blocked_until, self.alerted_at, self.calls = self.blocked_until, None, None, []
        at = now - max(0, age)
        if at < self.floor or now // self.width - at // self.width > 60:
            return NOTHING
        before = self.n(now)
        is_told = self.alerted_at is not None and self.alert is not None
        if is_told and (before < self.alert / 2 or now - self.alerted_at >= self.window):
            self.alerted_at = None
        self.calls.append(at)
        n = before + 1
        if self.block is not None and n >= self.block:
            self.blocked_until = now + self.block_ms
            return Count(n, Crossing.BLOCK)
        if self.alert is not None and n >= self.alert and self.alerted_at is None:
            self.alerted_at = now
            return Count(n, Crossing.ALERT)
        return Count(n)

    def n(self, now):
        return sum(1 for at in self.calls if now // self.width - at // self.width <= 60)
