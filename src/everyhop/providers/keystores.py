# SPDX-License-Identifier: Apache-2.0
"""Key stores: private keys wrapped with AES-256-GCM under a key-encryption key (KEK).

A blob is ``version (1 byte) | KEK id (8) | nonce (12) | ciphertext and tag``.  The version, the KEK id, the key's id
and its purpose are authenticated with it, so a blob that was altered, cut, or moved to another row does not open.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from everyhop.core.errors import InputError, SettingsError, TrustError
from everyhop.core.secret import Secret
from everyhop.providers.private_files import create_private, read_private
from everyhop.x509.keys import encode_private_key, generate_private_key

KEK_BYTES: Final = 32
MAX_SECRET_BYTES: Final = 8 * 1024

_VERSION: Final = b"\x01"
_ID_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_HEADER_BYTES: Final = 1 + _ID_BYTES + _NONCE_BYTES


class _KekKeyStore:
    """Wraps under one KEK that is held in memory."""

    __slots__ = ("_cipher", "_derivation", "_kek_id")

    def __init__(self, kek: Secret) -> None:
        value = kek.reveal()
        if len(value) != KEK_BYTES:
            raise SettingsError(f"a key-encryption key has exactly {KEK_BYTES} bytes")
        self._cipher = AESGCM(value)
        self._derivation = Secret(hmac.digest(value, b"everyhop derivation\0", hashlib.sha256))
        self._kek_id = hashlib.sha256(b"everyhop kek id\0" + value).digest()[:_ID_BYTES]

    def generate(self) -> Secret:
        """Return a fresh P-256 private key as PKCS#8 DER."""
        return encode_private_key(generate_private_key())

    def derive(self, purpose: str) -> Secret:
        """Return a key of 32 bytes for one purpose, always the same under the same KEK and never stored."""
        return Secret(hmac.digest(self._derivation.reveal(), purpose.encode(), hashlib.sha256))

    def wrap(self, key_id: str, purpose: str, secret: Secret) -> bytes:
        """Encrypt a private key of at most 8 KiB for one row and one purpose."""
        plain = secret.reveal()
        if len(plain) > MAX_SECRET_BYTES:
            raise InputError(f"a wrapped key has at most {MAX_SECRET_BYTES} bytes")
        nonce = secrets.token_bytes(_NONCE_BYTES)
        header = _VERSION + self._kek_id
        return header + nonce + self._cipher.encrypt(nonce, plain, _bound(header, key_id, purpose))

    def unwrap(self, key_id: str, purpose: str, blob: bytes) -> Secret:
        """Decrypt.

        Raises InputError for a blob that is cut off, too long or of another version; TrustError when it was wrapped
        under another KEK, for another key or purpose, or has been altered.
        """
        if not _HEADER_BYTES + _TAG_BYTES <= len(blob) <= _HEADER_BYTES + MAX_SECRET_BYTES + _TAG_BYTES:
            raise InputError(f"the wrapped key {key_id[:64]} is cut off or too long")
        if blob[:1] != _VERSION:
            raise InputError(f"the wrapped key {key_id[:64]} is of an unknown form")
        header, nonce, sealed = (
            blob[: 1 + _ID_BYTES],
            blob[1 + _ID_BYTES : _HEADER_BYTES],
            blob[_HEADER_BYTES:],
        )
        if header[1:] != self._kek_id:
            raise TrustError(
                f"the key {key_id[:64]} was wrapped under another key-encryption key",
                hint="restore the key file that belongs to this database",
            )
        try:
            return Secret(self._cipher.decrypt(nonce, sealed, _bound(header, key_id, purpose)))
        except InvalidTag as error:
            raise TrustError(
                f"the wrapped key {key_id[:64]} was altered, or belongs to another key or purpose"
            ) from error


class MemoryKeyStore(_KekKeyStore):
    """A key store whose KEK dies with the process: for tests, and for state that is meant to be lost."""

    __slots__ = ()

    def __init__(self, kek: Secret | None = None) -> None:
        super().__init__(kek or Secret(secrets.token_bytes(KEK_BYTES)))


class FileKeyStore(_KekKeyStore):
    """A key store whose KEK is a file of 32 bytes that only its owner can read."""

    __slots__ = ()

    def __init__(self, path: Path, *, create: bool = True) -> None:
        """Read the KEK, made first when there is none; two processes that start at once get the same one.

        Raises SettingsError when the file is a symbolic link, not ours, open to others, of a wrong size, in a directory
        where others could replace it, or missing and not to be made.
        """
        if create and not os.path.lexists(path):
            # Another process that was first has made one that is as good.
            create_private(path, secrets.token_bytes(KEK_BYTES))
        super().__init__(_read_kek(path))


def _bound(header: bytes, key_id: str, purpose: str) -> bytes:
    """Return the associated data; lengths keep one pair of texts from reading as another."""
    parts = (key_id.encode(), purpose.encode())
    return header + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _read_kek(path: Path) -> Secret:
    content = read_private(path, max_bytes=KEK_BYTES)
    if len(content) != KEK_BYTES:
        raise SettingsError(
            f"the key file {path} does not have {KEK_BYTES} bytes", hint="restore it from a backup"
        )
    return Secret(content)
