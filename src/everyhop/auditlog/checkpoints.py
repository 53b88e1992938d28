# SPDX-License-Identifier: Apache-2.0
"""A checkpoint as it is kept.  Whether its signatures are good is decided elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCheckpoint:
    """A signed checkpoint.

    ``note`` is the signed note as it was published (c2sp.org/tlog-checkpoint); ``origin``, ``size`` and ``root``
    (32 bytes) are what it says.  ``signed_at`` is aware.
    """

    origin: str
    size: int
    root: bytes
    signed_at: datetime
    note: str
