# SPDX-License-Identifier: Apache-2.0
"""Ed25519 keys of notes: verifier keys (*vkeys*), and signer keys in the spelling of Go's ``sumdb/note``.

The type byte before a key separates what it may sign: 0x01 notes, 0x04 cosignatures of witnesses.  Type 0x06,
ML-DSA-44, is not implemented: the cryptography library of this project has no stable ML-DSA yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from everyhop.core.errors import InputError, ProofError
from everyhop.core.secret import Secret
from everyhop.tlog.encoding import check_name, decode_base64, encode_base64
from everyhop.tlog.note import KEY_ID_BYTES

ED25519: Final = 0x01
COSIGNATURE: Final = 0x04
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_MAX_KEY_TEXT: Final = 1024
_PRIVATE: Final = "PRIVATE+KEY+"
_VKEY_PARTS: Final = 3


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """An Ed25519 public key (32 bytes) that verifies notes under ``name``; equal by value."""

    name: str
    public: bytes

    algorithm: ClassVar[int] = ED25519

    def __post_init__(self) -> None:
        """Refuse a name or key that is none; raises InputError."""
        check_name(self.name)
        if len(self.public) != KEY_BYTES:
            raise InputError(f"an Ed25519 public key has {KEY_BYTES} bytes")

    @property
    def key_id(self) -> bytes:
        """Return the four bytes before each signature (c2sp.org/signed-note)."""
        return key_id_of(self.name, self.algorithm, self.public)

    def __str__(self) -> str:
        """Return the vkey: name, hex of the key id and Base64 of type and key, joined by plus."""
        encoded = encode_base64(bytes([self.algorithm]) + self.public)
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a vkey of this type.  Raises InputError; also when the key id is not the one of name and key."""
        parts = text.split("+", 2)  # Base64 may hold a plus, a name may not
        if len(text) > _MAX_KEY_TEXT or len(parts) != _VKEY_PARTS:
            raise InputError("a verifier key is NAME+ID+KEY")
        data = decode_base64(parts[2])
        if data[:1] != bytes([cls.algorithm]):
            raise InputError(f"the verifier key is not of type 0x{cls.algorithm:02x} but 0x{data[:1].hex()}")
        key = cls(parts[0], data[1:])
        if key.key_id.hex() != parts[1]:
            raise InputError("the id of the verifier key is not that of its name and key")
        return key

    def verify(self, text: str, signature: bytes) -> None:
        """Raise ProofError unless this key made ``signature`` for ``text`` (RFC 8032)."""
        check_signature(self.public, signature, text.encode())


class SignerKey:
    """An Ed25519 private key that signs notes under ``name``."""

    __slots__ = ("_private", "verifier")

    def __init__(self, name: str, seed: Secret) -> None:
        """Take a seed of 32 bytes.  Raises InputError for another length or a name that is none."""
        value = seed.reveal()
        if len(value) != KEY_BYTES:
            raise InputError(f"an Ed25519 private key has {KEY_BYTES} bytes")
        self._private = Ed25519PrivateKey.from_private_bytes(value)
        self.verifier = VerifierKey(name, self._private.public_key().public_bytes_raw())

    @property
    def name(self) -> str:
        """Return the name in signature lines."""
        return self.verifier.name

    @property
    def key_id(self) -> bytes:
        """Return the four bytes before each signature."""
        return self.verifier.key_id

    def sign(self, text: str) -> bytes:
        """Return the signature for the text of a note, without the key id."""
        return self.sign_bytes(text.encode())

    def sign_bytes(self, message: bytes) -> bytes:
        """Return the 64 bytes of an Ed25519 signature (RFC 8032)."""
        return self._private.sign(message)

    def encode(self) -> Secret:
        """Return the key as text, ``PRIVATE+KEY+NAME+ID+KEY``, which :meth:`parse` reads."""
        data = encode_base64(bytes([ED25519]) + self._private.private_bytes_raw())
        return Secret(f"{_PRIVATE}{self.name}+{self.key_id.hex()}+{data}".encode())

    @classmethod
    def parse(cls, text: Secret) -> Self:
        """Read what :meth:`encode` wrote.  Raises InputError, which holds nothing of the key."""
        value = text.reveal()
        try:
            whole = value.decode("utf-8")
        except UnicodeDecodeError:
            raise InputError("not a signer key") from None
        parts = whole.removeprefix(_PRIVATE).split("+", 2)
        if not whole.startswith(_PRIVATE) or len(parts) != _VKEY_PARTS or len(value) > _MAX_KEY_TEXT:
            raise InputError("not a signer key")
        data = decode_base64(parts[2])
        if data[:1] != bytes([ED25519]):
            raise InputError("the signer key is not of type 0x01")
        key = cls(parts[0], Secret(data[1:]))
        if key.key_id.hex() != parts[1]:
            raise InputError("the id of the signer key is not that of its name and key")
        return key


def key_id_of(name: str, algorithm: int, public: bytes) -> bytes:
    """Return the key id that c2sp.org/signed-note recommends."""
    return sha256(name.encode() + b"\n" + bytes([algorithm]) + public).digest()[:KEY_ID_BYTES]


def check_signature(public: bytes, signature: bytes, message: bytes) -> None:
    """Raise ProofError unless ``signature`` is the one of this Ed25519 key over ``message``."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise ProofError("the signature is not by the key that it names") from error
