# SPDX-License-Identifier: Apache-2.0
"""What one launch consists of: names, ports, directories, environment.

The egress secret is derived from a key of the agent and the instance's id, so a restarted agent knows it again
and no launch's secret is ever written down in clear.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from everyhop.agent import Launch, LaunchState
from everyhop.control.ports_of_launch import chosen_address, chosen_port, free_port
from everyhop.core.errors import AccessDenied, InputError, NotFound
from everyhop.core.secret import Secret
from everyhop.policy.model import Selector
from everyhop.wire.processes import ProcessRef, read_ids, read_stat

if TYPE_CHECKING:
    from collections.abc import Collection

    from everyhop.core.clock import Entropy
    from everyhop.policy.model import Service, Snapshot

KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the agent keeps what belongs to launches; absolute paths."""

    workload_socket: Path
    sds_socket: Path
    instances: Path
    envoy: Path
    spool: Path
    logs: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Where clients from outside call: ``[HOST:]PORT``, and the PEM files of certificate and key, if not the SVID."""

    address: str
    certificate: tuple[Path, Path] | None = None


def edge_of(address: str | None, certificate: str | None, key: str | None) -> Edge | None:
    """Return the edge that a launch asks for; raises InputError when its files cannot be used."""
    if address is None or (certificate is None) != (key is None):
        if certificate is None and key is None:
            return None
        raise InputError("an edge certificate needs --edge, --edge-certificate and --edge-key together")
    if certificate is None or key is None:
        return Edge(address=address)
    for name in (certificate, key):
        path = Path(name)
        if not path.is_absolute() or not path.is_file():
            raise InputError(f"there is no file {name[:200]}")
    if Path(key).stat().st_mode & 0o077:
        raise InputError(f"others may read the key {key[:200]}", hint=f"chmod 600 {key[:200]}")
    return Edge(address=address, certificate=(Path(certificate), Path(key)))


def load_key(path: Path, entropy: Entropy) -> Secret:
    """Return the agent's own key, made at first use with mode 0600."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        key = path.read_bytes()
        if len(key) == KEY_BYTES:
            return Secret(key)
        path.unlink()  # cut short by a crash; launches of before must start anew
        return load_key(path, entropy)
    with os.fdopen(descriptor, "wb") as stream:
        key = entropy.token_bytes(KEY_BYTES)
        stream.write(key)
    return Secret(key)


def egress_secret(key: Secret, instance: str) -> Secret:
    """Derive the secret that lets the workload of ``instance`` use its egress proxy (64 hex digits)."""
    return Secret(hmac.new(key.reveal(), f"egress:{instance}".encode(), hashlib.sha256).hexdigest().encode())


def may_run(service: Service) -> bool:
    """Tell whether ``everyhop run`` alone is a way to be an instance of a service."""
    wanted = Selector(type="run", value=service.name)
    return any(wanted in alternative for alternative in service.workload)


def plan_launch(
    snapshot: Snapshot,
    service_name: str,
    run_pid: int,
    *,
    places: Places,
    live: Collection[Launch],
    entropy: Entropy,
    port: int | None,
    edge: Edge | None = None,
) -> Launch:
    """Decide everything about a new launch.

    Raises NotFound for an unknown service, AccessDenied when its ``workload`` does not name ``run: true`` or the
    process is another user's, Conflict when a chosen port is in use, InputError when ``edge`` is no address,
    AttestationError when the ``run`` process is gone.
    """
    service = snapshot.services.get(service_name)
    if service is None:
        raise NotFound(
            f"no service {service_name!r} in the policy in force", hint="see: everyhop policy show"
        )
    if not may_run(service):
        raise AccessDenied(
            f"the policy does not let `everyhop run` start {service_name}",
            hint=f"add {{run: true}} to services.{service_name}.workload",
        )
    if read_ids(run_pid).effective[0] != os.getuid():
        raise AccessDenied(f"process {run_pid} belongs to another user")
    instance = entropy.token_bytes(5).hex()
    taken = {number for launch in live for number in launch.ports.values()}
    ports = {"app": chosen_port(port, taken) if port is not None else free_port(taken)}
    for name in ("ingress", "egress"):
        ports[name] = free_port(taken | set(ports.values()))
    facts: dict[str, str | int | bool | None] = {"app": None, "envoy_restarts": 0}
    if edge is not None:
        facts["edge"], ports["edge"] = chosen_address(edge.address, taken | set(ports.values()))
        if edge.certificate is not None:
            facts.update(edge_certificate=str(edge.certificate[0]), edge_key=str(edge.certificate[1]))
    directory = places.instances / instance
    directory.mkdir(mode=0o700)
    for parent in (places.envoy, places.spool):
        (parent / instance).mkdir(mode=0o700)
    return Launch(
        instance=instance,
        service=service_name,
        uid=os.getuid(),
        run=ProcessRef(pid=run_pid, start_time=read_stat(run_pid).start_time),
        state=LaunchState.STARTING,
        directories={
            "sockets": str(directory),
            "envoy": str(places.envoy / instance),
            "spool": str(places.spool / instance),
        },
        ports=ports,
        facts=facts,
    )


def environment_of(launch: Launch, secret: Secret, places: Places) -> dict[str, str]:
    """Return the variables that the workload gets (DESIGN section 7)."""
    sockets = Path(launch.directories["sockets"])
    proxy = f"http://{launch.service}:{secret.reveal().decode()}@127.0.0.1:{launch.ports['egress']}"
    return {
        "SPIFFE_ENDPOINT_SOCKET": f"unix://{places.workload_socket}",
        "EVERYHOP_SERVICE": launch.service,
        "EVERYHOP_INSTANCE": launch.instance,
        "EVERYHOP_SOCKET": str(sockets / "app.sock"),
        "UVICORN_UDS": str(sockets / "app.sock"),
        "PORT": str(launch.ports["app"]),
        "HTTP_PROXY": proxy,
        "http_proxy": proxy,
        "EVERYHOP_EGRESS": str(sockets / "egress.sock"),
    }
