# SPDX-License-Identifier: Apache-2.0
"""A wrapper that keeps a secret out of logs, tracebacks and pickles."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Bytes that show themselves only through :meth:`reveal`."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """Return the secret bytes; the one place to look for in a review."""
        return self._value

    def matches(self, candidate: bytes) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self._value, candidate)

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")
