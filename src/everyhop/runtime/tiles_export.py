# SPDX-License-Identifier: Apache-2.0
"""The log as files: a tlog-tiles tree that anybody can serve, copy and verify (c2sp.org/tlog-tiles).

Files appear whole, and the checkpoint comes last: whoever reads while this writes finds everything that the checkpoint
needs.  What is there already is checked to be the beginning of what comes, and not written again.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from everyhop.auditlog.checkpointing import nodes_of
from everyhop.core.errors import Conflict, InputError, NotFound, ProofError, SettingsError, Unavailable
from everyhop.tlog import (
    Tile,
    bundles_of,
    consistency_proof,
    encode_bundle,
    open_checkpoint,
    tiles_of,
    verify_consistency,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from everyhop.auditlog.checkpoints import StoredCheckpoint
    from everyhop.auditlog.ports import LogTree
    from everyhop.tlog import VerifierKey

CHECKPOINT: Final = "checkpoint"
VKEY: Final = "log.vkey"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote: from which size to which, how many files, and how many records are not kept any more."""

    origin: str
    old: int
    new: int
    files: int
    left_out: int


def export_tiles(tree: LogTree, directory: Path, keys: Sequence[VerifierKey]) -> Exported:
    """Write the log up to its newest checkpoint.

    Raises Unavailable when there is no checkpoint yet; Conflict when the directory holds another log, or one that
    does not go on to this one, and when a record is missing that was not removed by age; SettingsError when it cannot
    be written.
    """
    origin = keys[0].name
    newest = tree.latest_checkpoint(origin)
    if newest is None:
        raise Unavailable(
            "nothing of the log is signed for yet", hint="a second later it is, while the server runs"
        )
    try:
        return _export(tree, directory, keys, newest)
    except OSError as error:
        raise SettingsError(f"cannot write {error.filename or directory}: {error.strerror}") from error


def _export(
    tree: LogTree, directory: Path, keys: Sequence[VerifierKey], newest: StoredCheckpoint
) -> Exported:
    directory.mkdir(parents=True, exist_ok=True)
    old = _present(tree, directory, keys, newest)
    first = tree.first_kept()
    written = left_out = 0
    for tile in tiles_of(newest.size, since=old):
        try:
            hashes = tree.tile(tile.level or 0, tile.index, tile.width)
        except NotFound as error:
            raise Conflict(f"{tile.path} is missing in the database", hint="everyhop log verify") from error
        _write(directory, tile, hashes)
        written += 1
    for tile in bundles_of(newest.size, since=old):
        start = tile.index * 256
        if start < first:
            left_out += tile.width
            continue
        lines = [line for page in tree.lines(start, start + tile.width) for line in page]
        present = [line for line in lines if line is not None]
        if len(present) != len(lines):
            raise Conflict(
                f"record {start + lines.index(None) + 1} is missing in the database",
                hint="everyhop log verify",
            )
        _write(directory, tile, encode_bundle(present))
        written += 1
    _replace(directory / VKEY, "".join(f"{key}\n" for key in keys).encode())
    _replace(directory / CHECKPOINT, newest.note.encode())
    return Exported(origin=newest.origin, old=old, new=newest.size, files=written + 2, left_out=left_out)


def _present(tree: LogTree, directory: Path, keys: Sequence[VerifierKey], newest: StoredCheckpoint) -> int:
    """Return the size that the directory has, 0 for a new one; raises Conflict for another log."""
    file = directory / CHECKPOINT
    if not file.exists():
        if any(directory.iterdir()):
            raise Conflict(f"{directory} is not empty and holds no log", hint="choose an empty directory")
        return 0
    try:
        held = open_checkpoint(file.read_bytes(), keys).checkpoint
        nodes = nodes_of(tree, newest.size)
        proof = consistency_proof(held.size, newest.size, nodes)
        verify_consistency(held.size, held.root, newest.size, newest.root, proof)
    except (InputError, ProofError) as error:
        raise Conflict(
            f"{directory} holds a log that does not go on to this one: {error.message}",
            hint="keep it, it may be evidence; export into another directory",
        ) from error
    return held.size


def _write(directory: Path, tile: Tile, data: bytes) -> None:
    path = directory / tile.path
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, data)
    partial = path.with_name(path.name + ".p")
    if tile.is_full and partial.is_dir():
        shutil.rmtree(partial)  # whoever asks for a part of a full tile finds the full one


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with draft.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
