# SPDX-License-Identifier: Apache-2.0
"""One user at two places that are too far apart for the time between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from everyhop.anomaly.detectors._memory import Memory
from everyhop.anomaly.detectors._telling import moment, named, revoke
from everyhop.anomaly.detectors.locations import distance_km
from everyhop.anomaly.finding import Finding, Severity
from everyhop.anomaly.model import Subject, SubjectKind
from everyhop.anomaly.observation import Outcome
from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from everyhop.anomaly.detectors.locations import Locations
    from everyhop.anomaly.detectors.settings import ImpossibleTravel as Settings
    from everyhop.anomaly.observation import Observation

MAX_USERS: Final = 8192
MAX_PAIRS: Final = 16
_LEAST_HOURS: Final = (
    1 / 60
)  # clocks of two nodes may differ by seconds: no speed is taken over less than a minute


class _User(msgspec.Struct):
    time: float = 0.0
    latitude: float = 0.0
    longitude: float = 0.0
    address: str = ""
    record: str = ""
    pairs: dict[str, float] = {}  # pairs of places that were told, and when; msgspec copies an empty default


class ImpossibleTravel:
    """Compares each successful use of a user with the one before it.

    A pair of places is told once in ``known_for``: somebody who works through a VPN is at two places every day.
    """

    name: Final = "impossible-travel"

    def __init__(self, settings: Settings, locations: Locations) -> None:
        self._settings = settings
        self._locations = locations
        self._users = Memory(_User, limit=MAX_USERS)

    def observe(self, observation: Observation, now: datetime) -> Sequence[Finding]:
        """Take one observation; at most one finding."""
        del now
        o = observation
        if o.outcome is not Outcome.ALLOWED or o.user is None or o.address is None:
            return ()
        known = self._users.get(o.user)
        time = o.time.timestamp()
        if known is not None and known.address == o.address:
            if time - known.time >= 1.0:
                last = self._users.touch(o.user)
                last.time, last.record = time, o.record
            return ()
        place = self._locations.find(o.address)
        if place is None:
            return ()
        user = self._users.touch(o.user)
        found: Sequence[Finding] = ()
        if user.address:
            found = self._compare(user, place, time, o)
        if time >= user.time:
            user.time, (user.latitude, user.longitude) = time, place
            user.address, user.record = o.address, o.record
        return found

    def _compare(
        self, user: _User, place: tuple[float, float], time: float, o: Observation
    ) -> Sequence[Finding]:
        s = self._settings
        before = (user.latitude, user.longitude)
        distance = distance_km(before, place)
        speed = distance / max(abs(time - user.time) / 3600, _LEAST_HOURS)
        if distance < s.least_km or speed <= s.kmh:
            return ()
        pair = " ".join(sorted((f"{before[0]:.0f},{before[1]:.0f}", f"{place[0]:.0f},{place[1]:.0f}")))
        told = user.pairs.pop(pair, None)
        user.pairs[pair] = time
        if len(user.pairs) > MAX_PAIRS:
            del user.pairs[next(iter(user.pairs))]
        if told is not None and time - told < s.known_for.total_seconds():
            return ()
        try:
            subject = Subject.of(SubjectKind.USER, o.user or "")
        except InputError:
            return ()
        minutes = max(abs(time - user.time) / 60, 1.0)
        return (
            Finding(
                detector=self.name,
                severity=Severity.HIGH,
                subject=subject,
                title=f"{named(subject)} was {distance:.0f} km away {minutes:.0f} minutes later",
                evidence=(user.record, o.record),
                first=min(moment(user.time), o.time),
                last=max(moment(user.time), o.time),
                observed=round(speed, 1),
                threshold=s.kmh,
                unit="km/h",
                count=2,
                suggestion=f"{revoke()}; ask the user",
                target=o.target,
                operation=o.operation,
            ),
        )

    def state(self) -> Mapping[str, bytes]:
        """Return where each user was last."""
        return self._users.state()

    def restore(self, state: Mapping[str, bytes]) -> None:
        """Take it back."""
        self._users.restore(state)
