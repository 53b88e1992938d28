# SPDX-License-Identifier: Apache-2.0
"""Detection, composed: counters in this process or in Redis, on a thread of its own."""

from __future__ import annotations

import logging
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

from everyhop.anomaly.detectors import Locations, default_detectors, read_settings
from everyhop.anomaly.twin import TwinWindows
from everyhop.anomaly.window import MemoryWindows
from everyhop.control.detection import Detection, DetectionPorts
from everyhop.control.opened_edges import PolicyHistory
from everyhop.core.errors import InputError
from everyhop.policy.detect import OnError
from everyhop.providers.sealed_states import SealedStates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from everyhop.anomaly.detectors import CanaryServices, DetectorSettings, OpenedEdges
    from everyhop.anomaly.ports import Detector, Responder
    from everyhop.anomaly.window import Windows
    from everyhop.auditlog import Record
    from everyhop.core.clock import Clock
    from everyhop.core.secret import Secret
    from everyhop.policy.model import Snapshot
    from everyhop.runtime.settings import Settings
    from everyhop.storage import Storage

_log = logging.getLogger(__name__)


def windows_of(settings: Settings, snapshot: Callable[[], Snapshot], told: Callable[[bool], None]) -> Windows:
    """Return the counters that the settings name; raises SettingsError for an address of Redis that does not parse.

    Servers that share a Redis share counters, so whoever takes the work over goes on where another stopped.  Only one works
    at a time and sees the whole log, so while Redis is away the twin counts against whole thresholds.
    """
    if not settings.redis_url:
        return MemoryWindows()
    from everyhop.providers.redis_windows import RedisWindows

    shared = RedisWindows(settings.redis_url, namespace=f"everyhop:{snapshot().trust_domain}")
    return TwinWindows(shared, told=told, counts_alone=lambda: snapshot().detection.on_error is OnError.LOCAL)


def detectors_of(
    snapshot: Snapshot, services: CanaryServices | None, opened: OpenedEdges | None = None
) -> tuple[Detector, ...]:
    """Return the detectors that a policy wishes for.  A table of locations that cannot be read is left out, loudly."""
    wishes = read_settings(snapshot.detection.detectors)
    return default_detectors(wishes, services=services, opened=opened, locations=_locations(wishes))


def _locations(wishes: DetectorSettings) -> Locations | None:
    travel = wishes.impossible_travel
    if travel is None or not travel.locations:
        return None
    try:
        return Locations.parse(Path(travel.locations).read_bytes())
    except (OSError, InputError) as error:
        _log.error(
            "the table of locations cannot be read", extra={"file": travel.locations, "reason": str(error)}
        )
        return None


def detection_of(
    storage: Storage,
    settings: Settings,
    *,
    snapshot: Callable[[], Snapshot],
    clock: Clock,
    pool: Executor,
    responder: Responder | None = None,
    services: CanaryServices | None = None,
    state_key: Secret | None = None,
    reveal: Callable[[Sequence[Record]], Sequence[Record]] = lambda records: records,
) -> Detection:
    """Compose the detection of a server.  ``pool`` has one thread.  Each start is a holder of its own.

    Under ``state_key`` the memory of detectors is sealed, since it names people and addresses.
    """
    made: list[Detection] = []

    def told(is_degraded: bool) -> None:  # noqa: FBT001  # the callback of twin windows
        made[0].degraded(is_degraded)  # there by the time that anything is counted

    ports = DetectionPorts(
        lines=storage.log_lines,
        store=storage.detection,
        consumers=storage.consumers,
        leases=storage.leases,
        snapshot=snapshot,
        windows=windows_of(settings, snapshot, told),
        clock=clock,
        monotonic=time.monotonic,
        pool=pool,
        holder=secrets.token_hex(8),
        responder=responder,
        detectors=lambda policy: detectors_of(policy, services, PolicyHistory(storage.snapshots)),
        states=storage.detector_states
        if state_key is None
        else SealedStates(storage.detector_states, state_key),
        reveal=reveal,
    )
    made.append(Detection(ports))
    return made[0]
