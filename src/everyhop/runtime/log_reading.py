# SPDX-License-Identifier: Apache-2.0
"""What the owner does with the log beside the server: verify, prove, export, begin again."""

from __future__ import annotations

import getpass
import ssl
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from everyhop.auditlog import Event, Kind
from everyhop.auditlog.proving import make_receipt, verify_receipt
from everyhop.auditlog.verifying import verify_log
from everyhop.core.errors import (
    Conflict,
    InputError,
    NotFound,
    SettingsError,
)
from everyhop.policy import decode_snapshot
from everyhop.providers.log_keys import FileLogSigner
from everyhop.providers.log_sources import DirectoryFiles, TileSource, UrlFiles
from everyhop.runtime.locks import StateLock
from everyhop.runtime.log_completeness import check_log
from everyhop.runtime.log_works import begin_again, log_directory
from everyhop.runtime.settings import load_settings
from everyhop.runtime.system import SystemClock, SystemEntropy
from everyhop.runtime.tiles_export import Exported, export_tiles
from everyhop.storage import SqlLogTree, SqlSealStore, open_storage
from everyhop.storage.log_source import SqlLogSource, open_for_verifying
from everyhop.storage.postgresql import open_postgresql
from everyhop.tlog import CosignerKey, VerifierKey
from everyhop.tlog.note import MAX_NOTE_BYTES
from everyhop.tlog.proof import MAX_PROOF_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from everyhop.auditlog.completeness import Completeness
    from everyhop.auditlog.proving import Proven
    from everyhop.auditlog.verdict import Verdict
    from everyhop.auditlog.verifying import LogSource, Progress
    from everyhop.providers.log_sources import Files
    from everyhop.runtime.layout import StateLayout
    from everyhop.storage import Database, Storage

_MAX_KEY_FILE: Final = 64 * 1024
_MAX_SHIPPED: Final = 256 * 1024 * 1024
_KEY: Final = "key"
_PRODUCER: Final = "command"
K = TypeVar("K", bound=VerifierKey)


class LogReading:
    """Reads the log as somebody who believes only the keys that he was given."""

    def __init__(
        self,
        layout: StateLayout,
        *,
        vkeys: Sequence[str] = (),
        witnesses: Sequence[str] = (),
        quorum: int | None = None,
        svid: Path | None = None,
    ) -> None:
        """``vkeys`` and ``witnesses`` are vkeys or names of files that hold some; raises InputError for others."""
        self._layout = layout
        self._given = tuple(key for text in vkeys for key in _keys(text, VerifierKey))
        self._witnesses = tuple(key for text in witnesses for key in _keys(text, CosignerKey))
        self._quorum = len(self._witnesses) if quorum is None else quorum
        self._svid = svid
        if not 0 <= self._quorum <= len(self._witnesses):
            raise InputError(f"a quorum of {self._quorum} of {len(self._witnesses)} witnesses")
        if len({key.name for key in self._given}) > 1:
            raise InputError("the keys are of several logs", hint="verify one log at a time")

    def verify(
        self,
        *,
        tiles: Path | None = None,
        url: str | None = None,
        against: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> Verdict:
        """Verify the database, or the tiles that are named; raises EveryhopError when there is nothing to look at."""
        outside = [pair for place in against for pair in self._outside(place)]
        trusted = self._trusted()
        if tiles is None and url is None:
            with closing(_database(self._layout)) as database:
                source: LogSource = SqlLogSource(database, trusted[0].name if trusted else None)
                verdict = self._judge(source, trusted, outside, progress)
        else:
            with ExitStack() as stack:
                files: Files = DirectoryFiles(tiles or Path())
                if url is not None:
                    files = stack.enter_context(closing(UrlFiles(url, context=self._context())))
                verdict = self._judge(TileSource(files), trusted, outside, progress)
        if len(verdict.witnesses) < self._quorum:
            reason = f"{len(verdict.witnesses)} of {self._quorum} witnesses cosigned what the log contains"
            verdict = replace(verdict, unverified=(*verdict.unverified, reason))
        return verdict

    def completeness(self) -> Completeness:
        """Return what producers numbered and signed, against what the database holds.

        Raises what :func:`~everyhop.runtime.log_completeness.check_log` does.
        """
        with closing(_database(self._layout)) as database:
            return check_log(SqlSealStore(database), self._layout)

    def _judge(
        self,
        source: LogSource,
        trusted: Sequence[VerifierKey],
        outside: Sequence[tuple[str, bytes]],
        progress: Progress | None,
    ) -> Verdict:
        return verify_log(
            source, trusted=trusted, witnesses=self._witnesses, against=outside, progress=progress
        )

    def receipt(self, file: Path) -> Proven:
        """Check a receipt; raises ProofError when it proves nothing, InputError when it is none or no key is known."""
        trusted = self._trusted()
        if not trusted:
            raise InputError("no key of the log is known", hint="give its public key: --vkey VKEY")
        proven = verify_receipt(_read(file, MAX_PROOF_BYTES), trusted=trusted, witnesses=self._witnesses)
        if len(proven.witnesses) < self._quorum:
            raise InputError(f"{len(proven.witnesses)} of {self._quorum} witnesses cosigned the receipt")
        return proven

    def prove(self, event: str) -> bytes:
        """Return the receipt of a record of the database."""
        signer = self._own()
        if signer is None:
            raise NotFound(f"there is no log in {self._layout.root}")
        with closing(_database(self._layout)) as database:
            return make_receipt(SqlLogTree(database), event, signer.origin).encode()

    def _own(self) -> FileLogSigner | None:
        directory = self._layout.keys / "log"
        return FileLogSigner(directory) if (directory / _KEY).exists() else None

    def _trusted(self) -> tuple[VerifierKey, ...]:
        if self._given:
            return self._given
        own = self._own()
        return () if own is None else own.verifiers

    def _outside(self, place: str) -> Iterator[tuple[str, bytes]]:
        """Yield the checkpoints at a place: one, or a file of many that was shipped, a JSON object a line."""
        if place.startswith(("http://", "https://", "unix:")):
            base, _, name = place.rpartition("/")
            with closing(UrlFiles(base, context=self._context())) as files:
                yield place, files.read(name, max_bytes=MAX_NOTE_BYTES)
            return
        data = _read(Path(place), _MAX_SHIPPED)
        if not data.startswith(b"{"):
            yield place, data
            return
        for number, line in enumerate(data.splitlines(), 1):
            try:
                shipped = msgspec.json.decode(line, type=_Shipped)
            except msgspec.MsgspecError as error:
                raise InputError(f"{place}:{number} is no checkpoint that was shipped") from error
            yield f"{place}:{number}", shipped.note.encode()

    def _context(self) -> ssl.SSLContext | None:
        if self._svid is None:
            return None
        try:
            context = ssl.create_default_context(cafile=str(self._svid / "bundle.pem"))
            context.load_cert_chain(self._svid / "svid.pem", self._svid / "key.pem")
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"no SVID in {self._svid}: {error}") from error
        return context


class _Shipped(msgspec.Struct, frozen=True):
    note: str


def export(layout: StateLayout, directory: Path) -> Exported:
    """Write the log as tiles, and record that it was."""
    with closing(_storage(layout)) as storage:
        signer = FileLogSigner(layout.keys / "log")
        done = export_tiles(storage.log_tree, directory, signer.verifiers)
        if done.new > done.old:
            storage.records.note(
                Event(
                    kind=Kind.LOG,
                    action="export",
                    time=SystemClock().now(),
                    reason="tiles",
                    detail={"by": getpass.getuser(), "from": done.old, "to": done.new},
                )
            )
        return done


def restart(layout: StateLayout, reason: str) -> str:
    """Begin a log of a new origin over what the database holds; return the origin.

    Raises Conflict while a server runs, InputError without a reason.
    """
    if not reason.strip():
        raise InputError("why?", hint="the reason is recorded: --reason TEXT")
    lock = StateLock(layout.lock)
    lock.acquire()
    try:
        with closing(_storage(layout)) as storage:
            stored = storage.snapshots.latest()
            if stored is None:
                raise Conflict(
                    "the database holds no policy, so there is no trust domain to name the log for"
                )
            domain = decode_snapshot(stored).trust_domain.name
            log_directory(layout)
            return begin_again(storage, layout, domain, reason=reason, by=getpass.getuser()).origin
    finally:
        lock.release()


def _database(layout: StateLayout) -> Database:
    """Open the database of a state directory for reading only."""
    settings = load_settings(layout.settings_file)
    return open_postgresql(settings.database) if settings.database else open_for_verifying(layout.database)


def _storage(layout: StateLayout) -> Storage:
    """Open the storage of a state directory, whose server may run: what this appends is not the server's word."""
    settings = load_settings(layout.settings_file)
    if not settings.database and not layout.database.is_file():
        raise SettingsError(f"there is no database {layout.database}")
    place = settings.database or layout.database
    return open_storage(place, entropy=SystemEntropy(), producer=_PRODUCER)


def _keys(text: str, kind: type[K]) -> list[K]:
    """Return the keys in a text, or in the file of that name, a line each."""
    if "+" in text:
        return [kind.parse(text)]
    try:
        lines = _read(Path(text), _MAX_KEY_FILE).decode("utf-8").split()
    except UnicodeDecodeError as error:
        raise InputError(f"{text} holds no public keys") from error
    if not lines:
        raise InputError(f"{text} holds no public keys")
    return [kind.parse(line) for line in lines]


def read_keys(text: str) -> list[VerifierKey]:
    """Return the public keys of logs in a text, or in the file of that name.  Raises InputError."""
    return _keys(text, VerifierKey)


def _read(file: Path, max_bytes: int) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error
    if len(data) > max_bytes:
        raise InputError(f"{file} has more than {max_bytes} bytes")
    return data
