# SPDX-License-Identifier: Apache-2.0
"""The SDK in the frameworks that applications are written in; each module loads its own framework and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everyhop.integrations._workload import own_guard, own_workload

__all__ = ["own_guard", "own_workload"]


def __getattr__(name: str) -> Any:
    """Load what is shared when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from everyhop.integrations import _workload

    return getattr(_workload, name)
