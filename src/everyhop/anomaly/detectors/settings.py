# SPDX-License-Identifier: Apache-2.0
"""What can be set of each detector, and what holds where nothing is said.

In the policy this is ``detect: {detectors: {NAME: off | {KNOB: VALUE}}}``.  Durations are texts such as ``5m``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from everyhop.core.durations import parse_duration
from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

MINUTES: Final = timedelta(minutes=1)
HOURS: Final = timedelta(hours=1)
DAYS: Final = timedelta(days=1)

Knob: TypeAlias = str | int | float | bool
Wish: TypeAlias = "Mapping[str, Knob] | bool | str | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEdge:
    """A caller reaches what it never reached before; silent until it has been watched for ``learn``.

    A first use within ``explained_for`` of the policy change that opened the way is informational.
    """

    learn: timedelta = 7 * DAYS
    explained_for: timedelta = 7 * DAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedBurst:
    """``denials`` refusals of one subject within ``window``; probing from ``services`` services or ``places`` places."""

    denials: int = 10
    window: timedelta = 5 * MINUTES
    services: int = 4
    places: int = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialStuffing:
    """One address tries many accounts, few times each, and mostly fails."""

    attempts: int = 20
    accounts: int = 8
    failed_share: float = 0.8
    per_account: float = 5.0
    window: timedelta = 10 * MINUTES


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordSpray:
    """Many accounts fail, at most ``per_account`` times each, from many addresses or slowly from one."""

    accounts: int = 20
    accounts_of_one: int = 12
    addresses: int = 5
    per_account: int = 3
    times_usual: float = 3.0
    window: timedelta = HOURS
    window_of_one: timedelta = 6 * HOURS


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenReplay:
    """A credential that shows up where it cannot be."""

    window: timedelta = 5 * MINUTES
    revoked: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ImpossibleTravel:
    """Two uses of one user too far apart for the time between; ``locations`` is the path of a table."""

    kmh: float = 900.0
    least_km: float = 150.0
    known_for: timedelta = 30 * DAYS
    locations: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusualHour:
    """An hour of the day that is rarer than ``rarer_than`` for this user or identity."""

    rarer_than: float = 0.004
    days: int = 10
    learn: timedelta = 14 * DAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """More calls in an hour than ``spreads`` spreads above the usual, and than ``times`` times it, and than ``least``."""

    spreads: float = 6.0
    times: float = 2.0
    least: int = 50
    learn: timedelta = 7 * DAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """Something is used that nobody has a reason to use; the response is the canary's own."""

    block_for: timedelta = DAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSettings:
    """All of them; None is off."""

    new_edge: NewEdge | None = field(default_factory=NewEdge)
    denied_burst: DeniedBurst | None = field(default_factory=DeniedBurst)
    credential_stuffing: CredentialStuffing | None = field(default_factory=CredentialStuffing)
    password_spray: PasswordSpray | None = field(default_factory=PasswordSpray)
    token_replay: TokenReplay | None = field(default_factory=TokenReplay)
    impossible_travel: ImpossibleTravel | None = field(default_factory=ImpossibleTravel)
    unusual_hour: UnusualHour | None = field(default_factory=UnusualHour)
    volume: Volume | None = field(default_factory=Volume)
    canary: Canary | None = field(default_factory=Canary)


KINDS: Final[Mapping[str, type[Any]]] = {
    "new-edge": NewEdge,
    "denied-burst": DeniedBurst,
    "credential-stuffing": CredentialStuffing,
    "password-spray": PasswordSpray,
    "token-replay": TokenReplay,
    "impossible-travel": ImpossibleTravel,
    "unusual-hour": UnusualHour,
    "volume": Volume,
    "canary": Canary,
}


def read_settings(wishes: Mapping[str, Wish]) -> DetectorSettings:
    """Return the settings that a policy wishes for.

    Raises InputError for a detector or a knob that does not exist, or a value that is none of it; all but texts must be
    positive.
    """
    chosen: dict[str, Any] = {}
    for name, wish in wishes.items():
        kind = KINDS.get(name)
        if kind is None:
            raise InputError(f"there is no detector {name[:40]!r}", hint="one of: " + ", ".join(KINDS))
        chosen[name.replace("-", "_")] = _one(name, kind, wish)
    return DetectorSettings(**chosen)


def _one(name: str, kind: type[Any], wish: Wish) -> object:
    if wish is False or wish == "off":
        return None
    if wish is True or wish is None or wish == "on":
        return kind()
    if isinstance(wish, str):
        raise InputError(f"{name}: {wish[:40]!r} is neither on, off nor a mapping")
    knobs = {f.name.replace("_", "-"): f for f in dataclasses.fields(kind)}
    values: dict[str, object] = {}
    for key, value in wish.items():
        knob = knobs.get(key.replace("_", "-"))
        if knob is None:
            hint = "it has: " + ", ".join(knobs)
            raise InputError(f"{name}: there is nothing called {key[:40]!r} to set", hint=hint)
        values[knob.name] = _value(f"{name}: {key}", knob.default, value)
    return kind(**values)


def _value(where: str, default: object, value: Knob) -> object:
    """Read a value of the type that the default has."""
    if isinstance(default, str):
        if isinstance(value, str):
            return value
        raise InputError(f"{where}: expected a text")
    if isinstance(default, timedelta):
        if not isinstance(value, str):
            raise InputError(f"{where}: expected a duration such as 5m")
        found: timedelta | float = parse_duration(value)
        least: timedelta | float = timedelta(0)
    else:
        found, least = _number(where, default, value), 0
    if not found > least:  # type: ignore[operator]  # both are durations, or both are numbers
        raise InputError(f"{where}: expected more than nothing")
    return found


def _number(where: str, default: object, value: Knob) -> float:
    if isinstance(value, str):
        try:
            value = float(value) if "." in value else int(value)
        except ValueError as error:
            raise InputError(f"{where}: expected a number") from error
    if isinstance(value, bool) or (isinstance(default, int) and not isinstance(value, int)):
        raise InputError(f"{where}: expected a whole number")
    return float(value) if isinstance(default, float) else value
