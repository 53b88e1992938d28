# SPDX-License-Identifier: Apache-2.0
"""Sliding windows: how many calls of one subject there were of late, and the moments when that becomes too many.

A window is 60 equal buckets and the one that is filling, so what is counted are the calls of the last window and of at most
a sixtieth more; never fewer.  Time is a number of seconds that only grows (monotonic), and each call has an age: what has
waited in a spool counts by when it was made, and what is older than a window not at all.  So neither a backlog nor a step
of the wall clock blocks anybody, and neither empties a counter.

The rules, which every implementation holds to the letter (tests/contracts/test_windows.py):

* ``ALERT`` when the count reaches ``alert``, once an episode; an episode is over when the count was below half of ``alert``,
  and after a window another may begin.
* ``BLOCK`` when the count reaches ``block``.  From then on and for ``block_seconds`` nothing counts and nothing is extended;
  afterwards counting begins at zero, and calls from before that moment never count again.
* A call with a position counts once: positions of one subject only grow.  The one that crossed last, when it comes again, is
  answered as before, so that whoever was interrupted between counting and acting learns of it again.
"""

from __future__ import annotations

import math
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

BUCKETS: Final = 60
RING: Final = BUCKETS + 1
MAX_SUBJECTS: Final = 100_000
_WORD: Final = array("I").itemsize
_NEVER: Final = -math.inf


class Crossing(StrEnum):
    """The moments that matter."""

    ALERT = "alert"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Threshold:
    """What is too much within ``window`` seconds; None for never.  Of both at once, only the block is told."""

    window: float
    alert: int | None
    block: int | None
    block_seconds: float = 3600.0

    def divided(self, by: int) -> Threshold:
        """Return the share of one of several who count apart."""
        if by == 1:
            return self
        share = [None if value is None else max(1, -(-value // by)) for value in (self.alert, self.block)]
        return Threshold(self.window, share[0], share[1], self.block_seconds)


class Hit(NamedTuple):
    """One call that counts: ``age`` in seconds (negative is 0), ``position`` in the log (0: not known)."""

    key: str
    threshold: Threshold
    age: float = 0.0
    position: int = 0


class Count(NamedTuple):
    """What became of a call: how many there are now (0 when it did not count), and what was crossed by it."""

    n: int
    crossing: Crossing | None = None


class Look(NamedTuple):
    """A counter as it stands: ``blocked_for`` are the seconds left of a block, 0 without one."""

    n: int
    alerted: bool
    blocked_for: float


class Windows(Protocol):
    """Counters of all subjects.  ``now`` are monotonic seconds; shared counters go by their own clock instead."""

    def count(self, hits: Sequence[Hit], *, now: float) -> list[Count]:
        """Count calls in their order, and return what became of each.  Never raises."""

    def release(self, key: str, *, now: float) -> None:
        """End a block and begin at zero: somebody has lifted it, or it was never made."""

    def hold(self, key: str, seconds: float, *, now: float) -> None:
        """Take over a block that is known from elsewhere, for so long."""

    def look(self, key: str, window: float, *, now: float) -> Look:
        """Return a counter without changing it."""


NOTHING: Final = Count(0)
_MANY: Final = 1024
_COUNTS: Final = [Count(n) for n in range(_MANY)]  # making one is a third of the price of counting
_UNKNOWN: Final = Look(0, alerted=False, blocked_for=0.0)


class _Counter:
    """One subject: 61 counts and their sum, and what has been told."""

    __slots__ = (
        "alerted_at",
        "blocked_until",
        "crossed",
        "crossed_at",
        "floor",
        "head",
        "next",
        "position",
        "ring",
        "total",
        "width",
    )

    def __init__(self, width: float, head: int) -> None:
        self.ring = array("I", bytes(RING * _WORD))
        self.width = width
        self.head = head
        self.next = (head + 1) * width
        self.total = 0
        self.alerted_at = _NEVER
        self.blocked_until = _NEVER
        self.floor = _NEVER
        self.position = 0
        self.crossed_at = 0
        self.crossed = NOTHING

    def advance(self, now: float) -> None:
        """Forget buckets that are over."""
        head = int(now // self.width)
        if head <= self.head:
            return
        if head - self.head >= RING:
            self.clear()
        else:
            for index in range(self.head + 1, head + 1):
                place = index % RING
                self.total -= self.ring[place]
                self.ring[place] = 0
        self.head = head
        self.next = (head + 1) * self.width

    def rearm(self, threshold: Threshold, now: float) -> None:
        """Let another alert be told when the episode is over."""
        alert = threshold.alert
        if alert is not None and (self.total * 2 < alert or now - self.alerted_at >= threshold.window):
            self.alerted_at = _NEVER

    def clear(self) -> None:
        if self.total:
            self.ring = array("I", bytes(RING * _WORD))
            self.total = 0


class MemoryWindows:
    """Windows of this process: exact, bounded, about 700 bytes a subject.  Used from one thread at a time."""

    def __init__(self, *, max_subjects: int = MAX_SUBJECTS) -> None:
        """Keep ``max_subjects``; beyond, the one that was not seen for longest is forgotten and ``evicted`` grows."""
        self._counters: OrderedDict[str, _Counter] = OrderedDict()
        self._max = max_subjects
        self._now = _NEVER
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._counters)

    def count(self, hits: Sequence[Hit], *, now: float) -> list[Count]:
        """Count calls in their order."""
        self._now = now = max(now, self._now)
        return [self._hit(hit, now) for hit in hits]

    def _hit(self, hit: Hit, now: float) -> Count:
        key, threshold, age, position = hit
        width = threshold.window / BUCKETS
        counter = self._counters.get(key)
        if counter is None or counter.width != width:
            counter = self._new(key, width, now)
        else:
            self._counters.move_to_end(key)
        if position:
            if position <= counter.position:
                return counter.crossed if position == counter.crossed_at else NOTHING
            counter.position = position
        if now >= counter.next:
            counter.advance(now)
        if counter.blocked_until != _NEVER:
            if now < counter.blocked_until:
                return NOTHING
            self._begin(counter, counter.blocked_until)
        if age > 0:
            at = now - age
            index = int(at // width)
            if at < counter.floor or index <= counter.head - RING:
                return NOTHING
        else:
            index = counter.head
        if counter.alerted_at != _NEVER:
            counter.rearm(threshold, now)
        counter.ring[index % RING] += 1
        n = counter.total = counter.total + 1
        alert, block = threshold.alert, threshold.block
        if block is not None and n >= block:
            counter.blocked_until = now + threshold.block_seconds
            count = Count(n, Crossing.BLOCK)
        elif alert is not None and n >= alert and counter.alerted_at == _NEVER:
            counter.alerted_at = now
            count = Count(n, Crossing.ALERT)
        else:
            return _COUNTS[n] if n < _MANY else Count(n)
        if position:
            counter.crossed_at, counter.crossed = position, count
        return count

    def release(self, key: str, *, now: float) -> None:
        """Begin at zero."""
        counter = self._counters.get(key)
        if counter is not None:
            self._begin(counter, max(now, self._now))

    def hold(self, key: str, seconds: float, *, now: float) -> None:
        """Take over a block."""
        now = max(now, self._now)
        counter = self._counters.get(key) or self._new(key, 1.0, now)
        counter.blocked_until = max(counter.blocked_until, now + seconds)

    def look(self, key: str, window: float, *, now: float) -> Look:
        """Return a counter."""
        counter = self._counters.get(key)
        if counter is None:
            return _UNKNOWN
        now = max(now, self._now)
        left = max(0.0, counter.blocked_until - now)
        if counter.width != window / BUCKETS or left:
            return Look(0, alerted=False, blocked_for=left)
        counter.advance(now)
        n = 0 if counter.blocked_until != _NEVER else counter.total
        return Look(n, alerted=n > 0 and counter.alerted_at != _NEVER, blocked_for=0.0)

    def _new(self, key: str, width: float, now: float) -> _Counter:
        """Return a counter of a new subject, or of one whose window has another length by now."""
        known = self._counters.pop(key, None)
        counter = _Counter(width, int(now // width))
        if known is not None:
            counter.blocked_until, counter.floor, counter.position = (
                known.blocked_until,
                known.floor,
                known.position,
            )
        self._counters[key] = counter
        if len(self._counters) > self._max:
            self._counters.popitem(last=False)
            self.evicted += 1
        return counter

    @staticmethod
    def _begin(counter: _Counter, floor: float) -> None:
        counter.clear()
        counter.floor = floor
        counter.crossed_at = 0
        counter.alerted_at = counter.blocked_until = _NEVER
