# SPDX-License-Identifier: Apache-2.0
"""Recorded traffic of the last hours or days, as commands ask the server for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from everyhop.cli.arguments import admin

if TYPE_CHECKING:
    import argparse

    from everyhop.authz.traffic import Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What was recorded: groups of calls, the time asked for, and what limits the answer."""

    groups: list[Seen]
    now: datetime
    since: datetime
    records_from: datetime | None
    policy_from: datetime | None
    counted: int
    left_out: int

    @property
    def window_from(self) -> datetime | None:
        """Return from when on there really are records; None where there are none."""
        return None if self.records_from is None else max(self.since, self.records_from)

    def limits(self) -> list[str]:
        """Say plainly where the records do not reach as far as was asked."""
        from everyhop.core.durations import format_duration

        if self.window_from is None:
            return ["no decision is recorded"]
        lines = []
        asked, there = self.now - self.since, self.now - self.window_from
        if self.window_from > self.since:
            lines.append(
                f"records reach back {format_duration(there)} only, to {self.window_from:%Y-%m-%dT%H:%M:%SZ}; "
                f"{format_duration(asked)} were asked for"
            )
        if self.policy_from is not None and self.policy_from > self.window_from:
            age = format_duration(self.now - self.policy_from)
            lines.append(f"the policy in force is {age} old: what is new in it had no more time than that")
        if self.left_out:
            lines.append(f"{self.left_out} decisions are of too many kinds to be told apart")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object: what the report stands on."""
        from everyhop.core.clock import rfc3339

        moments = {
            "since": self.since,
            "records_from": self.records_from,
            "window_from": self.window_from,
            "policy_from": self.policy_from,
        }
        return {
            **{name: None if at is None else rfc3339(at) for name, at in moments.items()},
            "decisions": self.counted,
            "left_out": self.left_out,
            "limits": self.limits(),
        }


def moment_before(text: str, now: datetime) -> datetime:
    """Return the moment that ``24h``, ``30d`` or an RFC 3339 time means; raises InputError."""
    from everyhop.core.clock import parse_rfc3339
    from everyhop.core.durations import parse_duration
    from everyhop.core.errors import InputError

    try:
        return parse_rfc3339(text)
    except ValueError:
        pass
    try:
        return now - min(parse_duration(text), timedelta(days=3650))
    except InputError:
        hint = "write a duration (24h, 30d) or a time (2026-01-31T09:00:00Z)"
        raise InputError(f"not a time: {text[:40]!r}", hint=hint) from None


def read_traffic(args: argparse.Namespace, *, only_shadow: bool = False) -> Traffic:
    """Ask the server what was decided since ``--since``; raises Unavailable, InputError."""
    import msgspec

    from everyhop.authz.traffic import Seen
    from everyhop.core.clock import rfc3339
    from everyhop.runtime.system import SystemClock

    now = SystemClock().now()
    since = moment_before(args.since, now)
    answer = admin(args, timeout=120.0).get("/v1/tally", since=rfc3339(since), shadow=int(only_shadow))
    moments = {
        name: None if answer.get(name) is None else datetime.fromisoformat(answer[name])
        for name in ("records_from", "policy_from")
    }
    return Traffic(
        groups=msgspec.convert(answer["groups"], list[Seen]),
        now=now,
        since=since,
        counted=answer["counted"],
        left_out=answer["left_out"],
        **moments,
    )
