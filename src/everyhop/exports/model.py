# SPDX-License-Identifier: Apache-2.0
"""What is exported, in which form, and the settings of each kind of receiver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from everyhop.auditlog import Kind, Record
from everyhop.core.secret import Secret

DEFAULT_SYSLOG_BYTES: Final = 8192  # RFC 5425 section 4.3.1: what a receiver should be able to process


class Format(StrEnum):
    """How one record is written."""

    OCSF = "ocsf"  # an event of the Open Cybersecurity Schema Framework, as JSON
    RECORD = "record"  # the log's own line: to the byte what was sealed
    CEF = "cef"  # ArcSight's Common Event Format


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One record on its way out: its number in the log (from 1), and its line as it is stored."""

    index: int
    record: Record
    line: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Something that happened to an export and belongs in the log: a stable code and scalars."""

    reason: str
    detail: Mapping[str, str | int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Only:
    """Which records go to a receiver; an empty one lets all through."""

    kinds: frozenset[Kind] = frozenset()
    denied: bool = False

    def matches(self, record: Record) -> bool:
        """Tell whether a record is wanted; ``denied`` keeps what is no decision as well, such as findings."""
        if self.kinds and record.kind not in self.kinds:
            return False
        return not (self.denied and record.decision == "allow")


SecretReader = Callable[[], Secret]
"""Reads a secret where it is kept, each time anew, so that it can be changed while the server runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """What every receiver has.  ``name`` is the cursor's name as well: a new name begins at the first record."""

    name: str
    format: Format
    only: Only = field(default_factory=Only)
    timeout: timedelta = timedelta(seconds=10)
    """How long one delivery may take as a whole."""
    longest_pause: timedelta = timedelta(minutes=5)
    """The longest wait between two tries."""
    batch: int = 500
    """Records of one delivery at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonlSettings(ExportSettings):
    """Lines in a file."""

    path: Path
    max_bytes: int = 100 * 1024 * 1024
    """A file of this size is put aside."""
    period: timedelta = timedelta(days=1)
    """A file last written in an earlier period is put aside; periods are counted from 1970."""
    keep: int = 0
    """How many files put aside are kept; 0 keeps all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """How the receiver is verified, and how we show who we are.  Files are PEM."""

    ca: Path | None = None
    """The authorities that may vouch for the receiver; None means those of the system."""
    server_name: str | None = None
    """The name in its certificate where it is not the host that is connected to."""
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyslogSettings(ExportSettings):
    """A syslog receiver: over TLS at ``host`` and ``port``, or at the Unix socket ``socket``."""

    host: str = ""
    port: int = 6514
    socket: Path | None = None
    tls: TlsSettings = field(default_factory=TlsSettings)
    max_bytes: int = DEFAULT_SYSLOG_BYTES
    facility: int = 10  # authpriv
    hostname: str = "-"
    enterprise: str = "everyhop@32473"
    """SD-ID of the structured data; 32473 is the number for examples (RFC 5612): put your own here."""
    window: timedelta = timedelta(seconds=5)
    """How long a message must have been written, on a connection still whole, to count as delivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings(ExportSettings):
    """A receiver of Standard Webhooks.  ``secrets``: the first signs, and every further one as well."""

    url: str
    secrets: tuple[SecretReader, ...] = field(repr=False)
    tls: TlsSettings = field(default_factory=TlsSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpSettings(ExportSettings):
    """A receiver of OpenTelemetry logs over HTTP with JSON; ``url`` is the whole address, ``…/v1/logs``."""

    url: str
    headers: Mapping[str, SecretReader] = field(default_factory=dict, repr=False)
    resource: Mapping[str, str] = field(default_factory=dict)
    tls: TlsSettings = field(default_factory=TlsSettings)
