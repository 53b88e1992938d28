# SPDX-License-Identifier: Apache-2.0
"""Detectors: each a pure, bounded function over what it has seen, with its own memory and its own page of reasons.

``docs/reference/detectors.md`` says for each what it looks at, by which formula, and how often it was wrong in a month of
synthetic traffic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from everyhop.anomaly.detectors.canaries import Canaries, CanaryServices, ServiceCanary
from everyhop.anomaly.detectors.credentials import CredentialStuffing, PasswordSpray
from everyhop.anomaly.detectors.denied_burst import DeniedBurst
from everyhop.anomaly.detectors.hours import UnusualHour
from everyhop.anomaly.detectors.locations import Locations
from everyhop.anomaly.detectors.new_edge import NewEdge, OpenedEdges
from everyhop.anomaly.detectors.settings import DetectorSettings, read_settings
from everyhop.anomaly.detectors.token_replay import TokenReplay
from everyhop.anomaly.detectors.travel import ImpossibleTravel
from everyhop.anomaly.detectors.volume import VolumeDetector

if TYPE_CHECKING:
    from everyhop.anomaly.ports import Detector

__all__ = [
    "Canaries",
    "CanaryServices",
    "CredentialStuffing",
    "DeniedBurst",
    "DetectorSettings",
    "ImpossibleTravel",
    "Locations",
    "NewEdge",
    "OpenedEdges",
    "PasswordSpray",
    "ServiceCanary",
    "TokenReplay",
    "UnusualHour",
    "VolumeDetector",
    "default_detectors",
    "read_settings",
]


def default_detectors(
    settings: DetectorSettings | None = None,
    *,
    opened: OpenedEdges | None = None,
    services: CanaryServices | None = None,
    locations: Locations | None = None,
) -> tuple[Detector, ...]:
    """Return the detectors that are on.

    ``opened`` explains new edges by changes of policy, ``services`` knows which services are canaries, and without
    ``locations`` nothing is said of travel: :func:`silent` names what is off and why.
    """
    s = settings or DetectorSettings()
    found: list[Detector | None] = [
        None if s.canary is None else Canaries(s.canary, services),
        None if s.new_edge is None else NewEdge(s.new_edge, opened),
        None if s.denied_burst is None else DeniedBurst(s.denied_burst),
        None if s.credential_stuffing is None else CredentialStuffing(s.credential_stuffing),
        None if s.password_spray is None else PasswordSpray(s.password_spray),
        None if s.token_replay is None else TokenReplay(s.token_replay),
        None
        if s.impossible_travel is None or locations is None
        else ImpossibleTravel(s.impossible_travel, locations),
        None if s.unusual_hour is None else UnusualHour(s.unusual_hour),
        None if s.volume is None else VolumeDetector(s.volume),
    ]
    return tuple(detector for detector in found if detector is not None)


def silent(settings: DetectorSettings, *, has_locations: bool) -> dict[str, str]:
    """Return the detectors that are off, with the reason in words."""
    reasons = {
        name.replace("_", "-"): "switched off by the policy"
        for name in DetectorSettings.__dataclass_fields__
        if getattr(settings, name) is None
    }
    if settings.impossible_travel is not None and not has_locations:
        reasons["impossible-travel"] = (
            "it has no table of locations (detect: detectors: impossible-travel: locations)"
        )
    return reasons
