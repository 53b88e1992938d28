# SPDX-License-Identifier: Apache-2.0
"""Whom this node refuses: the blocks as they last came, kept on disk, because an attack may begin with the server.

A block whose time is over is not enforced any more, whether the server can be reached or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
from typing import TYPE_CHECKING, Final

from everyhop.anomaly.blocks_codec import BlockEntry, decode_blocks, encode_blocks
from everyhop.anomaly.looking import is_quarantined
from everyhop.anomaly.model import Block, BlockMode, Blocks, SubjectKind
from everyhop.core.errors import InputError
from everyhop.spiffe import SpiffeId

if TYPE_CHECKING:
    from pathlib import Path

    from everyhop.core.clock import Clock

_log = logging.getLogger(__name__)

_REMEMBERED: Final = frozenset({SubjectKind.USER, SubjectKind.API_KEY})
_EPOCH_DIGITS: Final = 12


class HeldBlocks:
    """The blocks that this agent knows of.  All use is from one event loop."""

    def __init__(self, file: Path | None, clock: Clock) -> None:
        """Begin with what ``file`` holds; None where nothing is kept.  One that cannot be read is as none, loudly."""
        self._file = file
        self._clock = clock
        self._known: dict[BlockEntry, Block] = {}
        self._blocks = self._kept = Blocks()
        if file is not None and file.exists():
            try:
                self._blocks = self._kept = decode_blocks(file.read_bytes())
            except (OSError, InputError) as error:
                _log.error(
                    "the blocks of before cannot be read", extra={"file": str(file), "reason": str(error)}
                )

    def __call__(self) -> Blocks:
        """Return the blocks; look at each one's end before it counts."""
        return self._blocks

    def take(self, encoded: bytes) -> None:
        """Take over what the server says; raises InputError, and keeps what is held, for what is malformed."""
        blocks = decode_blocks(encoded, self._known)
        if blocks.sequence < self._blocks.sequence:
            _log.warning(
                "the server knows of fewer changes of blocks than before: was its database restored?",
                extra={"held": self._blocks.sequence, "told": blocks.sequence},
            )
        self._blocks = blocks

    async def keep(self) -> None:
        """Put what is held on the disk as a whole, mode 0600, unless it is there.  Raises OSError."""
        blocks = self._blocks
        if self._file is None or blocks is self._kept:
            return
        await asyncio.to_thread(_write, self._file, encode_blocks(blocks))
        self._kept = blocks

    @property
    def sequence(self) -> int:
        """Return the number of the blocks that are held."""
        return self._blocks.sequence

    @property
    def epoch(self) -> str:
        """Return a text that differs whenever a user or a key is blocked that was not: what was verified counts no more."""
        now = self._clock.now()
        subjects = sorted(
            f"{block.subject} {block.since.isoformat()}"
            for block in self._blocks.by_subject.values()
            if block.subject.kind in _REMEMBERED and block.holds(now)
        )
        if not subjects:
            return ""
        return hashlib.sha256("\n".join(subjects).encode()).hexdigest()[:_EPOCH_DIGITS]

    def is_quarantined(self, spiffe_id: str) -> bool:
        """Tell whether nothing is to be given to an identity."""
        return is_quarantined(self._blocks, self._clock.now(), spiffe_id)

    def quarantined(self) -> frozenset[SpiffeId]:
        """Return the identities to which nothing is given now."""
        now = self._clock.now()
        return frozenset(
            SpiffeId.parse(block.subject.value)
            for block in self._blocks.by_subject.values()
            if block.mode is BlockMode.QUARANTINE and block.holds(now)
        )

    def seconds_left(self) -> float | None:
        """Return how long it is until the first block that is in force ends; None when none has an end."""
        now = self._clock.now()
        ends = [
            block.until
            for block in self._blocks.by_subject.values()
            if block.until is not None and block.until > now
        ]
        return (min(ends) - now).total_seconds() if ends else None


def _write(file: Path, content: bytes) -> None:
    scratch = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        scratch.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise
