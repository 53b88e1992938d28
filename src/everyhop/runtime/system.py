# SPDX-License-Identifier: Apache-2.0
"""The real clock and the real randomness; nothing else builds them."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the present moment, aware, in UTC."""
        return datetime.now(UTC)

    def seconds(self) -> float:
        """Return the seconds since 1970, for whoever needs no date."""
        return time.time()


class SystemEntropy:
    """The kernel's randomness."""

    def token_bytes(self, count: int) -> bytes:
        """Return ``count`` unpredictable bytes."""
        return secrets.token_bytes(count)

    def fraction(self) -> float:
        """Return a number in [0, 1)."""
        return secrets.randbelow(1 << 53) / (1 << 53)
