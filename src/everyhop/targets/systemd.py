# SPDX-License-Identifier: Apache-2.0
"""systemd units of one machine: everyhop, and each service as the policy recognises its processes.

A service that ``everyhop run`` may start is started by it, as the agent's own user, because the agent launches for nobody else.
One that the policy knows by user or executable runs as that user and fetches its SVID from the Workload API.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from everyhop.dataplane._names import SNAPSHOT_DIGITS
from everyhop.policy.model import Selector
from everyhop.targets._standalone import plain_path
from everyhop.targets.model import File

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from everyhop.targets.intents import ServiceIntents
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

USER: Final = "everyhop"
COMMANDS: Final = "/etc/everyhop/commands"
"""Where an operator puts the command of a service, an executable of its name."""

POLICY: Final = "/etc/everyhop/policy"

_PLAIN: Final = {
    "user": re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"),
    "group": re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"),
    "uid": re.compile(r"[0-9]{1,10}"),
    "gid": re.compile(r"[0-9]{1,10}"),
    "path": re.compile(r"/[A-Za-z0-9._/@+-]+"),
}
"""What may stand in a unit: systemd gives percent signs, dollars, quotes and blanks a meaning."""

_SETTINGS: Final = {"user": "User", "uid": "User", "group": "Group", "gid": "Group"}

_HARDENING: Final = (
    ("NoNewPrivileges", "yes"),
    ("CapabilityBoundingSet", ""),
    ("AmbientCapabilities", ""),
    ("UMask", "0077"),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateDevices", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectControlGroups", "yes"),
    ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("RemoveIPC", "yes"),
    ("LockPersonality", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallFilter", "@system-service"),
    ("SystemCallFilter", "~@privileged"),
    ("SystemCallErrorNumber", "EPERM"),
)


class Systemd:
    """``systemd/everyhop.service`` and ``systemd/everyhop-SERVICE.service``."""

    name: Final = "systemd"
    summary: Final = "hardened units: everyhop, and each service as its own unit"

    def compile(self, view: View) -> tuple[Sequence[File], Sequence[Diagnostic]]:
        """Return a unit for everyhop and one for each service that can have an identity; raises InputError for odd paths."""
        executable, state = plain_path(view, "executable"), plain_path(view, "state")
        head = (
            "everyhop policy compile --target systemd; do not edit.",
            f"Snapshot {view.intents.snapshot.hash[:SNAPSHOT_DIGITS]}.",
        )
        files = [File(path="systemd/everyhop.service", content=_control(executable, state, head))]
        diagnostics: list[Diagnostic] = []
        for service in view.intents:
            if service.service.is_canary:
                continue
            unit = _unit(view, service, executable, state, head, diagnostics)
            if unit is not None:
                files.append(File(path=f"systemd/everyhop-{service.name}.service", content=unit))
        return files, diagnostics


def _control(executable: str, state: str, head: Iterable[str]) -> bytes:
    return _written(
        [*head, f"Once: useradd --system --home-dir {state} --shell /usr/sbin/nologin {USER}"],
        Unit=[
            ("Description", "everyhop: server and agent of a trust domain"),
            ("Documentation", "man:systemd.exec(5)"),
            ("After", "network.target"),
        ],
        Service=[
            ("Type", "exec"),
            ("User", USER),
            ("Group", USER),
            ("ExecStartPre", f"{executable} policy check {POLICY}"),
            ("ExecStart", f"{executable} up --state {state} --policy {POLICY}"),
            ("Restart", "always"),
            ("RestartSec", "1"),
            ("KillMode", "mixed"),
            ("TimeoutStopSec", "30"),
            ("LimitNOFILE", "65536"),
            *_HARDENING,
            # No ProtectProc: the agent looks at the processes that ask it, whoever's they are.
            *_state(state),
        ],
        Install=[("WantedBy", "multi-user.target")],
    )


def _state(state: str) -> list[tuple[str, str]]:
    """Return what makes the state directory; below /var/lib systemd does, elsewhere it has to be there."""
    below = state.removeprefix("/var/lib/")
    if below == state or not below:
        return [("ReadWritePaths", state)]
    return [("StateDirectory", below), ("StateDirectoryMode", "0711")]


def _unit(
    view: View,
    service: ServiceIntents,
    executable: str,
    state: str,
    head: Iterable[str],
    diagnostics: list[Diagnostic],
) -> bytes | None:
    name = service.name
    alternatives = service.service.workload
    if not alternatives:
        message = f"{name} has no workload, so no process can be an instance of it"
        diagnostics.append(view.warning("workload", message))
        return None
    if any(Selector(type="run", value=name) in one for one in alternatives):
        command = f"{COMMANDS}/{name}"
        running: list[tuple[str, str]] = [
            ("User", USER),
            ("Group", USER),
            ("ExecStart", f"{executable} run {name} --state {state} -- {command}"),
        ]
        conditions = [("ConditionFileIsExecutable", command)]
        more = [("ReadWritePaths", state)]
    else:
        found = _of_selectors(view, service, diagnostics)
        if found is None:
            return None
        command = found.pop("ExecStart", f"{COMMANDS}/{name}")
        running = [*found.items(), ("ExecStart", command)]
        running.append(("Environment", f"SPIFFE_ENDPOINT_SOCKET=unix://{state}/run/workload.sock"))
        conditions = [("ConditionFileIsExecutable", command)]
        more = []
    return _written(
        [*head, *_callers(service)],
        Unit=[
            ("Description", f"{name}, behind everyhop"),
            # Not bound to it: what runs goes on while everyhop is started anew.
            ("Wants", "everyhop.service"),
            ("After", "everyhop.service network.target"),
            *conditions,
        ],
        Service=[
            ("Type", "exec"),
            *running,
            ("Restart", "always"),
            ("RestartSec", "1"),
            ("KillMode", "mixed"),
            ("TimeoutStopSec", "30"),
            *_HARDENING,
            ("ProtectProc", "invisible"),
            *_network(view, service),
            *more,
        ],
        Install=[("WantedBy", "multi-user.target")],
    )


def _of_selectors(
    view: View, service: ServiceIntents, diagnostics: list[Diagnostic]
) -> dict[str, str] | None:
    """Return the settings that make a process match the first alternative; None, and an error, where none can."""
    found: dict[str, str] = {}
    for selector in sorted(service.service.workload[0], key=str):
        kind, _, value = selector.value.partition(":")
        if selector.type != "unix" or kind == "sha256":
            continue
        if kind not in _PLAIN or not _PLAIN[kind].fullmatch(value):
            message = f"{service.name} is recognised by {selector}, which cannot stand in a unit"
            diagnostics.append(view.error("workload", message))
            return None
        found["ExecStart" if kind == "path" else _SETTINGS[kind]] = value
    if "User" not in found:
        message = f"{service.name} is recognised by no user, so its unit would run as root"
        diagnostics.append(view.error("workload", message, suggestion="add unix: {user: NAME}, or run: true"))
        return None
    return found


def _network(view: View, service: ServiceIntents) -> list[tuple[str, str]]:
    """Return what keeps a service on this machine, on which all sidecars are; not where it may call hosts outside."""
    if any(service.name in one.callers for one in view.intents.settings.egress):
        return []
    return [("IPAddressDeny", "any"), ("IPAddressAllow", "localhost")]


def _callers(service: ServiceIntents) -> Iterator[str]:
    for door in service.doors:
        callers = ", ".join(grant.caller for grant in door.grants) or "nobody"
        yield f"{door.name}: {callers}"


def _written(notes: Iterable[str], **sections: Any) -> bytes:
    lines = [f"# {note}" for note in notes]
    rows: Mapping[str, Sequence[tuple[str, str]]] = sections
    for section, settings in rows.items():
        lines += ["", f"[{section}]", *(f"{key}={value}" for key, value in settings)]
    return ("\n".join(lines) + "\n").encode()


TARGET: Final = Systemd()
