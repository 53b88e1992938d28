# SPDX-License-Identifier: Apache-2.0
"""The headers in which an application behind a foreign proxy learns who calls, and their forgeries.

Whatever a client sent in this family is removed before ours is set: also under names that WSGI and others fold into the
same variable (``x_everyhop_user``), and the headers by which frameworks let a request claim another method or path.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from everyhop.control.credentials import ROLES_HEADER, TXN_HEADER, USER_HEADER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

PREFIX: Final = "x-everyhop-"
CALLER_HEADER: Final = "x-everyhop-caller"
OPERATION_HEADER: Final = "x-everyhop-operation"
DECISION_HEADER: Final = "x-everyhop-decision"

FAMILY: Final = (CALLER_HEADER, OPERATION_HEADER, DECISION_HEADER, USER_HEADER, ROLES_HEADER)
"""What an allowed call may carry, set by us alone."""

REROUTING: Final = (
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
)
"""Other readings of method and path, which nobody decided on."""

_ALWAYS: Final = tuple(
    spelled for name in (*FAMILY, *REROUTING) for spelled in (name, name.replace("-", "_"))
)
_FOLDED: Final = frozenset((*FAMILY, *REROUTING, TXN_HEADER))


@lru_cache(maxsize=4096)  # the same few names come with each request
def folded(name: bytes) -> str:
    """Return a field name as a framework that knows no difference between ``-`` and ``_`` reads it."""
    return name.decode("latin-1").lower().replace("_", "-")


def removed_headers(
    sent: Iterable[tuple[bytes, bytes]], *, also: Collection[str], kept: Collection[str]
) -> tuple[str, ...]:
    """Return the names to remove from a request: the whole family, ``also``, and every other spelling in ``sent``.

    Names in ``kept`` are not among them: a proxy may remove after it has set.
    """
    names = dict.fromkeys((*_ALWAYS, *also))
    for raw, _ in sent:
        plain = folded(raw)
        if plain.startswith(PREFIX):
            names[raw.decode("latin-1").lower()] = None
        elif plain in _FOLDED and (spelled := raw.decode("latin-1").lower()) != plain:
            names[spelled] = None
    return tuple(name for name in names if name not in kept)
