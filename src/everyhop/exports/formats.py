# SPDX-License-Identifier: Apache-2.0
"""One record as bytes without a line end, in the form that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    # Structs by the dozen, which only this form needs.
    from everyhop.auditlog.ocsf import encode_event, event_of

    return lambda item: encode_event(event_of(item.record, index=item.index - 1, origin=origin))
