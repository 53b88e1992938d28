# SPDX-License-Identifier: Apache-2.0
"""The audit log's key and its checkpoints, composed over one storage."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

from everyhop.auditlog import Event, Kind
from everyhop.auditlog.checkpointing import Checkpointer
from everyhop.control.checkpointer import LogSealing
from everyhop.control.leader import Leader
from everyhop.core.errors import Conflict
from everyhop.providers.checkpoint_shippers import (
    CosignatureBook,
    FileShipper,
    WebhookShipper,
    WitnessShipper,
)
from everyhop.providers.log_keys import FileLogSigner, restart_log
from everyhop.runtime.log_settings import parse_witness
from everyhop.runtime.system import SystemClock
from everyhop.tlog import EMPTY_ROOT

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from everyhop.control.checkpointer import Shipper
    from everyhop.runtime.layout import StateLayout
    from everyhop.runtime.settings import Settings
    from everyhop.storage import Storage

LEASE: Final = "log-checkpoints"


def log_directory(layout: StateLayout) -> Path:
    """Return where the log's key is, made 0700 when it is missing."""
    directory = layout.keys / "log"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    return directory


def open_log(storage: Storage, layout: StateLayout, trust_domain: str) -> FileLogSigner:
    """Return the log's key, made when neither the database nor the directory knows of one.

    Checks, before anything is appended, that the database goes on from what was signed last.  Raises Conflict when it
    does not, or when it was signed by a key that is gone; SettingsError for files that cannot be believed.
    """
    directory = log_directory(layout)
    if not os.path.lexists(directory / "key") and (origins := storage.log_tree.origins()):
        raise Conflict(
            f"the audit log in the database was signed as {origins[-1]}, and its key is not in {directory}",
            hint="restore the key from a backup, or begin a new log: everyhop log restart --reason TEXT",
        )
    signer = FileLogSigner.create(directory, trust_domain)
    Checkpointer(storage.log_tree, signer, SystemClock()).check()
    return signer


def shippers_of(storage: Storage, settings: Settings, pool: Executor) -> tuple[Shipper, ...]:
    """Return where the settings want checkpoints to go."""
    found: list[Shipper] = []
    if settings.log_checkpoint_file:
        found.append(FileShipper(Path(settings.log_checkpoint_file), pool))
    if settings.log_checkpoint_webhook:
        found.append(WebhookShipper(settings.log_checkpoint_webhook))
    book = CosignatureBook(storage.log_tree, pool)
    found += [WitnessShipper(url, key, book) for url, key in map(parse_witness, settings.log_witnesses)]
    return tuple(found)


def log_sealing(storage: Storage, settings: Settings, signer: FileLogSigner, *, pool: Executor) -> LogSealing:
    """Compose what signs the head of the log while this server leads, and tells it elsewhere."""
    clock = SystemClock()
    holder = f"{os.getpid()}-{secrets.token_hex(4)}"
    return LogSealing(
        Checkpointer(storage.log_tree, signer, clock),
        leader=Leader(storage.leases, LEASE, holder, clock=clock, pool=pool),
        pool=pool,
        shippers=shippers_of(storage, settings, pool),
    )


def begin_again(
    storage: Storage, layout: StateLayout, trust_domain: str, *, reason: str, by: str
) -> FileLogSigner:
    """Begin a log of a new origin over what the database holds, and say so in its first record.

    Nothing that was signed before follows into the new log: who kept an old checkpoint sees the loss for ever.
    """
    directory = log_directory(layout)
    old, last = restart_log(directory, trust_domain)
    signer = FileLogSigner(directory)
    size, _ = storage.log_tree.head()
    storage.records.note(
        Event(
            kind=Kind.LOG,
            action="restart",
            time=SystemClock().now(),
            reason="restart",
            detail={
                "because": reason,
                "by": by,
                "origin": signer.origin,
                "old_origin": old,
                "old_size": 0 if last is None else last.size,
                "old_root": (EMPTY_ROOT if last is None else last.root).hex(),
                "kept": size,
            },
        )
    )
    return signer
