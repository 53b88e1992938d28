# SPDX-License-Identifier: Apache-2.0
"""Who calls whom, and what of it is new."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from everyhop.anomaly.detectors._memory import Memory
from everyhop.anomaly.detectors._telling import days, quarantine, short, why
from everyhop.anomaly.finding import Finding, Severity
from everyhop.anomaly.model import Subject, SubjectKind
from everyhop.anomaly.observation import Outcome
from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from everyhop.anomaly.detectors.settings import NewEdge as Settings
    from everyhop.anomaly.observation import Observation

MAX_CALLERS: Final = 4096
MAX_EDGES: Final = 512
_INGRESS: Final = "ingress"
_PROBE: Final = "probes["
_TARGET: Final = "t "  # before the name of a service; callers are SPIFFE IDs
_REFRESH: Final = 3600.0  # an edge is noted again once an hour: a write for every call would be for nothing


class OpenedEdges(Protocol):
    """What the policy opened lately."""

    def opened(self, caller: str, target: str, operation: str) -> datetime | None:
        """Return when a change of policy first let ``caller`` (a SPIFFE ID) do this; None for longer ago than is known."""


class _Caller(msgspec.Struct):
    began: float = 0.0
    edges: dict[str, float] = {}  # msgspec copies an empty default


class _Target(msgspec.Struct):
    began: float = 0.0


class NewEdge:
    """Finds an allowed call from a service to a service or an operation that it never called before.

    What each service does is learned from the first call on that it makes or receives (so one that only ever answered, and
    suddenly calls, is known); a service that was watched for less than ``learn`` is never spoken of.  So an attacker who is there from the beginning is learned as well: compare the edges with the policy once.
    """

    name: Final = "new-edge"

    def __init__(self, settings: Settings, opened: OpenedEdges | None = None) -> None:
        self._settings = settings
        self._opened = opened
        self._callers = Memory(_Caller, limit=MAX_CALLERS)
        self._targets = Memory(_Target, limit=MAX_CALLERS)

    def observe(self, observation: Observation, now: datetime) -> Sequence[Finding]:
        """Take one observation; at most one finding."""
        del now
        o = observation
        if o.kind != "decision" or o.point != _INGRESS or o.outcome is not Outcome.ALLOWED:
            return ()
        if o.caller is None or o.target is None or (o.operation or "").startswith(_PROBE):
            return ()
        time = o.time.timestamp()
        if self._targets.get(_TARGET + o.target) is None:
            self._targets.touch(_TARGET + o.target).began = time
        edge = f"{o.target} {o.operation or ''}"
        known = self._callers.get(o.caller)
        if known is not None and time - known.edges.get(edge, 0.0) < _REFRESH:
            return ()
        caller = self._callers.touch(o.caller)
        if not caller.began:
            answered = self._targets.get(_TARGET + short(o.caller))
            caller.began = time if answered is None else min(time, answered.began)
        is_new, is_new_target = (
            edge not in caller.edges,
            not any(e.startswith(f"{o.target} ") for e in caller.edges),
        )
        count = len(caller.edges)
        caller.edges[edge] = max(time, caller.edges.pop(edge, 0.0))
        if len(caller.edges) > MAX_EDGES:
            del caller.edges[min(caller.edges, key=caller.edges.__getitem__)]
        watched = time - caller.began
        if not is_new or watched < self._settings.learn.total_seconds():
            return ()
        return self._finding(o, watched, count, is_new_target=is_new_target)

    def _finding(
        self, o: Observation, watched: float, known: int, *, is_new_target: bool
    ) -> Sequence[Finding]:
        assert o.caller is not None  # noqa: S101  # narrows for the type checker
        try:
            subject = Subject.of(SubjectKind.IDENTITY, o.caller)
        except InputError:
            return ()
        opened = self._explanation(o)
        what = f"{o.target}.{o.operation}" if o.operation else f"{o.target}"
        title = f"{short(o.caller)} called {what} for the first time in {days(watched)}"
        if opened is not None:
            title += f"; the policy has allowed it since {opened.astimezone(UTC):%Y-%m-%d %H:%M}Z"
            severity = Severity.INFORMATIONAL
        else:
            severity = Severity.MEDIUM if is_new_target else Severity.LOW
        return (
            Finding(
                detector=self.name,
                severity=severity,
                subject=subject,
                title=title,
                evidence=(o.record,),
                first=o.time,
                last=o.time,
                observed=1.0,
                threshold=0.0,
                baseline=0.0,
                unit=f"calls on this edge before; {known} others are known",
                count=1,
                suggestion=f"{why(o.record)}; if it is not meant: {quarantine(subject, self.name)}",
                target=o.target,
                operation=o.operation,
            ),
        )

    def _explanation(self, o: Observation) -> datetime | None:
        if self._opened is None or o.caller is None or o.target is None:
            return None
        since = self._opened.opened(o.caller, o.target, o.operation or "")
        if since is None or not timedelta(0) <= o.time - since <= self._settings.explained_for:
            return None
        return since

    def state(self) -> Mapping[str, bytes]:
        """Return what is known of each caller."""
        return self._callers.state() | self._targets.state()

    def restore(self, state: Mapping[str, bytes]) -> None:
        """Take it back."""
        self._callers.restore({k: v for k, v in state.items() if not k.startswith(_TARGET)})
        self._targets.restore({k: v for k, v in state.items() if k.startswith(_TARGET)})
