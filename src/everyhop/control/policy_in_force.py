# SPDX-License-Identifier: Apache-2.0
"""Which policy is in force, and which newer text was refused and why.

A text that does not parse, or whose own tests fail, changes nothing: the old snapshot stays, loudly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from everyhop.anomaly.detectors import read_settings
from everyhop.core.clock import rfc3339
from everyhop.core.errors import Conflict, InputError, PolicyError
from everyhop.core.problems import Problem, Span

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from everyhop.control.ports import PolicyRules
    from everyhop.policy.model import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A policy text that is not in force, with its problems."""

    at: datetime
    source: str
    problems: tuple[Problem, ...]

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "at": rfc3339(self.at),
            "source": self.source,
            "problems": [p.to_dict() for p in self.problems],
        }


def check_candidate(rules: PolicyRules, files: Mapping[str, bytes], *, trust_domain: str | None) -> Snapshot:
    """Parse ``files``, run their tests, and compare the trust domain with the one in force.

    Raises PolicyError with every problem; Conflict when the trust domain would change, since every identity
    issued so far belongs to the old one.
    """
    snapshot = rules.parse(files)
    if trust_domain is not None and str(snapshot.trust_domain) != trust_domain:
        raise Conflict(
            f"the policy names trust domain {snapshot.trust_domain}, but this state directory is {trust_domain}",
            hint="use another --state directory for another trust domain",
        )
    if failed := rules.failed_tests(snapshot):
        raise PolicyError(failed)
    _check_detectors(snapshot)
    return snapshot


def _check_detectors(snapshot: Snapshot) -> None:
    """Raise PolicyError for wishes that no detector has; the room of the policy does not know what there is."""
    detection = snapshot.detection
    try:
        read_settings(detection.detectors)
    except InputError as error:
        span = detection.span or Span(file="policy", line=1, column=1)
        message = f"detect: detectors: {error.message}"
        raise PolicyError(
            [Problem(code="value", span=span, message=message, suggestion=error.hint)]
        ) from error


def rejection(error: PolicyError | Conflict | InputError, *, source: str, at: datetime) -> Rejected:
    """Describe a refused text."""
    if isinstance(error, PolicyError):
        return Rejected(at=at, source=source, problems=error.problems)
    span = Span(file=source, line=1, column=1)
    problem = Problem(code=error.code, span=span, message=error.message, suggestion=error.hint)
    return Rejected(at=at, source=source, problems=(problem,))
