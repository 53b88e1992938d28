# SPDX-License-Identifier: Apache-2.0
"""Where decisions go when nothing else is given: the log."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from everyhop.sdk.model import Decided

log: Final = logging.getLogger("everyhop.decisions")


def log_decision(decided: Decided) -> None:
    """Write a decision to the logger ``everyhop.decisions``: refusals as warnings, the rest at level info.

    The log record's ``decision`` has the fields by name, for handlers that write structured lines.
    """
    level = logging.INFO if decided.allowed else logging.WARNING
    if not log.isEnabledFor(level):
        return
    log.log(
        level,
        "%s %s %s: %s (%s) caller=%s operation=%s user=%s decision=%s%s",
        "allowed" if decided.allowed else "refused",
        decided.method,
        decided.path,
        decided.code,
        decided.reason,
        decided.caller,
        decided.operation,
        decided.user,
        decided.decision_id,
        f": {decided.detail}" if decided.detail else "",
        extra={"decision": asdict(decided)},
    )
