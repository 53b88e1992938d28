# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry logs over HTTP with JSON (OTLP 1): what a record says is in attributes, and no body.

A record is an event: ``eventName`` is ``everyhop.KIND``, ``log.record.uid`` the record's id, by which a
receiver tells a repeated delivery.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from everyhop import __version__
from everyhop.core.errors import Unavailable
from everyhop.exports.http import Poster
from everyhop.exports.model import Told
from everyhop.exports.rfc5424 import severity_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from everyhop.auditlog.model import Scalar
    from everyhop.core.clock import Clock
    from everyhop.exports.model import Item, OtlpSettings

REJECTED: Final = "rejected-by-receiver"
_SEVERITIES: Final = {2: (21, "FATAL"), 3: (17, "ERROR"), 4: (13, "WARN"), 5: (10, "INFO2"), 6: (9, "INFO")}
_MAX_INT: Final = 2**63


def log_record_of(item: Item, *, observed: datetime) -> dict[str, Any]:
    """Return a ``LogRecord`` in the JSON mapping of protobuf: 64-bit integers are texts."""
    record = item.record
    number, text = _SEVERITIES[severity_of(record)]
    attributes: dict[str, Scalar] = {
        "log.record.uid": record.id,
        "everyhop.index": item.index,
        "everyhop.kind": record.kind.value,
        "everyhop.point": record.point.value,
        "everyhop.producer": record.producer,
        "everyhop.sequence": record.seq,
        "everyhop.caller": record.caller,
        "everyhop.target": record.target,
        "everyhop.operation": record.operation,
        "everyhop.decision": record.decision,
        "everyhop.rule": record.rule,
        "everyhop.reason": record.reason,
        "everyhop.snapshot": record.snapshot,
        "everyhop.instance": record.instance,
        "everyhop.latency_ms": record.latency_ms,
        "http.request.method": record.method,
        "url.path": record.path,
        "http.response.status_code": record.status,
        **{f"everyhop.detail.{name}": value for name, value in record.detail.items()},
    }
    found: dict[str, Any] = {
        "timeUnixNano": _nanos(record.time),
        "observedTimeUnixNano": _nanos(observed),
        "severityNumber": number,
        "severityText": text,
        "eventName": f"everyhop.{record.kind.value}",
        "attributes": attributes_of(attributes),
    }
    if record.trace is not None:
        found["traceId"], _, found["spanId"] = record.trace.partition("-")
    return found


def attributes_of(values: Mapping[str, Scalar]) -> list[dict[str, Any]]:
    """Return key-value pairs; what is None is left out."""
    return [{"key": key, "value": _value(value)} for key, value in values.items() if value is not None]


def request_of(items: Sequence[Item], *, resource: Mapping[str, str], observed: datetime) -> bytes:
    """Return an ``ExportLogsServiceRequest``."""
    scope = {"name": "everyhop.auditlog", "version": __version__}
    records = [log_record_of(item, observed=observed) for item in items]
    about = attributes_of({"service.name": "everyhop", **resource})
    return msgspec.json.encode(
        {
            "resourceLogs": [
                {"resource": {"attributes": about}, "scopeLogs": [{"scope": scope, "logRecords": records}]}
            ]
        }
    )


def rejected_of(answer: bytes) -> tuple[int, str]:
    """Return how many records a receiver rejected for good, and its message.  Raises Unavailable for no answer of it."""
    if not answer.strip():
        return 0, ""
    try:
        partial = msgspec.json.decode(answer, type=dict[str, Any]).get("partialSuccess") or {}
        rejected, message = (
            int(partial.get("rejectedLogRecords") or 0),
            str(partial.get("errorMessage") or ""),
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, AttributeError, TypeError, ValueError) as error:
        raise Unavailable("the receiver's answer is not that of a log receiver") from error
    return max(0, rejected), "".join(c if c.isprintable() else "_" for c in message)[:500]


class OtlpSink:
    """The ``Sink`` port on OTLP/HTTP.

    A receiver that takes a part of a batch says so and must not be sent the rest again: how many it rejected is told
    in the log.
    """

    def __init__(self, settings: OtlpSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._poster = Poster(settings.url, settings.tls)
        self._told: list[Told] = []
        self._done = 0

    async def send(self, items: Sequence[Item]) -> int:
        """Post one request."""
        make = partial(request_of, items, resource=self._settings.resource, observed=self._clock.now())
        body = await asyncio.to_thread(make)
        headers = {name: _header(read().reveal()) for name, read in self._settings.headers.items()}
        fixed = {"content-type": "application/json", "user-agent": f"everyhop/{__version__}"}
        rejected, message = rejected_of(await self._poster.post(body, headers | fixed))
        self._done = items[-1].index
        if rejected:
            first, last = items[0].index, items[-1].index
            self._told.append(
                Told(
                    reason=REJECTED,
                    detail={"from": first, "to": last, "count": rejected, "message": message},
                )
            )
        return self._done

    async def settle(self) -> int:
        """Return the last index: an answer has confirmed it."""
        return self._done

    async def close(self) -> int:
        """Close the connection."""
        done, self._done = self._done, 0
        await self._poster.close()
        return done

    def told(self) -> list[Told]:
        """Return, once, what was rejected."""
        told, self._told = self._told, []
        return told


def _header(secret: bytes) -> str:
    text = secret.strip().decode("latin-1")
    if not text.isprintable():
        raise Unavailable("a header of an export holds what no header may")
    return text


def _value(value: Scalar) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int) and -_MAX_INT <= value < _MAX_INT:
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": str(value)}


def _nanos(moment: datetime) -> str:
    return str(int(moment.timestamp()) * 10**9 + moment.microsecond * 1000)
