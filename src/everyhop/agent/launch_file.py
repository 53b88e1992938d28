# SPDX-License-Identifier: Apache-2.0
"""Launches on disk: JSON of mode 0600, replaced as a whole."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from everyhop.wire.processes import ProcessRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

MAX_FILE_BYTES: Final = 16 * 1024 * 1024


class LaunchState(StrEnum):
    """How far a launch is."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One running ``everyhop run``.

    ``run`` is its process, ``uid`` the user it runs as; ``envoy`` its sidecar while that is up.  ``directories``,
    ``ports`` and ``facts`` hold what other rooms need to remember under names of their own; nothing secret.
    """

    instance: str
    service: str
    uid: int
    run: ProcessRef
    envoy: ProcessRef | None = None
    state: LaunchState = LaunchState.STARTING
    directories: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, str | int | bool | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("directories", "ports", "facts"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))


class _Process(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pid: int
    start_time: int


class _Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    instance: str
    service: str
    uid: int
    run: _Process
    envoy: _Process | None
    state: LaunchState
    directories: dict[str, str]
    ports: dict[str, int]
    facts: dict[str, str | int | bool | None]


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    boot: str
    launches: list[_Stored]


def read_launches(file: Path, boot: str) -> tuple[Launch, ...]:
    """Return the launches of this boot that ``file`` names; none when it is missing or cannot be read.

    A damaged file costs the running launches their identity until they register again; it never grants one.
    """
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        return ()
    except OSError as error:
        log.warning("launches not read from %s: %s", file, error.strerror)
        return ()
    try:
        document = msgspec.json.decode(raw, type=_Document)
    except msgspec.MsgspecError as error:
        log.warning("launches not read from %s: %s", file, error)
        return ()
    return tuple(map(_launch, document.launches)) if document.boot == boot else ()


def write_launches(file: Path, boot: str, launches: Iterable[Launch]) -> None:
    """Replace ``file`` as a whole, mode 0600 from its first moment; raises OSError when the disk refuses."""
    document: dict[str, Any] = {"boot": boot, "launches": [_to_dict(launch) for launch in launches]}
    scratch = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(msgspec.json.encode(document))
        scratch.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise


def _to_dict(launch: Launch) -> dict[str, Any]:
    return {
        "instance": launch.instance,
        "service": launch.service,
        "uid": launch.uid,
        "run": _process(launch.run),
        "envoy": None if launch.envoy is None else _process(launch.envoy),
        "state": launch.state,
        "directories": dict(launch.directories),
        "ports": dict(launch.ports),
        "facts": dict(launch.facts),
    }


def _process(ref: ProcessRef) -> dict[str, int]:
    return {"pid": ref.pid, "start_time": ref.start_time}


def _launch(stored: _Stored) -> Launch:
    envoy = stored.envoy
    return Launch(
        instance=stored.instance,
        service=stored.service,
        uid=stored.uid,
        run=ProcessRef(pid=stored.run.pid, start_time=stored.run.start_time),
        envoy=None if envoy is None else ProcessRef(pid=envoy.pid, start_time=envoy.start_time),
        state=stored.state,
        directories=stored.directories,
        ports=stored.ports,
        facts=stored.facts,
    )
