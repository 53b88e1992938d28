# SPDX-License-Identifier: Apache-2.0
"""Uses of what nobody has a reason to use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from everyhop.anomaly.detectors._memory import Memory
from everyhop.anomaly.detectors._telling import named
from everyhop.anomaly.finding import Action, Finding, Severity
from everyhop.anomaly.model import Subject, SubjectKind
from everyhop.anomaly.observation import Outcome
from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from everyhop.anomaly.detectors.settings import Canary as Settings
    from everyhop.anomaly.observation import Observation

USED: Final = "canary-used"
"""The operation of a record that says that a credential was recognised."""

MAX_TOLD: Final = 4096
EPISODE_SECONDS: Final = 300.0
_UNKNOWN: Final = Subject(SubjectKind.USER, "unknown")


class ServiceCanary(NamedTuple):
    """A service that must never be called: its id in the list of canaries, and what a call leads to."""

    id: str
    response: Action


class CanaryServices(Protocol):
    """The services of the policy in force that are canaries."""

    def find(self, service: str) -> ServiceCanary | None:
        """Return what is known of a service by its name; None for every ordinary one."""


class _Told(msgspec.Struct):
    time: float = 0.0


class Canaries:
    """Finds every use of a canary; of a caller that goes on, one finding in five minutes.

    Nothing is estimated here.  A credential is a canary when its keyed mark is that of one (``control.canaries`` writes the
    record that says so); a service is one when the policy declares it, and then no rule can open it.
    """

    name: Final = "canary"

    def __init__(self, settings: Settings, services: CanaryServices | None = None) -> None:
        self._settings = settings
        self._services = services
        self._told = Memory(_Told, limit=MAX_TOLD)

    def observe(self, observation: Observation, now: datetime) -> Sequence[Finding]:
        """Take one observation; at most one finding."""
        del now
        o = observation
        if o.kind == "token" and o.operation == USED:
            what = str(o.detail.get("canary_kind", "credential")), str(o.detail.get("canary", ""))
            return self._used(_user_of(o), *what, _action(o.detail.get("response")), o)
        if o.kind == "decision" and o.outcome is not Outcome.ALLOWED and o.point != "sdk":
            name = host_name(o.target)
            found = self._services.find(name) if self._services is not None and name else None
            if found is not None:
                return self._used(_caller_of(o), f"service {name}", found.id, found.response, o)
        return ()

    def _used(
        self, subject: Subject, kind: str, canary: str, action: Action, o: Observation
    ) -> Sequence[Finding]:
        told = self._told.touch(f"{canary or kind} {subject}")
        time = o.time.timestamp()
        if told.time and 0 <= time - told.time < EPISODE_SECONDS:
            return ()
        told.time = time
        if subject is _UNKNOWN:
            action = Action.ALERT
        elif action is Action.QUARANTINE and subject.kind is not SubjectKind.IDENTITY:
            action = Action.BLOCK  # there is no workload to take anything from
        named_canary = f" {canary}" if canary else ""
        return (
            Finding(
                detector=self.name,
                severity=Severity.CRITICAL,
                subject=subject,
                title=f"{named(subject)} used the canary{named_canary} ({kind}): nobody has a reason to",
                evidence=(o.record,),
                first=o.time,
                last=o.time,
                observed=1.0,
                threshold=0.0,
                baseline=0.0,
                unit="uses",
                count=1,
                suggestion="find out where it lay and who could read it there; everyhop canary list",
                action=action,
                block_for=None if action is Action.ALERT else self._settings.block_for,
                target=o.target,
                operation=o.operation,
            ),
        )

    def state(self) -> Mapping[str, bytes]:
        """Return what was told lately."""
        return self._told.state()

    def restore(self, state: Mapping[str, bytes]) -> None:
        """Take it back."""
        self._told.restore(state)


def host_name(target: str | None) -> str:
    """Return the name in a destination, which may be a service or what a workload asked for (``name``, ``name:port``)."""
    name, _, port = (target or "").lower().partition(":")
    return name.rstrip(".") if not port or port.isdecimal() else ""


def _action(text: object) -> Action:
    return Action(text) if isinstance(text, str) and text in set(Action) else Action.ALERT


def _user_of(o: Observation) -> Subject:
    """Return who used a credential: a proven caller, else the address that it came from."""
    return _subject(SubjectKind.IDENTITY, o.caller) or _subject(SubjectKind.ADDRESS, o.address) or _UNKNOWN


def _caller_of(o: Observation) -> Subject:
    return o.subjects[0] if o.subjects else _user_of(o)


def _subject(kind: SubjectKind, value: str | None) -> Subject | None:
    try:
        return None if value is None else Subject.of(kind, value)
    except InputError:
        return None
