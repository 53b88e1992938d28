# SPDX-License-Identifier: Apache-2.0
"""A witness: its key and the last checkpoint of each log that it cosigned, in files; check and persist as one step."""

from __future__ import annotations

import os
import secrets
import threading
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from everyhop.core.errors import InputError, NotFound, ProofError, SettingsError
from everyhop.core.secret import Secret
from everyhop.providers.private_files import create_private, locked, read_private, replace_private
from everyhop.tlog import AddCheckpoint, Cosigner, SignerKey, judge, parse_checkpoint
from everyhop.tlog.note import MAX_NOTE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from everyhop.core.clock import Clock
    from everyhop.tlog import Checkpoint, CosignerKey, Verifier

_KEY: Final = "key"
_LOCK: Final = "lock"
_MAX_KEY_BYTES: Final = 4096
_SEED_BYTES: Final = 32


class FileWitness:
    """A witness over one directory of mode 0700.  Safe to share between threads and processes."""

    def __init__(self, directory: Path, logs: Mapping[str, Sequence[Verifier]], clock: Clock) -> None:
        """``logs`` are the keys of the logs that it knows, by origin.  Raises SettingsError when there is no key."""
        self._directory = directory
        self._logs = dict(logs)
        self._clock = clock
        self._turn = threading.Lock()
        content = read_private(directory / _KEY, max_bytes=_MAX_KEY_BYTES)
        try:
            self._cosigner = Cosigner(SignerKey.parse(Secret(content.removesuffix(b"\n"))))
        except InputError as error:
            raise SettingsError(f"{directory / _KEY} is no key of a witness") from error

    @staticmethod
    def create_key(directory: Path, name: str) -> None:
        """Make the key of a witness; one that is there already stays.  Raises InputError for a name that is none."""
        key = SignerKey(name, Secret(secrets.token_bytes(_SEED_BYTES)))
        create_private(directory / _KEY, key.encode().reveal() + b"\n")

    @property
    def key(self) -> CosignerKey:
        """Return the public key."""
        return self._cosigner.verifier

    def add_checkpoint(self, body: bytes) -> str:
        """Judge a request and return the line of the cosignature; what it vouches for is on the disk by then.

        Raises InputError for a body that is none, RefusedError for a request that is not cosigned, and SettingsError
        when the files do not let it remember.
        """
        request = AddCheckpoint.parse(body)
        with self._turn, locked(self._directory / _LOCK):
            checkpoint = judge(request, logs=self._logs, last=self._last(request.checkpoint.origin))
            time = int(self._clock.now().timestamp())
            signature = self._cosigner.cosign(checkpoint.text, time=time)
            known = {(v.name, v.key_id) for v in self._logs[checkpoint.origin]}
            own = tuple(s for s in request.note.signatures if (s.name, s.key_id) in known)
            kept = type(request.note)(text=request.note.text, signatures=(*own, signature))
            replace_private(self._file(checkpoint.origin), kept.encode().encode())
            return signature.line()

    def checkpoint(self, origin_hash: str) -> bytes:
        """Return the last checkpoint of a log, cosigned; ``origin_hash`` is the SHA-256 of its origin in hex.

        Raises NotFound.
        """
        known = {sha256(origin.encode()).hexdigest() for origin in self._logs}
        path = self._directory / f"{origin_hash}.checkpoint"
        if origin_hash not in known or not path.exists():
            raise NotFound("no checkpoint of that log was cosigned here")
        return read_private(path, max_bytes=MAX_NOTE_BYTES)

    def _last(self, origin: str) -> Checkpoint | None:
        path = self._file(origin)
        if not os.path.lexists(path):
            return None
        try:
            checkpoint, note = parse_checkpoint(read_private(path, max_bytes=MAX_NOTE_BYTES))
            note.signed_by([self.key])
        except (InputError, ProofError) as error:
            raise SettingsError(f"{path} is not what this witness cosigned last") from error
        return checkpoint

    def _file(self, origin: str) -> Path:
        return self._directory / f"{sha256(origin.encode()).hexdigest()}.checkpoint"
