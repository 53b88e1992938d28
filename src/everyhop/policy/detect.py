# SPDX-License-Identifier: Apache-2.0
"""What the policy says of detection: how much is too much, for whom, and what happens then."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.core.problems import Span

BUCKETS: Final = 60
"""A window is counted in so many equal parts, and one more for the part that is not over yet."""


class Response(StrEnum):
    """Whether findings have consequences."""

    ENFORCE = "enforce"
    OBSERVE = "observe"  # findings only: nobody is blocked


class SubjectClass(StrEnum):
    """Those who are counted alike; the values are the keys of the policy."""

    USERS = "users"
    API_KEYS = "api_keys"
    ADDRESSES = "addresses"
    SERVICES = "services"


class Counted(StrEnum):
    """Which calls count (the outcomes of ``anomaly.observation``; faults count never)."""

    ALLOWED = "allowed"  # only as a part of ``all``
    DENIED = "denied"
    FAILED = "failed"
    UNDECLARED = "undeclared"
    AMBIGUOUS = "ambiguous"


class OnError(StrEnum):
    """What detection does while the counters that servers share do not answer."""

    LOCAL = "local"  # count here, against thresholds divided by the number of servers
    ALLOW = "allow"  # do not count: nothing is found and nobody newly blocked meanwhile


ALL: Final = frozenset(Counted)
BAD_CALLS: Final = frozenset({Counted.DENIED, Counted.FAILED, Counted.UNDECLARED})


@dataclass(frozen=True, slots=True)
class Rate:
    """So many calls in a second, minute or hour."""

    count: int
    unit: str

    @property
    def per_second(self) -> float:
        """Return calls per second."""
        return self.count / {"s": 1, "m": 60, "h": 3600}[self.unit]

    def __str__(self) -> str:
        return f"{self.count}/{self.unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Thresholds of one class or service.

    ``alert`` and ``block`` are numbers of calls in the window; None for never.  ``count`` are the calls that count.
    ``expected_rate`` is what a service may do at most as a matter of course: more of any calls is a finding, never a block.
    """

    alert: int | None = 100
    block: int | None = 500
    block_for: timedelta = timedelta(hours=1)
    count: frozenset[Counted] = ALL
    expected_rate: Rate | None = None

    @property
    def is_off(self) -> bool:
        """Tell whether nothing is counted."""
        return self.alert is None and self.block is None and self.expected_rate is None


@dataclass(frozen=True, slots=True)
class Exemption:
    """One who is never blocked by a detector: ``kind`` and ``value`` of a subject, or a network of addresses."""

    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"

    def covers(self, kind: str, value: str) -> bool:
        """Tell whether a subject is meant (an address in the form under which it is counted)."""
        if kind != self.kind:
            return False
        if kind != ADDRESS or "/" not in self.value:
            return value == self.value
        ours, other = ipaddress.ip_network(self.value), ipaddress.ip_network(value)
        # A subject of IPv6 is a whole /64: all of it has to lie within.
        return ours.version == other.version and ours.supernet_of(other)  # type: ignore[arg-type]  # versions agree


ADDRESS: Final = "address"


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Blocks are held back when more than ``share`` (0 to 1) of the known subjects would be blocked ``within``."""

    share: float = 0.2
    within: timedelta = timedelta(minutes=10)


DEFAULT_LIMITS: Final[Mapping[SubjectClass, Limits]] = MappingProxyType(
    {
        SubjectClass.USERS: Limits(),
        SubjectClass.API_KEYS: Limits(),
        SubjectClass.ADDRESSES: Limits(),
        # A hundred calls in five minutes is one in three seconds: no volume, but refusals.
        SubjectClass.SERVICES: Limits(count=BAD_CALLS),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """The chapter ``detect``; what is not written is as here.  ``breaker`` of None: none.

    ``detectors`` are the wishes for detectors by name, as texts: the room of the detectors reads them.
    """

    response: Response = Response.ENFORCE
    window: timedelta = timedelta(minutes=5)
    classes: Mapping[SubjectClass, Limits] = field(default_factory=lambda: DEFAULT_LIMITS)
    per_service: Mapping[str, Limits] = field(default_factory=lambda: MappingProxyType({}))
    exempt: tuple[Exemption, ...] = ()
    on_error: OnError = OnError.LOCAL
    breaker: Breaker | None = field(default_factory=Breaker)
    detectors: Mapping[str, Mapping[str, str] | str] = field(default_factory=lambda: MappingProxyType({}))
    span: Span | None = field(default=None, compare=False)

    def limits_of(self, kind: SubjectClass, service: str | None = None) -> Limits:
        """Return what holds for a class, or for one service by its name."""
        if kind is SubjectClass.SERVICES and service is not None and service in self.per_service:
            return self.per_service[service]
        return self.classes[kind]

    def is_exempt(self, kind: str, value: str) -> bool:
        """Tell whether a subject must not be blocked by a detector."""
        return any(exemption.covers(kind, value) for exemption in self.exempt)


DEFAULTS: Final = Detection()


def detection_entry(detection: Detection) -> dict[str, Any]:
    """Return the chapter in its canonical form: what differs from the defaults, as texts; empty for the defaults."""
    entry: dict[str, Any] = {}
    if detection.response is not DEFAULTS.response:
        entry["mode"] = detection.response.value
    if detection.window != DEFAULTS.window:
        entry["window"] = shortest(detection.window)
    for kind, limits in detection.classes.items():
        if limits != DEFAULT_LIMITS[kind]:
            entry[kind.value] = _limits_entry(limits, DEFAULT_LIMITS[kind])
    general = detection.classes[SubjectClass.SERVICES]
    if detection.per_service:
        entry["per_service"] = {
            name: _limits_entry(limits, general) for name, limits in sorted(detection.per_service.items())
        }
    if detection.exempt:
        entry["exempt"] = [str(exemption) for exemption in detection.exempt]
    if detection.on_error is not DEFAULTS.on_error:
        entry["on_error"] = detection.on_error.value
    if detection.breaker != DEFAULTS.breaker:
        entry["breaker"] = _breaker_entry(detection.breaker)
    if detection.detectors:
        entry["detectors"] = {
            name: wish if isinstance(wish, str) else dict(sorted(wish.items()))
            for name, wish in sorted(detection.detectors.items())
        }
    return entry


def shortest(value: timedelta) -> str:
    """Return a duration in its largest whole unit, as a policy writes it."""
    seconds = int(value.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _limits_entry(limits: Limits, general: Limits) -> dict[str, Any] | str:
    if limits.is_off:
        return "off"
    entry: dict[str, Any] = {}
    is_other = limits.count != general.count  # then the thresholds stand beside it, whatever they are
    if is_other or limits.alert != general.alert:
        entry["alert"] = "never" if limits.alert is None else str(limits.alert)
    if is_other or limits.block != general.block:
        entry["block"] = "never" if limits.block is None else str(limits.block)
    if limits.block_for != general.block_for:
        entry["block_for"] = shortest(limits.block_for)
    if is_other:
        entry["count"] = "all" if limits.count == ALL else sorted(limits.count)
    if limits.expected_rate != general.expected_rate:
        entry["expected_rate"] = str(limits.expected_rate)
    return entry


def _breaker_entry(breaker: Breaker | None) -> dict[str, Any] | str:
    if breaker is None:
        return "off"
    return {"share": f"{round(breaker.share * 100)}%", "within": shortest(breaker.within)}


def describe_limits(limits: Limits) -> dict[str, Any]:
    """Return thresholds as plain values, each of them."""
    return {
        "alert": limits.alert,
        "block": limits.block,
        "block_seconds": int(limits.block_for.total_seconds()),
        "count": "all" if limits.count == ALL else sorted(limits.count),
        "expected_rate": None if limits.expected_rate is None else str(limits.expected_rate),
    }
