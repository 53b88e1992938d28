# SPDX-License-Identifier: Apache-2.0
"""The socket at which other users of this machine approve a policy: the kernel says who they are."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from everyhop.api.http import SocketServer, http_server
from everyhop.api.policy_admin import ApprovalDoor
from everyhop.core.errors import AttestationError, SettingsError

if TYPE_CHECKING:
    from everyhop.control.service import ControlPlane
    from everyhop.runtime.settings import Settings

OWNER_ONLY: Final = 0o600
EVERYBODY: Final = 0o666  # who connects is looked at, and only approvers are answered


@dataclass(frozen=True, slots=True)
class Door:
    """A server and where it listens."""

    server: SocketServer
    path: Path
    mode: int = OWNER_ONLY


def admit_anybody(uid: int) -> None:
    """Admit whoever the mode of the socket lets in; only who it is matters."""
    del uid


def approval_door(control: ControlPlane, settings: Settings) -> Door | None:
    """Return the door for approvers, or None where the settings name none.

    Raises SettingsError for a user who does not exist, and for a directory in which others could put a socket of their own.
    """
    if not settings.approval_socket:
        return None
    approvers = frozenset(uid_named(name) for name in settings.approvers)
    path = Path(settings.approval_socket)
    _require_safe(path.parent)

    def admit(uid: int) -> None:
        if uid not in approvers:
            raise AttestationError(f"uid {uid} is none of the approvers")

    return Door(http_server(ApprovalDoor(control).app(), admit_uid=admit), path, EVERYBODY)


def uid_named(name: str) -> int:
    """Return the uid of a user by name or number; raises SettingsError."""
    if name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError as error:
        raise SettingsError(f"approvers: there is no user {name[:64]!r} here") from error


def _require_safe(directory: Path) -> None:
    try:
        status = directory.stat()
    except OSError as error:
        raise SettingsError(f"approval_socket: {directory}: {error.strerror}") from error
    is_shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(status.st_mode) or is_shared or status.st_uid not in {0, os.geteuid()}:
        raise SettingsError(
            f"approval_socket: {directory} has to be a directory that only its owner, this user or root, may write"
        )
