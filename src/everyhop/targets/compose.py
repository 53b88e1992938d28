# SPDX-License-Identifier: Apache-2.0
"""docker-compose.yaml: everyhop beside the services, and for each service a sidecar whose network it shares.

The sidecar is the standalone Envoy of target ``envoy``; it owns the network of the two, so its port is what others reach.  A
container shares no process namespace with the agent, so ``everyhop run`` cannot attest it; a container beside the agent fetches
each SVID into a volume that only that service mounts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from everyhop.dataplane._names import SNAPSHOT_DIGITS
from everyhop.targets._standalone import port_option, upstream_of
from everyhop.targets.compose_probe import probe
from everyhop.targets.model import File
from everyhop.targets.view import View
from everyhop.targets.yaml import Document, Noted, write_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from everyhop.targets.intents import ServiceIntents
    from everyhop.targets.model import Diagnostic

ENVOY: Final = "envoy"
USER: Final = "65532:65532"
"""Of every container but the one that prepares the volumes; a number that belongs to nobody, as in images without root."""

NETWORK: Final = "mesh"
CONTROL, SVIDS, PREPARE = "everyhop", "everyhop-svids", "everyhop-prepare"
_RENEW_SECONDS: Final = 300
_RETRY_SECONDS: Final = 2
_NOTES: Final = (
    "everyhop policy compile --target envoy,compose; do not edit.",
    "",
    "Set EVERYHOP_POLICY to the directory of the policy, and SERVICE_IMAGE for each service that names no image.",
    "Each image has to run as user 65532 with a read-only root; its application listens on 127.0.0.1 alone.",
    "Before it calls others it finds its SVID in /etc/everyhop/svid: svid.pem, key.pem, bundle.pem.",
)


class Compose:
    """``compose/docker-compose.yaml``, beside the files of target ``envoy``."""

    name: Final = "compose"
    summary: Final = "docker-compose.yaml: everyhop, and a sidecar for each service in whose network it lives"

    def compile(self, view: View) -> tuple[Sequence[File], Sequence[Diagnostic]]:
        """Return one file; with an error where it would start sidecars without configuration."""
        envoy = View(view.intents, ENVOY)
        diagnostics: list[Diagnostic] = []
        if ENVOY not in view.beside:
            diagnostics.append(
                view.error(
                    ENVOY,
                    "the sidecars of docker-compose.yaml run what target envoy compiles to",
                    suggestion="policy compile --target envoy,compose",
                )
            )
        services: dict[str, Any] = {}
        served = [one for one in view.intents if not one.service.is_canary]
        services[PREPARE] = _prepare(view, served)
        services[CONTROL] = _control(view)
        services[SVIDS] = _svids(view, served)
        for service in served:
            if not upstream_of(service).is_local:
                diagnostics.append(_elsewhere(view, service))
            services[service.name] = Noted(
                _sidecar(view, envoy, service), f"{service.name}: {_doors(service)}"
            )
            services[f"{service.name}-app"] = _application(service)
        diagnostics += _clashes(view, served)
        document = {
            "name": view.intents.snapshot.trust_domain.name.replace(".", "-"),
            "services": services,
            # Nothing in it reaches the outside; publish a port of a sidecar where clients from outside may call.
            "networks": {NETWORK: {"internal": True}},
            "volumes": {_state(view): {}, **{_volume(one): {} for one in served}},
        }
        notes = (*_NOTES, f"Snapshot {view.intents.snapshot.hash[:SNAPSHOT_DIGITS]}.")
        content = write_yaml([Document(document)], notes)
        return [File(path="compose/docker-compose.yaml", content=content)], diagnostics


def _hardened(*, user: str = USER, **more: Any) -> dict[str, Any]:
    return {
        "user": user,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": ["/tmp"],  # noqa: S108  # inside a container
        **more,
    }


def _prepare(view: View, services: Sequence[ServiceIntents]) -> dict[str, Any]:
    """Return what gives the fresh volumes to their user; it ends at once and holds one capability."""
    paths = ["/state", *(f"/svid/{one.name}" for one in services)]
    return {
        "image": view.option("image"),
        "entrypoint": ["chown", USER, *paths],
        **_hardened(user="0:0", cap_add=["CHOWN"], network_mode="none", restart="no"),
        "volumes": [f"{_state(view)}:/state", *(f"{_volume(one)}:/svid/{one.name}" for one in services)],
    }


def _control(view: View) -> dict[str, Any]:
    return {
        "image": view.option("image"),
        "entrypoint": ["everyhop"],
        "command": ["up", "--state", "/state", "--policy", "/etc/everyhop/policy"],
        **_hardened(network_mode="none", restart="unless-stopped", init=True),
        "volumes": [
            f"{_state(view)}:/state",
            "${EVERYHOP_POLICY:?the directory of the policy}:/etc/everyhop/policy:ro",
        ],
        "healthcheck": _healthcheck(["CMD", "everyhop", "status", "--state", "/state"]),
        "depends_on": {PREPARE: {"condition": "service_completed_successfully"}},
    }


def _svids(view: View, services: Sequence[ServiceIntents]) -> dict[str, Any]:
    """Return what renews the SVIDs; it shares the agent's process namespace, because the agent answers nobody unseen."""
    # In Compose a dollar sign is written twice.  Until the agent has its policy, fetching fails and is tried again soon.
    fetch = " ".join(
        f"everyhop svid fetch {one.name} --state /state --write /svid/{one.name} || wait={_RETRY_SECONDS};"
        for one in services
    )
    ready = " && ".join(f"test -s /svid/{one.name}/key.pem" for one in services)
    return {
        "image": view.option("image"),
        "entrypoint": ["sh", "-c", f"while :; do wait={_RENEW_SECONDS}; {fetch} sleep $$wait; done"],
        **_hardened(network_mode="none", restart="unless-stopped", init=True, pid=f"service:{CONTROL}"),
        "volumes": [f"{_state(view)}:/state", *(f"{_volume(one)}:/svid/{one.name}" for one in services)],
        "healthcheck": _healthcheck(["CMD-SHELL", ready or "true"]),
        "depends_on": {CONTROL: {"condition": "service_healthy"}},
    }


def _sidecar(view: View, envoy: View, service: ServiceIntents) -> dict[str, Any]:
    directory = f"{envoy.option('directory')}/{service.name}"
    port = port_option(envoy, "listen_port")
    argv = ["envoy", "--config-path", f"{directory}/bootstrap.json", "--use-dynamic-base-id"]
    argv += ["--reject-unknown-dynamic-fields", "--concurrency", "1", "--log-level", "warning"]
    return {
        "image": view.option("image"),
        "entrypoint": argv,
        **_hardened(restart="unless-stopped"),
        "networks": {NETWORK: {"aliases": [service.name]}},
        "expose": [str(port)],
        "volumes": [
            f"../envoy/{service.name}:{directory}:ro",
            f"{_volume(service)}:{envoy.option('certificates')}:ro",
        ],
        # It is well when it listens, and nothing else in its network does but on loopback.
        "healthcheck": _healthcheck(["CMD", "python3", "-c", probe(port).replace("$", "$$")]),
        "depends_on": {SVIDS: {"condition": "service_healthy"}},
    }


def _application(service: ServiceIntents) -> dict[str, Any]:
    image = service.place.image or f"${{{_variable(service.name)}:?the image of {service.name}}}"
    return {
        "image": image,
        **_hardened(restart="unless-stopped"),
        "network_mode": f"service:{service.name}",
        "volumes": [f"{_volume(service)}:/etc/everyhop/svid:ro"],
        "depends_on": {service.name: {"condition": "service_started"}},
    }


def _healthcheck(test: Sequence[str]) -> Mapping[str, Any]:
    return {"test": list(test), "interval": "10s", "timeout": "10s", "retries": 3, "start_period": "30s"}


def _doors(service: ServiceIntents) -> str:
    """Say for people how many doors there are, and who may pass any."""
    callers = ", ".join(service.callers[:10]) + (" and more" if len(service.callers) > 10 else "")  # noqa: PLR2004
    return f"{len(service.doors)} door(s); callers: {callers or 'nobody'}"


def _elsewhere(view: View, service: ServiceIntents) -> Diagnostic:
    return view.error(
        "host",
        f"{service.name} is said to be at {service.place.host}, but in docker-compose.yaml it shares its sidecar's loopback",
        suggestion=f"targets: services: {service.name}: host: 127.0.0.1:PORT, or leave host out",
    )


def _clashes(view: View, services: Sequence[ServiceIntents]) -> list[Diagnostic]:
    """Refuse services whose containers would have one name; one variable for two images is one too."""
    taken = {PREPARE, CONTROL, SVIDS}
    variables: set[str] = set()
    found = []
    for service in services:
        names, variable = {service.name, f"{service.name}-app"}, _variable(service.name)
        if names & taken or variable in variables:
            found.append(view.error("name", f"the containers of {service.name} have the names of others"))
        taken |= names
        variables.add(variable)
    return found


def _state(view: View) -> str:
    return str(view.option("state"))


def _volume(service: ServiceIntents) -> str:
    return f"svid-{service.name}"


def _variable(name: str) -> str:
    return name.upper().replace("-", "_") + "_IMAGE"


TARGET: Final = Compose()
