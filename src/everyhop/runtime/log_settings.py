# SPDX-License-Identifier: Apache-2.0
"""Settings of the log: where its checkpoints go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from everyhop.core.errors import InputError, SettingsError
from everyhop.tlog import CosignerKey

_LOCAL: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def check_url(url: str) -> str:
    """Return a URL that checkpoints may be sent to; raises InputError, which does not hold it.

    It is ``https``, ``http`` on this machine, or ``unix:`` and an absolute path.
    """
    if url.startswith("unix:"):
        if not url.removeprefix("unix:").removeprefix("//").startswith("/"):
            raise InputError("a socket is unix: and an absolute path")
        return url
    try:
        parsed = urlsplit(url)
        host, _ = parsed.hostname, parsed.port
    except ValueError as error:
        raise InputError("not a URL") from error
    if not host or not (parsed.scheme == "https" or (parsed.scheme == "http" and host in _LOCAL)):
        raise InputError(
            "checkpoints go to https://…, http:// on this machine, or unix:/path", hint="put TLS before it"
        )
    return url


def parse_witness(text: str) -> tuple[str, CosignerKey]:
    """Return URL and key of ``URL VKEY``.  Raises InputError."""
    url, _, key = text.strip().partition(" ")
    if not key:
        raise InputError(
            "a witness is URL VKEY, with one space", hint="VKEY is what `everyhop log witness` prints"
        )
    return check_url(url), CosignerKey.parse(key.strip())


def check_log_settings(file: str, webhook: str, witnesses: Sequence[str]) -> None:
    """Check where checkpoints are to go.  Raises SettingsError."""
    if file and not Path(file).is_absolute():
        raise SettingsError("log_checkpoint_file is an absolute path")
    try:
        if webhook:
            check_url(webhook)
    except InputError as error:
        raise SettingsError(f"log_checkpoint_webhook: {error.message}", hint=error.hint) from error
    names = set()
    for witness in witnesses:
        try:
            names.add(parse_witness(witness)[1].name)
        except InputError as error:
            raise SettingsError(f"log_witnesses: {error.message}", hint=error.hint) from error
    if len(names) != len(witnesses):
        raise SettingsError("log_witnesses names a witness twice")
