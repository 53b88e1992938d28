# SPDX-License-Identifier: Apache-2.0
"""Exports: records on their way to receivers that others run.

Each module knows one form or one receiver, and none of them remembers how far it is: the log does
(``everyhop.control.exporting``).
"""

from everyhop.exports.model import (
    ExportSettings,
    Format,
    Item,
    JsonlSettings,
    Only,
    OtlpSettings,
    SyslogSettings,
    TlsSettings,
    Told,
    WebhookSettings,
)
from everyhop.exports.ports import RefusedError, Sink

__all__ = [
    "ExportSettings",
    "Format",
    "Item",
    "JsonlSettings",
    "Only",
    "OtlpSettings",
    "RefusedError",
    "Sink",
    "SyslogSettings",
    "TlsSettings",
    "Told",
    "WebhookSettings",
]
