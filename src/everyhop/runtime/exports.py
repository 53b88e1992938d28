# SPDX-License-Identifier: Apache-2.0
"""Exports, composed: a sink for each entry of the settings, and what they stand on."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from everyhop.control.exporting import Export, ExportPorts, Exports
from everyhop.core.errors import SettingsError
from everyhop.exports import JsonlSettings, OtlpSettings, SyslogSettings, WebhookSettings
from everyhop.exports.formats import renderer
from everyhop.exports.jsonl import JsonlSink
from everyhop.exports.otlp import OtlpSink
from everyhop.exports.syslog import SyslogSink
from everyhop.exports.webhook import WebhookSink

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from everyhop.core.clock import Clock, Entropy
    from everyhop.exports import ExportSettings, Sink
    from everyhop.runtime.settings import Settings
    from everyhop.storage import Storage


def sink_of(settings: ExportSettings, *, origin: str | None, clock: Clock) -> Sink:
    """Make the sink of one entry; ``origin`` names the log in OCSF events."""
    match settings:
        case JsonlSettings():
            return JsonlSink(settings, renderer(settings.format, origin=origin), clock)
        case SyslogSettings():
            return SyslogSink(settings, renderer(settings.format, origin=origin), time.monotonic)
        case WebhookSettings():
            return WebhookSink(settings, renderer(settings.format, origin=origin), clock)
        case OtlpSettings():
            return OtlpSink(settings, clock)
        case _:  # a base class is no receiver
            raise SettingsError(f"{settings.name} is no kind of export")


def exports_of(
    storage: Storage,
    settings: Settings,
    *,
    origin: str | None,
    clock: Clock,
    entropy: Entropy,
    pool: Executor,
) -> Exports:
    """Compose the exports of a server.  Each start is a holder of its own: a lease of the last one runs out."""

    def export_of(entry: ExportSettings) -> Export:
        return Export(settings=entry, open=lambda: sink_of(entry, origin=origin, clock=clock))

    ports = ExportPorts(
        lines=storage.log_lines,
        records=storage.records,
        consumers=storage.consumers,
        leases=storage.leases,
        clock=clock,
        entropy=entropy,
        pool=pool,
    )
    entries = [export_of(entry) for entry in settings.export]
    return Exports(entries, ports, holder=secrets.token_hex(8), origin=origin)
