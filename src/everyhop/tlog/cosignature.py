# SPDX-License-Identifier: Apache-2.0
"""Cosignatures of witnesses (c2sp.org/tlog-cosignature), type 0x04: Ed25519 with a time.

A cosignature says: at this time, this was the largest consistent tree of this log that the witness had seen.
ML-DSA-44 (type 0x06) is not implemented; its lines are ignored like those of any unknown key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from everyhop.core.errors import InputError, ProofError
from everyhop.tlog.keys import COSIGNATURE, SIGNATURE_BYTES, SignerKey, VerifierKey, check_signature
from everyhop.tlog.merkle import MAX_SIZE
from everyhop.tlog.note import Signature

_TIME_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class CosignerKey(VerifierKey):
    """The public key of a witness; a vkey of type 0x04."""

    algorithm: ClassVar[int] = COSIGNATURE

    def verify(self, text: str, signature: bytes) -> None:
        """Raise ProofError unless this witness made ``signature``, time included, for the checkpoint ``text``."""
        time = time_of(signature)
        check_signature(self.public, signature[_TIME_BYTES:], _message(text, time))


class Cosigner:
    """The private key of a witness."""

    __slots__ = ("_key", "verifier")

    def __init__(self, key: SignerKey) -> None:
        """Take a key that signs nothing else: the message does not name the witness, so keys are not shared."""
        self._key = key
        self.verifier = CosignerKey(key.name, key.verifier.public)

    def cosign(self, text: str, *, time: int) -> Signature:
        """Return the signature line for a checkpoint at ``time``, whole seconds since 1970, more than zero.

        Raises InputError for a time out of range.
        """
        if not 0 < time <= MAX_SIZE:
            raise InputError("the time of a cosignature is more than zero and at most 2^63 - 1")
        signature = time.to_bytes(_TIME_BYTES, "big") + self._key.sign_bytes(_message(text, time))
        return Signature(name=self.verifier.name, key_id=self.verifier.key_id, signature=signature)


def time_of(signature: bytes) -> int:
    """Return the time of a cosignature, seconds since 1970.  Raises ProofError for bytes that are none."""
    time = int.from_bytes(signature[:_TIME_BYTES], "big")
    if len(signature) != _TIME_BYTES + SIGNATURE_BYTES or not 0 < time <= MAX_SIZE:
        raise ProofError("not a cosignature with a time")
    return time


def _message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()
