# SPDX-License-Identifier: Apache-2.0
"""Rendered files onto disk, so that a running Envoy sees each of them whole and never out of order."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING, Any, Final

import msgspec

from everyhop.dataplane._resources import encode
from everyhop.dataplane.render import BOOTSTRAP, CLUSTERS, LISTENERS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DIRECTORIES: Final = ("xds", "ecds", "eds", "rds")
"""Watched by Envoy: nothing but finished files is ever in them."""

_SCRATCH: Final = ".new"


def write_files(directory: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Make ``directory`` hold exactly ``files``; return what was written or removed, in that order.

    Files whose content is there already are left alone.  Each one is written beside the watched directories and
    renamed into place, mode 0600.  What others refer to comes first: endpoints, clusters (the old ones as well),
    filters, routes, listeners; then what is no longer used goes.  Raises OSError when the disk refuses.
    """
    for name in (_SCRATCH, *DIRECTORIES):
        (directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    _clear_scratch(directory)
    changed = []
    for name, content in _in_order(directory, files):
        if _read(directory / name) != content:
            _replace(directory, name, content)
            changed.append(name)
    for name in _stale(directory, files):
        (directory / name).unlink()
        changed.append(name)
    return tuple(changed)


def replace_files(directory: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Write some files of a directory that :func:`write_files` has made, in the order given; leave the others."""
    changed = [name for name, content in files.items() if _read(directory / name) != content]
    for name in changed:
        _replace(directory, name, files[name])
    return tuple(changed)


def _in_order(directory: Path, files: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    rank = {"eds": 1, "ecds": 3, "rds": 4}
    special = {BOOTSTRAP: 0, CLUSTERS: 6, LISTENERS: 5}
    ordered = sorted(
        files.items(), key=lambda item: special.get(item[0], rank.get(item[0].partition("/")[0], 0))
    )
    both = _old_and_new_clusters(_read(directory / CLUSTERS), files[CLUSTERS])
    at = next((i for i, (name, _) in enumerate(ordered) if not name.startswith(("eds/", BOOTSTRAP))), 0)
    return [*ordered[:at], (CLUSTERS, both), *ordered[at:]]


def _old_and_new_clusters(old: bytes | None, new: bytes) -> bytes:
    """Return the new clusters with those of the old file that they lack: routes still refer to them."""
    document = msgspec.json.decode(new)
    try:
        previous: list[dict[str, Any]] = [] if old is None else msgspec.json.decode(old)["resources"]
        names = {cluster["name"] for cluster in document["resources"]}
        kept = [cluster for cluster in previous if cluster["name"] not in names]
    except (msgspec.DecodeError, KeyError, TypeError):
        return new  # somebody damaged the old file; the new one stands alone
    if not kept:
        return new
    document["resources"] += kept
    return encode(document)


def _stale(directory: Path, files: Mapping[str, bytes]) -> list[str]:
    found = (path.relative_to(directory) for name in DIRECTORIES for path in (directory / name).iterdir())
    return sorted(str(path) for path in found if str(path) not in files)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _replace(directory: Path, name: str, content: bytes) -> None:
    scratch = directory / _SCRATCH / secrets.token_hex(8)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
    scratch.replace(directory / name)


def _clear_scratch(directory: Path) -> None:
    """Remove what a writer left that was killed."""
    for path in (directory / _SCRATCH).iterdir():
        with contextlib.suppress(OSError):
            path.unlink()
