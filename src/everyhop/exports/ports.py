# SPDX-License-Identifier: Apache-2.0
"""What an export needs from its receiver's side, and how a receiver says no."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from everyhop.core.errors import Unavailable
from everyhop.exports.model import Item, Told


class RefusedError(Unavailable):
    """The receiver is there and does not take it.

    ``after`` is how long it asked us to wait; ``too_large`` means that fewer at a time may pass; ``is_final`` that
    it wants nothing any more (410 of a webhook).
    """

    code = "EXPORT_REFUSED"

    def __init__(
        self,
        message: str,
        *,
        after: timedelta | None = None,
        too_large: bool = False,
        is_patient: bool = False,
        is_final: bool = False,
    ) -> None:
        super().__init__(message, retry=not is_final)
        self.after = after
        self.too_large = too_large
        self.is_patient = is_patient  # trying again soon is pointless
        self.is_final = is_final


class Sink(Protocol):
    """One receiver.  All use is from one event loop, one call at a time.

    A sink keeps no records: what it has not confirmed is read from the log again.
    """

    async def send(self, items: Sequence[Item]) -> int:
        """Deliver in this order; return the number up to which all is delivered for good, 0 for none known.

        Raises RefusedError, Unavailable or OSError; then nothing of ``items`` counts as delivered.  May be cancelled
        anywhere, and is then closed.
        """

    async def settle(self) -> int:
        """Return the number up to which all is delivered for good by now; raises as :meth:`send` for a loss."""

    async def close(self) -> int:
        """Let go of connections and files, orderly when that is quickly done; return what :meth:`settle` would.

        Never raises; a closed sink opens itself again at the next :meth:`send`.
        """

    def told(self) -> list[Told]:
        """Return, once, what belongs in the log."""
