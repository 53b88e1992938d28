# SPDX-License-Identifier: Apache-2.0
"""Figures that a few strange values do not move: medians, spreads, hours on a circle."""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

HOURS: Final = 24
NORMAL: Final = 1.4826  # the spread of a normal distribution by its median absolute deviation
_KERNEL: Final = ((-2, 0.1), (-1, 0.2), (0, 0.4), (1, 0.2), (2, 0.1))


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return median and spread (1.4826 times the median absolute deviation) of at least one value."""
    middle = median(values)
    return middle, NORMAL * median(abs(value - middle) for value in values)


def count_spread(values: Sequence[float], *, share: float) -> tuple[float, float]:
    """Return median and spread of counts.

    The spread is never less than what counting itself gives (the root of the median, for independent events) nor than
    ``share`` of the median: few values that happen to be equal would make every next one a surprise.
    """
    middle, found = spread(values)
    return middle, max(found, math.sqrt(middle), share * middle, 1.0)


def smoothed(counts: Sequence[float], *, prior: float) -> list[float]:
    """Return the probabilities of 24 hours on a circle: weights of two neighbours on each side, and a prior for all.

    The neighbours are what makes half past eight ordinary for somebody who begins at nine, and what a change of
    summer time needs.
    """
    total = sum(counts) + prior * HOURS
    return [
        (sum(weight * counts[(hour + shift) % HOURS] for shift, weight in _KERNEL) + prior) / total
        for hour in range(HOURS)
    ]
