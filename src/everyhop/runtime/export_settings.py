# SPDX-License-Identifier: Apache-2.0
"""``[[export]]`` of the settings: who gets the log, and in which form."""

from __future__ import annotations

import difflib
import os
import re
import stat
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from everyhop.auditlog import Kind
from everyhop.core.durations import parse_duration
from everyhop.core.errors import EveryhopError, SettingsError, Unavailable
from everyhop.core.secret import Secret
from everyhop.exports import (
    ExportSettings,
    Format,
    JsonlSettings,
    Only,
    OtlpSettings,
    SyslogSettings,
    TlsSettings,
    WebhookSettings,
)
from everyhop.exports.http import check_url
from everyhop.exports.model import SecretReader
from everyhop.exports.rfc5424 import FACILITIES, MAX_BYTES, MIN_BYTES, is_sd_id

MAX_EXPORTS: Final = 32
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_MAX_SECRET: Final = 64 * 1024
_LARGEST_FILE: Final = 2**40
_LARGEST_PORT: Final = 65535
_MAX_SECRETS: Final = 4
_COMMON: Final = ("name", "type", "format", "only", "timeout", "longest_pause", "batch")
_TLS: Final = ("ca", "server_name", "certificate", "key")
_KEYS: Final = {
    "jsonl": ("path", "max_bytes", "period", "keep"),
    "syslog": ("host", "port", "socket", "max_bytes", "facility", "hostname", "enterprise", "window", *_TLS),
    "webhook": ("url", "secrets", *_TLS),
    "otlp": ("url", "headers", "resource", *_TLS),
}
_BATCH: Final = {"jsonl": 500, "syslog": 200, "webhook": 1, "otlp": 200}


def parse_exports(entries: list[Any]) -> tuple[ExportSettings, ...]:
    """Return the entries; raises SettingsError for unknown keys, values that cannot be, or one name twice."""
    if len(entries) > MAX_EXPORTS:
        raise SettingsError(f"there are at most {MAX_EXPORTS} of them")
    found: dict[str, ExportSettings] = {}
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise SettingsError('each entry is a table [[export]] with name = "siem", type = "syslog", …')
        where = f"entry {number} ({entry.get('name', 'without a name')!s:.63})"
        try:
            settings = _Entry(entry).parse()
        except EveryhopError as error:
            raise SettingsError(f"{where}: {error.message}", hint=error.hint) from error
        if settings.name in found:
            raise SettingsError(
                f"{where}: there are two of this name", hint="the name is the cursor's as well"
            )
        found[settings.name] = settings
    return tuple(found.values())


def read_secret(table: Any) -> SecretReader:
    """Return what reads ``{file = PATH}`` or ``{env = NAME}``; raises SettingsError for anything else.

    Both are read when they are needed: whoever else reads these settings, such as ``everyhop run``, has no secrets.
    """
    if not isinstance(table, dict) or len(table) != 1 or not set(table) <= {"file", "env"}:
        raise SettingsError("a secret is {file = PATH} or {env = NAME}, never the secret itself")
    if "env" in table:
        name = table["env"]
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise SettingsError("env is the name of a variable")
        return partial(_from_variable, name)
    return partial(_from_file, _absolute("file", table["file"]))


class _Entry:
    """One table while it is read."""

    def __init__(self, table: dict[str, Any]) -> None:
        self._table = table

    def parse(self) -> ExportSettings:
        kind = self._table.get("type")
        if not isinstance(kind, str) or kind not in _KEYS:
            raise SettingsError("type is one of " + ", ".join(_KEYS))
        self._refuse_unknown((*_COMMON, *_KEYS[kind]))
        name = self._text("name", "")
        if not _NAME.fullmatch(name):
            raise SettingsError("name has 1 to 63 small letters, digits and dashes")
        common: dict[str, Any] = {
            "name": name,
            "format": self._format(kind),
            "only": self._only(),
            "timeout": self._duration("timeout", "10s", "100ms", "10m"),
            "longest_pause": self._duration("longest_pause", "5m", "1s", "1h"),
            "batch": self._number("batch", _BATCH[kind], 1, 1000),
        }
        match kind:
            case "jsonl":
                return self._jsonl(common)
            case "syslog":
                return self._syslog(common)
            case "webhook":
                return WebhookSettings(**common, url=self._url(), secrets=self._secrets(), tls=self._tls())
            case _:
                return self._otlp(common)

    def _jsonl(self, common: dict[str, Any]) -> JsonlSettings:
        return JsonlSettings(
            **common,
            path=_absolute("path", self._table.get("path")),
            max_bytes=self._number("max_bytes", 100 * 1024 * 1024, 4096, _LARGEST_FILE),
            period=self._duration("period", "1d", "1m", "365d"),
            keep=self._number("keep", 0, 0, 100_000),
        )

    def _syslog(self, common: dict[str, Any]) -> SyslogSettings:
        has_socket, has_host = "socket" in self._table, "host" in self._table
        if has_socket == has_host:
            raise SettingsError("an entry names either host or socket")
        if has_socket and any(key in self._table for key in (*_TLS, "port")):
            raise SettingsError("a socket has neither port nor TLS")
        host = self._text("host", "")
        if has_host and (not host or " " in host):
            raise SettingsError("host is a name or an address")
        facility = self._text("facility", "authpriv")
        if facility not in FACILITIES:
            raise SettingsError(f"no facility {facility[:40]!r}", hint=_close(facility, FACILITIES))
        enterprise = self._text("enterprise", "everyhop@32473")
        if not is_sd_id(enterprise):
            raise SettingsError("enterprise is NAME@NUMBER, at most 32 characters")
        return SyslogSettings(
            **common,
            host=host,
            port=self._number("port", 6514, 1, _LARGEST_PORT),
            socket=_absolute("socket", self._table["socket"]) if has_socket else None,
            tls=self._tls(),
            max_bytes=self._number("max_bytes", 8192, MIN_BYTES, MAX_BYTES),
            facility=FACILITIES[facility],
            hostname=self._text("hostname", "-"),
            enterprise=enterprise,
            window=self._duration("window", "5s", "100ms", "5m"),
        )

    def _otlp(self, common: dict[str, Any]) -> OtlpSettings:
        headers, resource = self._table.get("headers", {}), self._table.get("resource", {})
        if not isinstance(headers, dict) or not all(_HEADER.fullmatch(name) for name in headers):
            raise SettingsError("headers is a table of names, each with {file = …} or {env = …}")
        if not isinstance(resource, dict) or not all(isinstance(v, str) and v for v in resource.values()):
            raise SettingsError("resource is a table of texts")
        return OtlpSettings(
            **common,
            url=self._url(),
            headers={name.lower(): read_secret(value) for name, value in headers.items()},
            resource=resource,
            tls=self._tls(),
        )

    def _format(self, kind: str) -> Format:
        if kind == "otlp":
            if "format" in self._table:
                raise SettingsError("otlp has a form of its own, without format")
            return Format.RECORD
        given = self._text("format", Format.OCSF.value)
        if given not in set(Format):
            raise SettingsError("format is one of " + ", ".join(Format))
        return Format(given)

    def _only(self) -> Only:
        table = self._table.get("only", {})
        if not isinstance(table, dict) or not set(table) <= {"kinds", "denied"}:
            raise SettingsError("only is a table with kinds and denied")
        kinds, denied = table.get("kinds", []), table.get("denied", False)
        if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
            raise SettingsError("only.kinds is a list of texts")
        for kind in kinds:
            if kind not in set(Kind):
                raise SettingsError(
                    f"only.kinds: no kind {kind[:40]!r}", hint=_close(kind, [k.value for k in Kind])
                )
        if not isinstance(denied, bool):
            raise SettingsError("only.denied is true or false")
        return Only(kinds=frozenset(Kind(kind) for kind in kinds), denied=denied)

    def _tls(self) -> TlsSettings:
        files = {
            key: _absolute(key, self._table[key]) if key in self._table else None
            for key in ("ca", "certificate", "key")
        }
        if (files["certificate"] is None) != (files["key"] is None):
            raise SettingsError("certificate and key belong together")
        server_name = self._text("server_name", "") or None
        return TlsSettings(server_name=server_name, **files)

    def _url(self) -> str:
        return check_url(self._text("url", ""))

    def _secrets(self) -> tuple[SecretReader, ...]:
        given = self._table.get("secrets")
        if not isinstance(given, list) or not 1 <= len(given) <= _MAX_SECRETS:
            raise SettingsError(
                f"secrets is a list of 1 to {_MAX_SECRETS} entries {{file = …}} or {{env = …}}"
            )
        return tuple(read_secret(entry) for entry in given)

    def _refuse_unknown(self, known: tuple[str, ...]) -> None:
        for key in self._table:
            if key not in known:
                raise SettingsError(f"unknown key {key[:80]!r}", hint=_close(key, known))

    def _text(self, key: str, default: str) -> str:
        value = self._table.get(key, default)
        if not isinstance(value, str) or not value.isprintable() or len(value) > 2048:  # noqa: PLR2004
            raise SettingsError(f"{key} is a text")
        return value

    def _number(self, key: str, default: int, least: int, most: int) -> int:
        value = self._table.get(key, default)
        if type(value) is not int or not least <= value <= most:  # not a bool
            raise SettingsError(f"{key} is a whole number between {least} and {most}")
        return value

    def _duration(self, key: str, default: str, least: str, most: str) -> timedelta:
        value = parse_duration(self._text(key, default))
        if not parse_duration(least) <= value <= parse_duration(most):
            raise SettingsError(f"{key} is between {least} and {most}")
        return value


def _absolute(key: str, value: Any) -> Path:
    if not isinstance(value, str) or not value.isprintable() or not Path(value).is_absolute():
        raise SettingsError(f"{key} is an absolute path")
    return Path(value)


def _close(text: str, known: Any) -> str:
    close = difflib.get_close_matches(text, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ", ".join(known)


def _from_variable(name: str) -> Secret:
    value = os.environ.get(name, "").encode()
    if not value.strip():
        raise Unavailable(f"the variable {name} is empty or not there")
    return Secret(value)


def _from_file(path: Path) -> Secret:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as opened:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o007:
                raise Unavailable(
                    f"the secret {path} is no file, or everybody may use it", hint=f"chmod 600 {path}"
                )
            content = opened.read(_MAX_SECRET + 1)
    except OSError as error:
        raise Unavailable(f"the secret {path} cannot be read: {error.strerror}") from error
    if not content.strip() or len(content) > _MAX_SECRET:
        raise Unavailable(f"the secret {path} is empty or too long")
    return Secret(content)
