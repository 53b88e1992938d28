# SPDX-License-Identifier: Apache-2.0
"""The key of the audit log in files: outside the database, with the last checkpoint that it signed beside it.

``key`` holds the private keys, a line each, the newest first; all of them sign, so that a log can change its key while
its readers still trust the old one.  ``checkpoint`` is what was signed last.  It is written before anybody gets the
signature, and what does not follow from it is not signed: a database that was restored or rewritten gets none.
"""

from __future__ import annotations

import os
import secrets
import threading
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import Conflict, InputError, ProofError, SettingsError
from everyhop.core.secret import Secret
from everyhop.providers.private_files import create_private, locked, read_private, replace_private
from everyhop.tlog import (
    Checkpoint,
    Note,
    SignedCheckpoint,
    SignerKey,
    VerifierKey,
    open_checkpoint,
    sign_note,
    verify_consistency,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_KEYS: Final = 8
_MAX_KEY_BYTES: Final = 16 * 1024
_MAX_NOTE_BYTES: Final = 64 * 1024
_KEY: Final = "key"
_CHECKPOINT: Final = "checkpoint"
# Two processes that sign at once could each sign a history of its own.
_LOCK: Final = "lock"
_FORMER: Final = "former"
_ID_BYTES: Final = 4
_SEED_BYTES: Final = 32


class FileLogSigner:
    """The ``LogSigner`` port on a directory of mode 0700.  Safe to share between threads and processes."""

    def __init__(self, directory: Path) -> None:
        """Read the keys; make none.  Raises SettingsError for files that are missing, damaged or open to others."""
        self._directory = directory
        self._turn = threading.Lock()
        self._keys = _read_keys(directory / _KEY)

    @classmethod
    def create(cls, directory: Path, trust_domain: str) -> FileLogSigner:
        """Make a log of a new origin, with a key of its own; one that is there already is read instead.

        Raises SettingsError, also when there is a checkpoint without the key that signed it.
        """
        if not os.path.lexists(directory / _KEY):
            if os.path.lexists(directory / _CHECKPOINT):
                raise SettingsError(
                    f"the audit log's key is gone: {directory / _KEY}",
                    hint="restore it from a backup, or begin a new log: everyhop log restart --reason TEXT",
                )
            origin = f"{trust_domain}/log/{secrets.token_hex(_ID_BYTES)}"
            create_private(directory / _KEY, _encode([_new_key(origin)]))
        return cls(directory)

    @property
    def origin(self) -> str:
        """Return the origin of the log, which is the name of its keys."""
        return self._keys[0].name

    @property
    def verifiers(self) -> tuple[VerifierKey, ...]:
        """Return the public keys, the newest first."""
        return tuple(key.verifier for key in self._keys)

    def last(self) -> SignedCheckpoint | None:
        """Return the last checkpoint that was signed; raises SettingsError when it cannot be believed."""
        path = self._directory / _CHECKPOINT
        if not os.path.lexists(path):
            return None
        try:
            return open_checkpoint(read_private(path, max_bytes=_MAX_NOTE_BYTES), self.verifiers)
        except (InputError, ProofError) as error:
            raise SettingsError(
                f"{path} is not what the audit log's key signed last: {error.message}",
                hint="restore it from a backup, or begin a new log: everyhop log restart --reason TEXT",
            ) from error

    def sign(self, checkpoint: Checkpoint, proof: Sequence[bytes]) -> Note:
        """Sign a checkpoint that follows from the last one, and remember it first.

        ``proof`` is the consistency proof from the last one, empty for the first.  Raises Conflict for one that does
        not follow or is of another log.
        """
        with self._turn, locked(self._directory / _LOCK):
            self._keys = _read_keys(self._directory / _KEY)  # another process may have changed them
            last = self.last()
            if checkpoint.origin != self.origin:
                raise Conflict(f"the key of {self.origin} does not sign for {checkpoint.origin}")
            if last is not None:
                before = last.checkpoint
                try:
                    verify_consistency(before.size, before.root, checkpoint.size, checkpoint.root, proof)
                except ProofError as error:
                    raise Conflict(
                        f"not signed: {checkpoint.size} records do not follow from the {before.size} that were signed"
                        f" last: {error.message}"
                    ) from error
            note = sign_note(checkpoint.text, self._keys)
            replace_private(self._directory / _CHECKPOINT, note.encode().encode())
            return note

    def rotate(self) -> VerifierKey:
        """Add a key, which signs beside the others from now on, and return its public part.

        Raises Conflict when there are eight already.
        """
        with self._turn, locked(self._directory / _LOCK):
            keys = _read_keys(self._directory / _KEY)
            if len(keys) >= MAX_KEYS:
                raise Conflict(f"the log has {MAX_KEYS} keys", hint="everyhop log rotate-key --retire")
            new = _new_key(self.origin)
            self._replace([new, *keys])
            return new.verifier

    def retire(self) -> tuple[VerifierKey, ...]:
        """Remove all keys but the newest, and return the public parts of those that went.

        What was signed last is signed once more before, so that the key that stays vouches for it.
        """
        with self._turn, locked(self._directory / _LOCK):
            last = self.last()
            keys = _read_keys(self._directory / _KEY)
            if last is not None:
                note = sign_note(last.checkpoint.text, keys)
                replace_private(self._directory / _CHECKPOINT, note.encode().encode())
            self._replace(keys[:1])
            return tuple(key.verifier for key in keys[1:])

    def _replace(self, keys: list[SignerKey]) -> None:
        replace_private(self._directory / _KEY, _encode(keys))
        self._keys = keys


def restart_log(directory: Path, trust_domain: str) -> tuple[str, Checkpoint | None]:
    """Put the log's key and last checkpoint aside and begin a new origin; return the old origin and checkpoint.

    The old private keys go, because nothing may ever be signed with them again; the old checkpoint and the public keys
    stay in ``former/``.  Raises SettingsError for a directory that is not ours alone.
    """
    signer = FileLogSigner(directory) if os.path.lexists(directory / _KEY) else None
    try:
        last = None if signer is None else signer.last()
    except SettingsError:
        last = None  # it was damaged, which is a reason to be here
    origin = "unknown" if signer is None else signer.origin
    former = directory / _FORMER
    former.mkdir(mode=0o700, exist_ok=True)
    name = f"{origin.rpartition('/')[2]}.{secrets.token_hex(2)}"
    if signer is not None:
        replace_private(former / f"{name}.vkey", "".join(f"{key}\n" for key in signer.verifiers).encode())
    if os.path.lexists(directory / _CHECKPOINT):
        (directory / _CHECKPOINT).replace(former / f"{name}.checkpoint")
    new = f"{trust_domain}/log/{secrets.token_hex(_ID_BYTES)}"
    replace_private(directory / _KEY, _encode([_new_key(new)]))
    return origin, None if last is None else last.checkpoint


def _new_key(origin: str) -> SignerKey:
    return SignerKey(origin, Secret(secrets.token_bytes(_SEED_BYTES)))


def _encode(keys: Sequence[SignerKey]) -> bytes:
    return b"".join(key.encode().reveal() + b"\n" for key in keys)


def _read_keys(path: Path) -> list[SignerKey]:
    content = read_private(path, max_bytes=_MAX_KEY_BYTES)
    lines = content.split(b"\n")
    try:
        if lines.pop() or not 0 < len(lines) <= MAX_KEYS:
            raise InputError("no keys")
        keys = [SignerKey.parse(Secret(line)) for line in lines]
    except InputError as error:
        raise SettingsError(
            f"{path} does not hold keys of an audit log", hint="restore it from a backup"
        ) from error
    if len({key.name for key in keys}) != 1:
        raise SettingsError(f"{path} holds keys of several logs", hint="restore it from a backup")
    return keys
