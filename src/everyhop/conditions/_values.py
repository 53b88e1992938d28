# SPDX-License-Identifier: Apache-2.0
"""Strict conversion of the values that a condition sees.

CEL's own conversion is lenient (bytes for a string, a number for a bool, a naive moment) and for a lone surrogate it
breaks in C++, so nothing reaches it but exact, bounded Python values made here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from everyhop.conditions.limits import MAX_ELEMENTS, MAX_LOOPED, MAX_STRING, MAX_TOTAL
from everyhop.conditions.model import ValueType

_INT_LIMIT: Final = 2**63
_EXACT_DOUBLE: Final = 2**53
_EARLIEST: Final = datetime(1, 1, 2, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 30, tzinfo=UTC)


class BadValueError(Exception):
    """A value that is there but is not of its variable's type; the text names the variable, not the value."""


@dataclass(frozen=True, slots=True)
class Slot:
    """How one variable is read: its type, the literal keys that are asked of a map, and what else is.

    ``keys`` is None where the whole map is used; ``is_looped`` sets the lower bound for the list's length.
    """

    name: str
    type: ValueType
    keys: frozenset[str] | None = None
    is_looped: bool = False

    def converter(self) -> Callable[[object], Any]:
        """Return what turns a value into what CEL is to see, or raises BadValueError."""
        return getattr(self, _CONVERTERS[self.type])  # type: ignore[no-any-return]  # one of the methods below

    def _bad(self, what: str) -> BadValueError:
        return BadValueError(f"{self.name} {what}")

    def _bool(self, value: object) -> bool:
        if value is True or value is False:
            return value
        raise self._bad("is not true or false")

    def _int(self, value: object) -> int:
        if type(value) is int and -_INT_LIMIT <= value < _INT_LIMIT:
            return value
        raise self._bad("is not a whole number of 64 bits")

    def _double(self, value: object) -> float:
        if type(value) is float and math.isfinite(value):
            return value
        if type(value) is int and -_EXACT_DOUBLE <= value <= _EXACT_DOUBLE:
            return float(value)  # 1 where 1.0 is meant is what JSON and YAML give
        raise self._bad("is not a finite number")

    def _string(self, value: object) -> str:
        if not isinstance(value, str):
            raise self._bad("is not text")
        text = str.__str__(value)  # a member of a StrEnum becomes plain text, whatever its class says
        if len(text) > MAX_STRING:
            raise self._bad(f"is longer than {MAX_STRING} characters")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise self._bad("is not valid Unicode") from None
        return text

    def _strings(self, value: object) -> list[str]:
        if not isinstance(value, list | tuple | set | frozenset):
            raise self._bad("is not a list of text")
        bound = MAX_LOOPED if self.is_looped else MAX_ELEMENTS
        if len(value) > bound:
            raise self._bad(f"has more than {bound} elements")
        texts = [self._string(element) for element in value]
        self._bound(sum(map(len, texts)))
        return sorted(texts) if isinstance(value, set | frozenset) else texts

    def _map(self, value: object) -> dict[str, str]:
        if not isinstance(value, Mapping):
            raise self._bad("is not a map from text to text")
        if self.keys is not None:
            return {key: self._string(value[key]) for key in self.keys if key in value}
        if len(value) > MAX_ELEMENTS:
            raise self._bad(f"has more than {MAX_ELEMENTS} entries")
        texts = {self._string(key): self._string(element) for key, element in value.items()}
        self._bound(sum(len(key) + len(element) for key, element in texts.items()))
        return texts

    def _bound(self, total: int) -> None:
        if total > MAX_TOTAL:
            raise self._bad(f"holds more than {MAX_TOTAL} characters")

    def _moment(self, value: object) -> datetime:
        if not isinstance(value, datetime) or value.utcoffset() is None:
            raise self._bad("is not a moment with a time zone")
        if not _EARLIEST <= value <= _LATEST:
            raise self._bad("is outside the years 1 to 9999")
        return value.astimezone(UTC)


_CONVERTERS: Final = {
    ValueType.BOOL: "_bool",
    ValueType.INT: "_int",
    ValueType.DOUBLE: "_double",
    ValueType.STRING: "_string",
    ValueType.STRINGS: "_strings",
    ValueType.TIMESTAMP: "_moment",
    ValueType.STRING_MAP: "_map",
}
