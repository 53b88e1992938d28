# SPDX-License-Identifier: Apache-2.0
"""One record as bytes without a line end, in the form that the settings name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import msgspec

from everyhop.exports.cef import cef_of
from everyhop.exports.model import Format

if TYPE_CHECKING:
    from collections.abc import Callable

    from everyhop.exports.model import Item


def renderer(wanted: Format, *, origin: str | None) -> Callable[[Item], bytes]:
    """Return what writes a record; ``origin`` names the log in OCSF events.  None of the forms holds a line end."""
    if wanted is Format.RECORD:
        return lambda item: item.line
    if wanted is Format.CEF:
        return cef_of
    event_of = importlib.import_module("everyhop.auditlog.ocsf").event_of  # structs that only this form needs
    return lambda item: msgspec.json.encode(event_of(item.record, index=item.index - 1, origin=origin))
