# SPDX-License-Identifier: Apache-2.0
"""The ``detect`` part: thresholds, exemptions, what is done when too much happens."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

from everyhop.core.durations import parse_duration
from everyhop.core.errors import InputError
from everyhop.policy import _grammar as g
from everyhop.policy._fields import read_fields, read_items, read_match, read_name, read_number
from everyhop.policy._nodes import Table, Text, kind_of
from everyhop.policy.detect import (
    ADDRESS,
    ALL,
    DEFAULTS,
    Breaker,
    Counted,
    Detection,
    Exemption,
    Limits,
    OnError,
    Rate,
    Response,
    SubjectClass,
    shortest,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from enum import StrEnum

    from everyhop.core.problems import Span
    from everyhop.policy._nodes import Node
    from everyhop.policy._problems import Problems
    from everyhop.policy.model import Service

    Choice = TypeVar("Choice", bound=StrEnum)
    _Fields = Mapping[str, tuple[Text, Node]]

_OFF: Final = "off"
_NEVER: Final = "never"
_WINDOW: Final = timedelta(minutes=1), timedelta(hours=1)
_BLOCK_FOR: Final = timedelta(seconds=1), timedelta(days=30)
_WITHIN: Final = timedelta(minutes=1), timedelta(hours=1)


class DetectReader:
    """Reads the one chapter ``detect``.

    ``names`` are the declared services; ``services`` those of them whose identity is known, which is all but after a mistake.
    """

    def __init__(
        self, names: Mapping[str, object], services: Mapping[str, Service], problems: Problems
    ) -> None:
        self._names = names
        self._services = services
        self._problems = problems

    def read(self, nodes: list[Node]) -> Detection:
        """Return the chapter of the file that has it, or the defaults."""
        if not nodes:
            return DEFAULTS
        first, *others = nodes
        for node in others:
            message = "detect stands in two files"
            self._problems.add("duplicate", node.span, message, f"it is one chapter; first at {first.span}")
        fields = read_fields(first, g.DETECT_KEYS, "detect", self._problems)
        classes = {kind: self._class(fields, kind) for kind in SubjectClass}
        return Detection(
            response=self._choice(fields, "mode", Response, DEFAULTS.response),
            window=self._duration(fields, "window", "detect", _WINDOW, DEFAULTS.window),
            classes=MappingProxyType(classes),
            per_service=self._per_service(fields, classes[SubjectClass.SERVICES]),
            exempt=self._exempt(fields),
            on_error=self._choice(fields, "on_error", OnError, DEFAULTS.on_error),
            breaker=self._breaker(fields),
            detectors=self._detectors(fields),
            span=first.span,
        )

    # -- thresholds

    def _class(self, fields: _Fields, kind: SubjectClass) -> Limits:
        general = DEFAULTS.classes[kind]
        if kind.value not in fields:
            return general
        return self._limits(fields[kind.value][1], general, f"detect: {kind.value}", g.LIMITS_KEYS)

    def _per_service(self, fields: _Fields, general: Limits) -> Mapping[str, Limits]:
        if "per_service" not in fields:
            return MappingProxyType({})
        node, where = fields["per_service"][1], "detect: per_service"
        if not isinstance(node, Table) or not node.entries:
            message = f"{where}: expected a mapping of services, found {kind_of(node)}"
            self._problems.add("type", node.span, message)
            return MappingProxyType({})
        found = {}
        for key, value in node.entries:
            name = read_name(key, self._names, where, self._problems)
            limits = self._limits(value, general, f"{where}: {key.value[:80]}", g.SERVICE_LIMITS_KEYS)
            if name is not None and limits != general:
                found[name] = limits
        return MappingProxyType(found)

    def _limits(self, node: Node, general: Limits, where: str, keys: tuple[str, ...]) -> Limits:
        if isinstance(node, Text) and node.value == _OFF:
            return _off(general)
        fields = read_fields(node, keys, where, self._problems)
        count = self._count(fields, where, general)
        limits = Limits(
            alert=self._threshold(fields, "alert", where, general.alert),
            block=self._threshold(fields, "block", where, general.block),
            block_for=self._duration(fields, "block_for", where, _BLOCK_FOR, general.block_for),
            count=count,
            expected_rate=self._rate(fields, where) if "expected_rate" in fields else general.expected_rate,
        )
        self._check(limits, general, fields, node.span, where)
        return _off(general) if limits.is_off else limits

    def _check(
        self,
        limits: Limits,
        general: Limits,
        fields: _Fields,
        span: Span,
        where: str,
    ) -> None:
        if limits.alert is not None and limits.block is not None and limits.block < limits.alert:
            written = [fields[key][1].span for key in ("block", "alert") if key in fields]
            message = f"{where}: block ({limits.block}) is less than alert ({limits.alert})"
            hint = f"block at {limits.alert} or more, or write block: never"
            self._problems.add("conflict", written[0] if written else span, message, hint)
        grows = Counted.ALLOWED in limits.count and Counted.ALLOWED not in general.count
        if grows and not {"alert", "block"} <= fields.keys():
            message = f"{where}: counting all calls of a service needs thresholds of its own"
            hint = (
                f"the usual {general.alert} in {shortest(DEFAULTS.window)} is less than one call a second: write alert and block,"
                " or expected_rate instead of count"
            )
            self._problems.add("missing-key", fields["count"][1].span, message, hint)

    def _threshold(self, fields: _Fields, key: str, where: str, general: int | None) -> int | None:
        if key not in fields:
            return general
        node = fields[key][1]
        if isinstance(node, Text) and node.value == _NEVER:
            return None
        number = read_number(node, 1, g.MAX_THRESHOLD, f"{where}: {key}", self._problems)
        return general if number is None else number

    def _count(self, fields: _Fields, where: str, general: Limits) -> frozenset[Counted]:
        if "count" not in fields:
            return general.count
        node, where = fields["count"][1], f"{where}: count"
        if isinstance(node, Text) and node.value == g.ALL:
            return ALL
        if isinstance(node, Text):
            known = (g.ALL, *g.COUNTED)
            message = f"{where}: {node.value[:60]!r} is not a list of outcomes"
            hint = (
                self._problems.guess(node.value, known) or f"write all, or a list of {', '.join(g.COUNTED)}"
            )
            self._problems.add("value", node.span, message, hint)
            return general.count
        found = set()
        for item in read_items(node, where, self._problems):
            expected = f"one of {', '.join(g.COUNTED)}"
            text = read_match(item, "|".join(g.COUNTED), where, expected, self._problems)
            if text is not None and Counted(text) in found:
                self._problems.add("duplicate", item.span, f"{where}: {text} is here twice")
            if text is not None:
                found.add(Counted(text))
        return frozenset(found) or general.count

    def _rate(self, fields: _Fields, where: str) -> Rate | None:
        node = fields["expected_rate"][1]
        expected = "a rate: 50/s, 600/m or 1000/h"
        text = read_match(node, g.RATE, f"{where}: expected_rate", expected, self._problems)
        if text is None:
            return None
        count, _, unit = text.partition("/")
        return Rate(int(count), unit)

    # -- the rest

    def _choice(self, fields: _Fields, key: str, kind: type[Choice], default: Choice) -> Choice:
        if key not in fields:
            return default
        expected = "one of " + ", ".join(kind)
        text = read_match(fields[key][1], "|".join(kind), f"detect: {key}", expected, self._problems)
        return default if text is None else kind(text)

    def _duration(
        self,
        fields: _Fields,
        key: str,
        where: str,
        bounds: tuple[timedelta, timedelta],
        default: timedelta,
    ) -> timedelta:
        if key not in fields:
            return default
        node, where = fields[key][1], f"{where}: {key}"
        text = read_match(node, g.DURATION, where, "a duration: 30s, 5m, 1h, 7d", self._problems)
        if text is None:
            return default
        value, (low, high) = parse_duration(text), bounds
        if not low <= value <= high:
            message = f"{where}: {text} is not between {shortest(low)} and {shortest(high)}"
            self._problems.add("value", node.span, message)
            return default
        return value

    def _exempt(self, fields: _Fields) -> tuple[Exemption, ...]:
        if "exempt" not in fields:
            return ()
        found = set()
        for item in read_items(fields["exempt"][1], "detect: exempt", self._problems):
            text = read_match(item, g.EXEMPTION, "detect: exempt", g.EXEMPTION_HINT, self._problems)
            exemption = None if text is None else self._exemption(text, item)
            if exemption is not None:
                found.add(exemption)
        return tuple(sorted(found, key=str))

    def _exemption(self, text: str, item: Node) -> Exemption | None:
        kind, _, value = text.partition(":")
        if kind == "service":
            span = item.span
            at = Text(value, span.file, span.line, span.column)
            name = read_name(at, self._names, "detect: exempt", self._problems)
            service = None if name is None else self._services.get(name)
            return None if service is None else Exemption("identity", str(service.spiffe_id))
        if kind == "identity" and not value.startswith("spiffe://"):
            message = f"detect: exempt: {value[:80]!r} is no SPIFFE ID"
            self._problems.add("value", item.span, message, "a service of this policy is service:NAME")
            return None
        if kind == ADDRESS:
            try:
                return Exemption(kind, _network(value))
            except (ValueError, InputError) as error:
                self._problems.add(
                    "value", item.span, f"detect: exempt: {value[:80]!r} is no network", str(error)[:120]
                )
                return None
        return Exemption(kind, value)

    def _detectors(self, fields: _Fields) -> Mapping[str, Mapping[str, str] | str]:
        """Return what is wished of detectors; which of them there are, and what can be set, their room knows."""
        if "detectors" not in fields:
            return MappingProxyType({})
        node, where = fields["detectors"][1], "detect: detectors"
        if not isinstance(node, Table) or not 0 < len(node.entries) <= g.MAX_DETECTORS:
            self._problems.add(
                "type", node.span, f"{where}: expected a mapping of detectors, found {kind_of(node)}"
            )
            return MappingProxyType({})
        found: dict[str, Mapping[str, str] | str] = {}
        for key, value in node.entries:
            at = f"{where}: {key.value[:60]}"
            name = read_match(key, g.DETECTOR_NAME, where, "the name of a detector", self._problems)
            wish = self._wish(value, at)
            if name is not None and wish is not None:
                found[name] = wish
        return MappingProxyType(found)

    def _wish(self, node: Node, where: str) -> Mapping[str, str] | str | None:
        if not isinstance(node, Table):
            return read_match(node, "on|off", where, "on, off or a mapping", self._problems)
        found = {}
        for key, value in node.entries:
            knob = read_match(key, g.DETECTOR_NAME, where, "a name", self._problems)
            text = read_match(value, g.KNOB, f"{where}: {key.value[:60]}", "a short text", self._problems)
            if knob is not None and text is not None:
                found[knob] = text
        return MappingProxyType(found)

    def _breaker(self, fields: _Fields) -> Breaker | None:
        default = Breaker()
        if "breaker" not in fields:
            return default
        node, where = fields["breaker"][1], "detect: breaker"
        if isinstance(node, Text) and node.value == _OFF:
            return None
        inner = read_fields(node, g.BREAKER_KEYS, where, self._problems)
        share = default.share
        if "share" in inner:
            expected = "a share from 1% to 100%"
            text = read_match(inner["share"][1], g.PERCENT, f"{where}: share", expected, self._problems)
            share = share if text is None else int(text[:-1]) / 100
        return Breaker(share=share, within=self._duration(inner, "within", where, _WITHIN, default.within))


def _network(text: str) -> str:
    """Return an address or a network in the form under which it is compared.  Raises ValueError."""
    network = ipaddress.ip_network(text)
    if isinstance(network, ipaddress.IPv6Network):
        if network.prefixlen > 64:  # noqa: PLR2004  # what is counted is a /64
            network = network.supernet(new_prefix=64)
        return str(network)
    return re.sub(r"/32\Z", "", str(network))


def _off(general: Limits) -> Limits:
    return replace(general, alert=None, block=None, expected_rate=None)
