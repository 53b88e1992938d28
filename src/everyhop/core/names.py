# SPDX-License-Identifier: Apache-2.0
"""Guess which known name a typing slip meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(wrong: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like ``wrong``, or None when none is near."""
    return next(iter(difflib.get_close_matches(wrong, sorted(known), n=1, cutoff=0.6)), None)
