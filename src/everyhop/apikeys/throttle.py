# SPDX-License-Identifier: Apache-2.0
"""Failures counted by source, in bounded memory."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address

_V6_NETWORK_BITS = 64  # one customer has at least so much; counting single addresses would count nothing


class FailureThrottle:
    """Refuses a source after ``failures`` failures within ``window`` until the window is over.

    A fixed window that begins with the first failure: a source is never shut out for longer than that, whatever a
    stranger behind the same address does.  Successes are not counted and clear nothing.
    """

    def __init__(self, *, failures: int, window: timedelta, max_sources: int) -> None:
        self._failures = failures
        self._window = window
        self._max_sources = max_sources
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, tuple[datetime, int]] = OrderedDict()

    def retry_after(self, source: str, now: datetime) -> int:
        """Return the seconds to wait, 0 when the source may try."""
        with self._lock:
            began, count = self._seen.get(source, (now, 0))
        left = began + self._window - now
        return (
            max(1, math.ceil(left.total_seconds())) if count >= self._failures and left > timedelta(0) else 0
        )

    def note_failure(self, source: str, now: datetime) -> bool:
        """Count a failure; True when this one shuts the source out."""
        with self._lock:
            began, count = self._seen.get(source, (now, 0))
            if now - began >= self._window:
                began, count = now, 0
            self._seen[source] = began, count + 1
            self._seen.move_to_end(source)
            while len(self._seen) > self._max_sources:
                self._seen.popitem(last=False)
            return count + 1 == self._failures

    def __len__(self) -> int:
        return len(self._seen)


def source_name(source: str | None) -> str:
    """Return what failures are counted under: an IPv4 address, the /64 of an IPv6 one, or ``unknown``."""
    if source is None:
        return "unknown"
    try:
        address = ip_address(source)
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> _V6_NETWORK_BITS << _V6_NETWORK_BITS))
    return str(address)
