# SPDX-License-Identifier: Apache-2.0
"""What a policy would say of so many calls of one subject: a rehearsal, without a log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from everyhop.anomaly.engine import Engine
from everyhop.anomaly.observation import Observation, Outcome
from everyhop.anomaly.rates import Seen
from everyhop.anomaly.window import MemoryWindows
from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from everyhop.anomaly.engine import Policy
    from everyhop.anomaly.finding import Answer
    from everyhop.anomaly.model import Subject

MAX_CALLS: Final = 1_000_000
_ANY_DAY: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """At which call (from 1), after how long, with what answer detection speaks."""

    call: int
    after: timedelta
    answer: Answer
    title: str


def rehearse(
    policy: Policy, subject: Subject, *, outcome: Outcome, calls: int, over: timedelta
) -> list[Spoken]:
    """Return when detection would speak, were there ``calls`` of one outcome evenly spread ``over`` a time.

    Raises InputError for no calls, or more than a million.
    """
    if not 0 < calls <= MAX_CALLS:
        raise InputError(f"1 to {MAX_CALLS} calls")
    engine, step, found = Engine(policy, MemoryWindows()), over / calls, []
    for number in range(calls):
        after = step * number
        seen = Observation(
            record=f"call {number + 1}", time=_ANY_DAY + after, kind="decision", point="ingress",
            outcome=outcome, subjects=(subject,),
        )  # fmt: skip
        judged = engine.weigh([Seen(0, seen)], wall=seen.time, now=after.total_seconds())
        found += [
            Spoken(call=number + 1, after=after, answer=one.answer, title=one.finding.title) for one in judged
        ]
    return found
