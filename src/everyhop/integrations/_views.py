# SPDX-License-Identifier: Apache-2.0
"""The decorator of views, for frameworks whose views are functions."""

from __future__ import annotations

import inspect
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from everyhop.sdk import require as _require

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


def require(*operations: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that lets only these operations through to a view, whatever route leads to it."""

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(view):

            @wraps(view)
            async def guarded(*arguments: P.args, **named: P.kwargs) -> Any:
                _require(*operations)
                return await view(*arguments, **named)

            return cast("Callable[P, R]", guarded)

        @wraps(view)
        def plainly_guarded(*arguments: P.args, **named: P.kwargs) -> R:
            _require(*operations)
            return view(*arguments, **named)

        return plainly_guarded

    return decorate
