# SPDX-License-Identifier: Apache-2.0
"""What is signed of the log: checkpoints of its whole, by the log's key; seals of what one producer sent, by its SVID.

These are the values as they are kept.  What the signatures cover, and whether they are good, is decided elsewhere.
"""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """A producer's signature over its records ``first`` to ``last``, both inclusive.

    ``certificate`` is the thumbprint of the signing certificate, ``chain`` what is kept under it once (None where it
    is kept already, and in what is read back).  ``signed_at`` is aware.
    """

    producer: str
    first: int
    last: int
    certificate: str
    signed_at: datetime
    signature: bytes
    chain: bytes | None = None
