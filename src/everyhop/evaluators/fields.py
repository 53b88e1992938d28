# SPDX-License-Identifier: Apache-2.0
"""The members of a manifest, each read once and by its type.

What no reader asked for is an error: a field that an evaluator does not know could widen or narrow what it answers.  A null is a
missing member, as Kubernetes has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from everyhop.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

    from everyhop.manifests.model import Manifest

T = TypeVar("T")


class Fields:
    """A mapping of a manifest; use it as a context, whose end raises InputError for members that were not read.

    ``where`` is how messages call the place.
    """

    __slots__ = ("_left", "_value", "where")

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise InputError(f"{where}: expected a mapping")
        self._value: dict[str, Any] = value
        self._left = {key for key, one in value.items() if one is not None}
        self.where = where

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._left:
            raise InputError(f"{self.where}: {min(self._left)!r} is not known here")

    def __contains__(self, key: str) -> bool:
        """Tell whether a member is there, null being absence; that does not read it."""
        return self._value.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the members, in the order of the manifest; that does not read them."""
        return iter(self._value)

    def take(self, key: str) -> Any:
        """Return a member as it is, None where it is missing."""
        self._left.discard(key)
        return self._value.get(key)

    def skip(self, *keys: str) -> None:
        """Read members that say nothing about what is allowed."""
        self._left.difference_update(keys)

    def text(self, key: str) -> str | None:
        """Return a text, None where it is missing."""
        value = self.take(key)
        if value is not None and not isinstance(value, str):
            raise InputError(f"{self.where}.{key}: expected a text")
        return value

    def needed_text(self, key: str) -> str:
        """Return a text that has to be there and not to be empty."""
        value = self.text(key)
        if not value:
            raise InputError(f"{self.where}: {key} is missing")
        return value

    def one_of(self, key: str, *choices: str) -> str | None:
        """Return a text that is one of ``choices``, None where it is missing."""
        value = self.text(key)
        if value is not None and value not in choices:
            raise InputError(f"{self.where}.{key}: {value!r} is none of {', '.join(choices)}")
        return value

    def truth(self, key: str) -> bool | None:
        """Return a truth value, None where it is missing."""
        value = self.take(key)
        if value is not None and not isinstance(value, bool):
            raise InputError(f"{self.where}.{key}: expected true or false")
        return value

    def number(self, key: str, low: int, high: int) -> int | None:
        """Return a whole number from ``low`` to ``high``, None where it is missing."""
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InputError(f"{self.where}.{key}: expected a number from {low} to {high}")
        return value

    def inner(self, key: str) -> Fields | None:
        """Return a mapping, None where it is missing."""
        value = self.take(key)
        return None if value is None else Fields(value, f"{self.where}.{key}")

    def items(self, key: str) -> list[Any] | None:
        """Return a list as it is, None where it is missing."""
        value = self.take(key)
        if value is not None and not isinstance(value, list):
            raise InputError(f"{self.where}.{key}: expected a list")
        return value

    def texts(self, key: str) -> tuple[str, ...] | None:
        """Return a list of texts, None where it is missing."""
        found = self.items(key)
        if found is not None and not all(isinstance(one, str) for one in found):
            raise InputError(f"{self.where}.{key}: expected texts")
        return None if found is None else tuple(found)

    def each(self, key: str, read: Callable[[Fields], T]) -> tuple[T, ...] | None:
        """Read every mapping of a list with ``read``, None where the list is missing."""
        found = self.items(key)
        if found is None:
            return None
        read_ones = []
        for position, one in enumerate(found):
            with Fields(one, f"{self.where}.{key}[{position}]") as fields:
                read_ones.append(read(fields))
        return tuple(read_ones)


def spec_of(manifest: Manifest) -> Fields:
    """Return the spec of an object; raises InputError where there is none."""
    return Fields(manifest.document.get("spec"), f"{manifest.span}: {manifest}: spec")
