# SPDX-License-Identifier: Apache-2.0
"""What the tour consists of, as values: attempts with an expectation, and what was seen of each.

An expectation is the exact text that the observation must give, so nothing is matched loosely.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from everyhop.demo.range import Range


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One observation.

    ``text`` is compared with the expectation.  With a ``decision`` id, the reason that the decision log gives for it
    is appended to the text first.  ``note`` is shown and never compared.
    """

    text: str
    decision: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One thing to try: it really sends bytes and tells what it saw.

    ``reaches`` tells whether the request itself is legitimate and only what was smuggled into it must not arrive;
    otherwise the applications' own logs are searched, and the attempt fails if its request is in one of them.
    """

    theme: str
    name: str
    expected: str
    run: Callable[[Range], Seen]
    reaches: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """An attempt with what was seen.  ``mark`` is what its requests carried; times in milliseconds."""

    attempt: Attempt
    mark: str
    seen: str
    ms: float
    decision: str | None = None
    reason: str | None = None
    rule: str | None = None
    note: str | None = None

    @property
    def is_ok(self) -> bool:
        """Tell whether the observation is exactly the expected one."""
        return self.seen == self.attempt.expected

    def to_dict(self) -> dict[str, object]:
        """Return the result for JSON."""
        return {
            "theme": self.attempt.theme,
            "name": self.attempt.name,
            "expected": self.attempt.expected,
            "seen": self.seen,
            "ok": self.is_ok,
            "ms": round(self.ms, 1),
            "decision": self.decision,
            "reason": self.reason,
            "rule": self.rule,
            "note": self.note,
        }
