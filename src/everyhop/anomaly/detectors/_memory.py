# SPDX-License-Identifier: Apache-2.0
"""What detectors remember: a bounded number of values by key.

Keys come from records, so some are chosen by strangers: the key that was touched longest ago leaves first.  Values are
msgspec Structs that bound themselves.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

V = TypeVar("V", bound=msgspec.Struct)

MAX_KEY: Final = 600


class Memory(Generic[V]):
    """At most ``limit`` values.  Used from one thread."""

    def __init__(self, kind: type[V], *, limit: int) -> None:
        """``kind`` can be made without arguments; that is what a new key begins with."""
        self._new: Callable[[], V] = kind
        self._limit = limit
        self._values: OrderedDict[str, V] = OrderedDict()
        self._encoded: dict[str, bytes] = {}
        self._encoder: Final = msgspec.msgpack.Encoder()
        self._decoder: Final = msgspec.msgpack.Decoder(kind)

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> V | None:
        """Return a value that is there, to be looked at only."""
        return self._values.get(_plain(key))

    def touch(self, key: str) -> V:
        """Return the value of a key, to be changed."""
        key = _plain(key)
        value = self._values.get(key)
        if value is None:
            value = self._values[key] = self._new()
            while len(self._values) > self._limit:
                gone, _ = self._values.popitem(last=False)
                self._encoded.pop(gone, None)
        self._values.move_to_end(key)
        self._encoded.pop(key, None)
        return value

    def state(self) -> dict[str, bytes]:
        """Return every value, the one touched longest ago first; what has not changed is the same object as last time."""
        encoded = self._encoded
        for key, value in self._values.items():
            if key not in encoded:
                encoded[key] = self._encoder.encode(value)
        return {key: encoded[key] for key in self._values}

    def restore(self, state: Mapping[str, bytes]) -> None:
        """Take back what :meth:`state` gave; a value that cannot be read is left out and begins anew."""
        for key, data in list(state.items())[-self._limit :]:
            try:
                self._values[_plain(key)] = self._decoder.decode(data)
            except (msgspec.MsgspecError, ValueError):
                continue
            self._encoded[_plain(key)] = data


def _plain(key: str) -> str:
    """Return a key that every store takes: bounded, and without characters such as NUL that some refuse."""
    return key[:MAX_KEY] if key.isprintable() else ascii(key)[:MAX_KEY]
