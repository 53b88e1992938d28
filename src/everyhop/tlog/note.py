# SPDX-License-Identifier: Apache-2.0
"""Signed notes (c2sp.org/signed-note): a text that people can read, with signatures below it.

A text counts only when a key that was known beforehand has signed it.  Signatures of unknown keys say nothing, for or
against; that is what lets a log change its key and witnesses add their word.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol, Self

from everyhop.core.errors import InputError, ProofError
from everyhop.tlog.encoding import check_name, decode_base64, encode_base64, is_text

MAX_NOTE_BYTES: Final = 512 * 1024
MAX_SIGNATURES: Final = 100
"""More than the 16 that everybody has to take; the bytes bound them as well."""
KEY_ID_BYTES: Final = 4

_DASH: Final = "\N{EM DASH} "
_PARTS: Final = 2


class Verifier(Protocol):
    """A public key that is known: its name and id find its signatures."""

    @property
    def name(self) -> str:
        """Return the name in signature lines."""

    @property
    def key_id(self) -> bytes:
        """Return the four bytes before each signature."""

    def verify(self, text: str, signature: bytes) -> None:
        """Raise ProofError unless this key made ``signature`` (without the key id) for ``text``."""


class Signer(Protocol):
    """A key that signs; where its private part is does not matter here."""

    @property
    def name(self) -> str:
        """Return the name in signature lines."""

    @property
    def key_id(self) -> bytes:
        """Return the four bytes before each signature."""

    def sign(self, text: str) -> bytes:
        """Return the signature for ``text``, without the key id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature line, believed by nobody yet."""

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> str:
        """Return the line with its newline."""
        return f"{_DASH}{self.name} {encode_base64(self.key_id + self.signature)}\n"

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read one line without its newline.  Raises InputError."""
        parts = line.removeprefix(_DASH).split(" ")
        if not line.startswith(_DASH) or len(parts) != _PARTS:
            raise InputError("a signature line is a dash, a name and Base64")
        data = decode_base64(parts[1])
        if len(data) <= KEY_ID_BYTES:
            raise InputError("a signature line without a signature")
        return cls(name=check_name(parts[0]), key_id=data[:KEY_ID_BYTES], signature=data[KEY_ID_BYTES:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A text, which ends in a newline, and its signatures, of which none is believed yet."""

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> str:
        """Return the note as it is stored and sent."""
        return f"{self.text}\n{''.join(signature.line() for signature in self.signatures)}"

    def signed_by(self, verifiers: Iterable[Verifier]) -> list[tuple[Verifier, bytes]]:
        """Return the known keys that signed, each once, with their signatures.

        Raises ProofError when a known key is named and did not sign, or when no known key is there.
        """
        known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
        found: dict[tuple[str, bytes], tuple[Verifier, bytes]] = {}
        for signature in self.signatures:
            key = signature.name, signature.key_id
            if (verifier := known.get(key)) is not None:
                verifier.verify(self.text, signature.signature)
                found.setdefault(key, (verifier, signature.signature))
        if not found:
            raise ProofError("no key that is trusted has signed this note")
        return list(found.values())

    def with_signatures(self, further: Iterable[Signature]) -> Note:
        """Return the note with further signature lines behind its own; none is written twice."""
        lines = dict.fromkeys((*self.signatures, *further))
        return Note(text=self.text, signatures=tuple(lines))


def sign_note(text: str, signers: Iterable[Signer]) -> Note:
    """Sign a text.  Raises InputError for one that cannot be a note's."""
    _check_text(text)
    signatures = [
        Signature(name=signer.name, key_id=signer.key_id, signature=signer.sign(text)) for signer in signers
    ]
    if not signatures:
        raise InputError("a note has a signature")
    return Note(text=text, signatures=tuple(signatures))


def parse_note(data: bytes) -> Note:
    """Read a note of at most 512 KiB with at most 100 signatures.

    Raises InputError for bytes that are no note; nothing about its signatures is checked but their form.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise InputError(f"a note has at most {MAX_NOTE_BYTES} bytes")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("a note is UTF-8") from error
    # The last empty line divides: a text may hold empty lines of its own, signatures hold none.
    head, divider, tail = whole.rpartition("\n\n")
    if not divider or not tail.endswith("\n"):
        raise InputError("a note is a text, an empty line, and lines of signatures")
    text = head + "\n"
    _check_text(text)
    return Note(text=text, signatures=parse_signatures(tail))


def parse_signatures(lines: str) -> tuple[Signature, ...]:
    """Read signature lines, each with its newline.  Raises InputError for none, more than 100, or anything else."""
    parts = lines.split("\n")
    if parts.pop() or not 0 < len(parts) <= MAX_SIGNATURES:
        raise InputError(f"1 to {MAX_SIGNATURES} lines of signatures")
    return tuple(Signature.parse(line) for line in parts)


def _check_text(text: str) -> None:
    if not text.endswith("\n") or not all(c == "\n" or is_text(c) for c in text):
        raise InputError("a note's text ends in a newline and has no control characters")
