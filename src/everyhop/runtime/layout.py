# SPDX-License-Identifier: Apache-2.0
"""The state directory: one place that knows where everything lies and with which mode."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from everyhop.core.errors import SettingsError
from everyhop.core.limits import MAX_SOCKET_PATH_BYTES

_LONGEST_BELOW_STATE: Final = len("/run/i/0123456789ab/.s.PGSQL.65535")


def default_state() -> Path:
    """Return ``EVERYHOP_STATE``, else ``$XDG_STATE_HOME/everyhop``, else ``~/.local/state/everyhop``."""
    if named := os.environ.get("EVERYHOP_STATE"):
        return Path(named)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "everyhop"


@dataclass(frozen=True, slots=True)
class StateLayout:
    """Paths below one state directory.  Nothing here is created by looking at it."""

    root: Path

    @property
    def database(self) -> Path:
        """The server's SQLite database, mode 0600."""
        return self.root / "everyhop.db"

    @property
    def settings_file(self) -> Path:
        """Optional settings in TOML."""
        return self.root / "everyhop.toml"

    @property
    def lock(self) -> Path:
        """Held (flock) by the one ``up`` of this state directory."""
        return self.root / "lock"

    @property
    def keys(self) -> Path:
        """Directory 0700 of the key-encryption key."""
        return self.root / "keys"

    @property
    def known_authorities(self) -> Path:
        """Every X.509 authority that ever was in the bundle (PEM, 0600), to check old seals with."""
        return self.keys / "log" / "authorities.pem"

    @property
    def run(self) -> Path:
        """Sockets; others may enter, because the Workload API is for every user of the machine."""
        return self.root / "run"

    @property
    def workload_socket(self) -> Path:
        """The SPIFFE Workload API, mode 0777: identity is attested, not lent by file modes."""
        return self.run / "workload.sock"

    @property
    def sds_socket(self) -> Path:
        """Secrets for the node's own Envoys, mode 0600 and peer-checked."""
        return self.run / "sds.sock"

    @property
    def authz_socket(self) -> Path:
        """Where the node's own Envoys have credentials checked, mode 0600 and peer-checked."""
        return self.run / "authz.sock"

    @property
    def authorizer_socket(self) -> Path:
        """Where proxies that are not ours ask over gRPC; only users that the settings name are answered."""
        return self.run / "authorizer.sock"

    @property
    def authorizer_http_socket(self) -> Path:
        """The same over HTTP/1.1."""
        return self.run / "authorizer-http.sock"

    @property
    def agent_socket(self) -> Path:
        """The agent's door for the owner (``everyhop run``), mode 0600."""
        return self.run / "agent.sock"

    @property
    def server_socket(self) -> Path:
        """The server's door for agents, mode 0600."""
        return self.run / "server.sock"

    @property
    def admin_socket(self) -> Path:
        """The server's door for the owner, mode 0600."""
        return self.run / "admin.sock"

    @property
    def oauth_socket(self) -> Path:
        """The server's door for its face: tokens and what others need to verify them, mode 0600."""
        return self.run / "oauth.sock"

    @property
    def face_socket(self) -> Path:
        """Key and bundle for the server's face, mode 0600 and peer-checked."""
        return self.run / "face.sock"

    @property
    def face_admin_socket(self) -> Path:
        """Envoy's own admin interface of the server's face, mode 0600."""
        return self.run / "face-admin.sock"

    @property
    def face(self) -> Path:
        """Configuration of the server's face, and the port that it keeps."""
        return self.root / "face"

    @property
    def instances(self) -> Path:
        """One directory 0700 per running workload, for its application and egress sockets."""
        return self.run / "i"

    @property
    def envoy(self) -> Path:
        """One directory per sidecar with its readable configuration."""
        return self.root / "envoy"

    @property
    def spool(self) -> Path:
        """One directory per sidecar with its decision lines, until the server has them."""
        return self.root / "spool"

    @property
    def agent_state(self) -> Path:
        """What the agent remembers over a restart."""
        return self.root / "agent"

    @property
    def logs(self) -> Path:
        """Logs of server, agent and sidecars."""
        return self.root / "logs"

    def check(self) -> None:
        """Refuse a root whose sockets would not fit into a Unix socket address.

        Raises SettingsError.
        """
        if len(os.fsencode(self.root)) + _LONGEST_BELOW_STATE > MAX_SOCKET_PATH_BYTES:
            raise SettingsError(
                f"the state directory's path is too long for Unix sockets: {self.root}",
                hint=f"use --state with at most {MAX_SOCKET_PATH_BYTES - _LONGEST_BELOW_STATE} bytes",
            )

    def create(self) -> None:
        """Create the directories with their modes; tighten modes that an older umask left open.

        The root and ``run`` are 0711 (enter, not list); all else is 0700.
        """
        self.check()
        for path, mode in (
            (self.root, 0o711),
            (self.run, 0o711),
            (self.instances, 0o711),
            (self.keys, 0o700),
            (self.envoy, 0o700),
            (self.spool, 0o700),
            (self.agent_state, 0o700),
            (self.face, 0o700),
            (self.logs, 0o700),
        ):
            path.mkdir(mode=mode, parents=True, exist_ok=True)
            if path.stat().st_uid != os.getuid():
                raise SettingsError(
                    f"{path} belongs to another user", hint="choose a --state directory of your own"
                )
            path.chmod(mode)
