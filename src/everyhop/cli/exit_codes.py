# SPDX-License-Identifier: Apache-2.0
"""The exit codes of every command (docs/reference/cli.md)."""

from __future__ import annotations

from typing import Final

from everyhop.core.errors import (
    AccessDenied,
    Conflict,
    EveryhopError,
    InputError,
    NotFound,
    PolicyError,
    SettingsError,
    TrustError,
    Unavailable,
)

OK: Final = 0
FAILED: Final = 1
INVALID: Final = 2
DENIED: Final = 3
UNAVAILABLE: Final = 4
CONFLICT: Final = 5
NOT_FOUND: Final = 6
LOW_COVERAGE: Final = 7
NARROWER: Final = 10  # ``policy plan``: something changes, and nothing is opened
WIDER: Final = 11  # ``policy plan``: something may be opened; of ``policy apply``: and nobody confirmed it

_TABLE: Final[tuple[tuple[type[EveryhopError], int], ...]] = (
    (PolicyError, INVALID),
    (SettingsError, INVALID),
    (InputError, INVALID),
    (AccessDenied, DENIED),
    (TrustError, FAILED),
    (Conflict, CONFLICT),
    (NotFound, NOT_FOUND),
    (Unavailable, UNAVAILABLE),
)


def exit_code_of(error: EveryhopError) -> int:
    """Return the exit code of an error; 1 for a class that the table does not know."""
    return next((code for kind, code in _TABLE if isinstance(error, kind)), FAILED)
