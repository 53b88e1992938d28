# SPDX-License-Identifier: Apache-2.0
"""What detectors remember, sealed: it names people and addresses, and the database is to hold such names nowhere in clear.

Keys become MACs and values AES-256-GCM, each bound to its detector and its key.  An entry that does not open (another key,
another row, an altered byte) is left out: the detector begins anew with it.
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from everyhop.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from everyhop.core.secret import Secret

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class States(Protocol):
    """A store of states (``storage.detector_state``)."""

    def load(self, detector: str) -> Mapping[str, bytes]:
        """Return the state of a detector by key."""

    def save(self, states: Mapping[str, Mapping[str, bytes]], at: datetime) -> int:
        """Store states, by detector."""


class SealedStates:
    """The same store with everything sealed.  Used from one thread."""

    def __init__(self, states: States, key: Secret) -> None:
        """``key`` has 32 bytes and is used for nothing else."""
        if len(key.reveal()) != KEY_BYTES:
            raise SettingsError(f"a key for states has exactly {KEY_BYTES} bytes")
        self._states = states
        self._key = key
        self._cipher = AESGCM(key.reveal())
        self._sealed: dict[str, dict[str, tuple[bytes, str, bytes]]] = {}  # plain, and what became of it

    def load(self, detector: str) -> dict[str, bytes]:
        """Return the state of a detector by key, as far as it opens."""
        found: dict[str, bytes] = {}
        held = self._sealed[detector] = {}
        for name, sealed in self._states.load(detector).items():
            opened = self._open(detector, name, sealed)
            if opened is not None:
                key, value = opened
                found[key] = value
                held[key] = value, name, sealed
        return found

    def save(self, states: Mapping[str, Mapping[str, bytes]], at: datetime) -> int:
        """Store states; what has not changed is sealed as before, so that a save still writes what differs."""
        sealed: dict[str, dict[str, bytes]] = {}
        for detector, state in states.items():
            held = self._sealed.get(detector, {})
            kept = {
                key: one
                if (one := held.get(key)) is not None and one[0] == value
                else self._seal(detector, key, value)
                for key, value in state.items()
            }
            self._sealed[detector] = kept
            sealed[detector] = {name: data for _, name, data in kept.values()}
        return self._states.save(sealed, at)

    def _seal(self, detector: str, key: str, value: bytes) -> tuple[bytes, str, bytes]:
        name = self._name(detector, key)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        plain = msgspec.msgpack.encode((key, value))
        return value, name, nonce + self._cipher.encrypt(nonce, plain, _bound(detector, name))

    def _open(self, detector: str, name: str, sealed: bytes) -> tuple[str, bytes] | None:
        try:
            plain = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound(detector, name))
            return msgspec.msgpack.decode(plain, type=tuple[str, bytes])
        except (InvalidTag, ValueError, msgspec.MsgspecError):
            return None

    def _name(self, detector: str, key: str) -> str:
        return hmac.digest(self._key.reveal(), _bound(detector, key), "sha256").hex()


def _bound(detector: str, key: str) -> bytes:
    return f"{detector}\0{key}".encode("utf-8", "surrogatepass")
