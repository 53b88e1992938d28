# SPDX-License-Identifier: Apache-2.0
"""How an Envoy has ended: in order, and then its log is whole; or not, and then it may lack what Envoy had in memory.

An Envoy writes its log a tenth of a second late.  One that is killed takes those lines with it, and nobody knows how
many; so a gap is written into its log, once for each such end.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from everyhop.auditlog.gaps import GapReason
from everyhop.dataplane.gap_lines import append_gap
from everyhop.dataplane.spool import LOG

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

_log = logging.getLogger(__name__)

ENDED: Final = "ended"
_SYNCHRONOUS: Final = "authorizer-"  # these write before they answer


def note_killed(directory: Path, *, now: datetime) -> None:
    """Write into a spool that its Envoy ended with lines in its memory; one that never wrote has lost nothing."""
    if not any(directory.glob(f"{LOG}*")):
        return
    try:
        append_gap(directory / LOG, GapReason.PROXY_KILLED, now=now)
    except OSError as error:
        _log.error("a gap cannot be noted", extra={"spool": directory.name, "reason": str(error)})


def mark_ended(directory: Path) -> None:
    """Note that the Envoy of a spool ended in order: all it knew is in its log."""
    if directory.is_dir():
        (directory / ENDED).touch(mode=0o600)


def close_spool(directory: Path, *, now: datetime) -> bool:
    """Note the end of an Envoy whose launch is gone; tell whether it is known to be in order.

    Whoever asks again gets the same; a crash in between writes the gap twice at worst.
    """
    if directory.name.startswith(_SYNCHRONOUS) or not directory.is_dir() or (directory / ENDED).exists():
        return True
    note_killed(directory, now=now)
    mark_ended(directory)
    return False
