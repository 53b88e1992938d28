# SPDX-License-Identifier: Apache-2.0
"""From observations to results: what the decision log says of each, and whether anything arrived that should not."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.errors import EveryhopError
from everyhop.demo.model import Result, Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from everyhop.demo.model import Attempt
    from everyhop.demo.range import Range

RECORD_SECONDS: Final = 6.0
_NO_RECORD: Final = "(no record)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """An attempt right after it ran."""

    attempt: Attempt
    seen: Seen
    mark: str
    ms: float


def observe(attempts: Iterable[Attempt], field: Range, *, prefix: str) -> list[Observed]:
    """Run attempts one after the other.  One that fails to run is an observation too, and never the expected one."""
    observed = []
    for number, attempt in enumerate(attempts, 1):
        field.mark = f"{prefix}{number}"
        started = time.monotonic()
        try:
            seen = attempt.run(field)
        except Exception as error:  # noqa: BLE001  # the other attempts still count
            seen = Seen(text=f"failed to run: {type(error).__name__}: {str(error)[:200]}")
        ms = (time.monotonic() - started) * 1000
        observed.append(Observed(attempt=attempt, seen=seen, mark=field.mark, ms=ms))
    return observed


def judge(
    observed: Sequence[Observed],
    *,
    record_of: Callable[[str], Mapping[str, Any] | None],
    marks: Mapping[str, str],
) -> list[Result]:
    """Add the log's reasons, and what the applications' own logs give away."""
    results = []
    for item in observed:
        result = Result(
            attempt=item.attempt, mark=item.mark, seen=item.seen.text, ms=item.ms, note=item.seen.note
        )
        if item.seen.decision is not None:
            record = record_of(item.seen.decision) or {}
            reason = record.get("reason")
            result = replace(
                result,
                seen=f"{item.seen.text} {reason or _NO_RECORD}",
                decision=item.seen.decision,
                reason=reason,
                rule=record.get("rule"),
            )
        results.append(replace(result, seen=result.seen + _arrivals(item, marks)))
    return results


def _arrivals(item: Observed, marks: Mapping[str, str]) -> str:
    """Return what to add to an observation when a request arrived that should not have."""
    inner = marks.get(f"{item.mark}-inner")
    if inner is not None:
        return f", the smuggled request reached {inner}"
    if not item.attempt.reaches and item.mark in marks:
        return f", reached {marks[item.mark]}"
    return ""


def log_lookup(field: Range) -> Callable[[str], Mapping[str, Any] | None]:
    """Return a look-up of decision ids in the trust domain's log; records arrive a moment after the call."""
    deadline = time.monotonic() + RECORD_SECONDS

    def look(decision: str) -> Mapping[str, Any] | None:
        while True:
            try:
                answer: dict[str, Any] = field.stage.admin.get(f"/v1/records/{decision}")
            except EveryhopError:
                if time.monotonic() > deadline:
                    return None
                time.sleep(0.1)
            else:
                found: dict[str, Any] = answer["record"]
                return found

    return look
