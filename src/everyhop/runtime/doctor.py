# SPDX-License-Identifier: Apache-2.0
"""``everyhop doctor``: what is missing or unwell on this machine, with the fix."""

from __future__ import annotations

import os
import platform
import shutil
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from everyhop.control.local_link import LocalLink
from everyhop.core.clock import parse_rfc3339
from everyhop.core.durations import format_duration
from everyhop.core.errors import EveryhopError
from everyhop.dataplane.envoy import locate_envoy
from everyhop.runtime.face_probe import probe_face
from everyhop.runtime.settings import load_settings
from everyhop.spiffe.bundle import decode_bundle
from everyhop.spiffe.ids import TrustDomain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from everyhop.runtime.layout import StateLayout

_ENOUGH_BYTES: Final = 512 * 1024 * 1024
_MANY_WAITING: Final = 10_000
_LEAST_LIFE: Final = timedelta(seconds=30)
_SHORT_KEY: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at."""

    check: str
    is_ok: bool
    detail: str
    fix: str | None = None


def examine(layout: StateLayout) -> list[Finding]:
    """Look at everything; nothing is changed."""
    checks: tuple[Callable[[StateLayout], Iterator[Finding]], ...] = (_machine, _settings, _modes, _running)
    return [finding for check in checks for finding in check(layout)]


def _machine(layout: StateLayout) -> Iterator[Finding]:
    release = platform.release()
    numbers = [int(part) for part in release.split("-", 1)[0].split(".")[:2] if part.isdecimal()]
    yield Finding(
        check="kernel",
        is_ok=platform.system() == "Linux",
        detail=f"{platform.system()} {release}"
        + (
            ""
            if numbers >= [6, 5]
            else " (before 6.5: peers are checked by start time instead of SO_PEERPIDFD)"
        ),
        fix="everyhop runs on Linux",
    )
    try:
        path = locate_envoy(load_settings(layout.settings_file).envoy)
        yield Finding(check="envoy", is_ok=True, detail=str(path))
    except EveryhopError as error:
        yield Finding(check="envoy", is_ok=False, detail=error.message, fix=error.hint)
    base = next(p for p in (layout.root, *layout.root.parents) if p.exists())
    free = shutil.disk_usage(base).free
    yield Finding(
        check="disk",
        is_ok=free > _ENOUGH_BYTES,
        detail=f"{free // 2**20} MiB free at {base}",
        fix="make room: decisions are spooled to this disk when the server is down",
    )


def _settings(layout: StateLayout) -> Iterator[Finding]:
    try:
        layout.check()
        settings = load_settings(layout.settings_file)
    except EveryhopError as error:
        yield Finding(check="settings", is_ok=False, detail=error.message, fix=error.hint)
    else:
        short = settings.signing_key_ttl < _SHORT_KEY
        yield Finding(
            check="settings",
            is_ok=True,
            detail=f"{layout.settings_file}"
            + (" (signing_key_ttl is below 30d, which is meant for tests)" if short else ""),
        )


def _modes(layout: StateLayout) -> Iterator[Finding]:
    if not layout.root.exists():
        yield Finding(
            check="state", is_ok=True, detail=f"{layout.root} does not exist yet (everyhop up makes it)"
        )
        return
    private: tuple[Path, ...] = (
        layout.database,
        layout.keys,
        layout.admin_socket,
        layout.server_socket,
        layout.agent_socket,
        layout.sds_socket,
        layout.oauth_socket,
        layout.face_socket,
        layout.face_admin_socket,
        layout.face,
        layout.authz_socket,
    )
    bad = [p for p in private if p.exists() and stat.S_IMODE(p.stat().st_mode) & 0o077]
    foreign = layout.root.stat().st_uid != os.getuid()
    yield Finding(
        check="state",
        is_ok=not bad and not foreign,
        detail=f"{layout.root}" + (f": others may open {', '.join(p.name for p in bad)}" if bad else ""),
        fix="chmod go= " + " ".join(map(str, bad)) if bad else "run as the owner of the state directory",
    )


def _running(layout: StateLayout) -> Iterator[Finding]:
    try:
        status = LocalLink(layout.admin_socket, timeout=3.0).get("/v1/status")
    except EveryhopError as error:
        yield Finding(check="server", is_ok=False, detail=error.message, fix=error.hint)
        return
    rejected = status["rejected_policy"]
    yield Finding(
        check="policy",
        is_ok=rejected is None,
        detail=f"{status['snapshot'][:16]} in force"
        + (f"; a newer text was refused: {rejected['problems'][0]['message']}" if rejected else ""),
        fix="everyhop policy check",
    )
    yield _face(layout, status)
    yield from _authorizers(layout, status)
    lagging = [a["id"] for a in status["agents"] if a["snapshot"] != status["snapshot"]]
    yield Finding(
        check="agent",
        is_ok=bool(status["agents"]) and not lagging,
        detail=f"{len(status['agents'])} connected" + (f"; {', '.join(lagging)} behind" if lagging else ""),
        fix=f"see {layout.logs / 'agent.log'}",
    )
    waiting = sum(a["spooled_records"] for a in status["agents"])
    lost = ", ".join(
        f"{told['records']}{' and more' if told['times_unknown'] else ''} ({reason})"
        for reason, told in status.get("records_lost", {}).items()
    )
    yield Finding(
        check="records",
        is_ok=waiting < _MANY_WAITING and status.get("records_lost", {}).keys() <= {"proxy-killed"},
        detail=f"{waiting} wait" + (f"; told lost since the server started: {lost}" if lost else ""),
        fix="everyhop log verify tells which; docs/reference/records.md tells why",
    )
    for name, service in status["services"].items():
        for instance in service["instances"]:
            ends = instance["svid_expires_at"]
            left = parse_rfc3339(ends) - datetime.now(UTC) if ends else timedelta()
            yield Finding(
                check=f"{name} {instance['id']}",
                is_ok=instance["state"] == "ready" and left > _LEAST_LIFE,
                detail=f"{instance['state']}, SVID for another {format_duration(left)}",
                fix=f"everyhop envoy show {name}, and its logs in {layout.logs}",
            )


def _authorizers(layout: StateLayout, status: dict[str, Any]) -> Iterator[Finding]:
    """Look at what proxies that are not ours need, where the settings name any."""
    try:
        settings = load_settings(layout.settings_file)
    except EveryhopError:
        return  # told already
    if not settings.authorizers:
        return
    named = {service for proxy in settings.authorizers for service in proxy.services}
    unknown = sorted(named - status["services"].keys())
    sockets = (layout.authorizer_socket, layout.authorizer_http_socket)
    closed = [path.name for path in sockets if not path.is_socket()]
    detail = "; ".join(
        f"uid {proxy.uid} may ask about {', '.join(proxy.services)}" for proxy in settings.authorizers
    )
    if unknown:
        detail += f"; the policy has no {', '.join(unknown)}"
    if closed:
        detail += f"; {', '.join(closed)} is not open"
    yield Finding(
        check="authorizers",
        is_ok=not unknown and not closed,
        detail=detail,
        fix=f"set authorizers in {layout.settings_file} right, and start `everyhop up` anew",
    )


def _face(layout: StateLayout, status: dict[str, Any]) -> Finding:
    """Look at the server's face as a relying party would."""
    try:
        document = LocalLink(layout.admin_socket, timeout=3.0).get_bytes("/v1/bundle")
        bundle = decode_bundle(TrustDomain.parse(status["trust_domain"]), document)
        detail = probe_face(status["urls"]["jwks"], bundle.x509_authorities)
    except EveryhopError as error:
        return Finding(
            check="face",
            is_ok=False,
            detail=error.message,
            fix=error.hint or f"see {layout.logs / 'face.log'}",
        )
    return Finding(check="face", is_ok=True, detail=detail)
