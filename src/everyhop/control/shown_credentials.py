# SPDX-License-Identifier: Apache-2.0
"""A credential that was refused, and whoever wants to look at it.

Apart from :mod:`everyhop.control.canaries`, which knows what is looked for: agents show only, and load no detector for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Who showed a credential that was refused.

    ``caller`` is a SPIFFE ID only where it was proven and the credential is its own; else None, and ``source`` is the
    address that it came from.  ``where`` names the door, ``decision`` the refused call.
    """

    where: str
    caller: str | None = None
    source: str | None = None
    target: str | None = None
    decision: str | None = None


class CredentialWatch(Protocol):
    """Who looks at credentials that were refused."""

    def refused(self, texts: Iterable[str], shown: Shown) -> bool:
        """Look; True when one must never be used.  Blocking; never raises."""
