# SPDX-License-Identifier: Apache-2.0
"""What Envoy says it runs is what the files say: a second opinion on our encoding of every resource."""

import json
import re

import pytest
from tests.support.envoy_pair import wait_for

TYPE = "type.googleapis.com/"


# Members with the value that protobuf leaves out: Envoy does not show them.
DEFAULTS = {
    "action": "ALLOW",
    "allow_chunked_length": False,
    "codec_type": "AUTO",
    "failure_mode_allow": False,
    "forward_client_cert_details": "SANITIZE",
    "include_peer_certificate": False,
    "merge_slashes": False,
    "op": "EQ",
    "policies": {},
    "endpoints": [],
}
DURATION = re.compile(r"(\d+(?:\.\d+)?)s")


def plain(value):
    """Bring a resource of a file, or of the dump, into one form: no defaults, one way to write a duration."""
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, dict):
        url = value.get("type_url", "")
        if value.get("@type") == TYPE + "xds.type.v3.TypedStruct":
            return plain({"@type": url, **value.get("value", {})})
        shown = {key: plain(inner) for key, inner in value.items() if DEFAULTS.get(key, value) != inner}
        if "host_selection_retry_max_attempts" in shown:
            shown["host_selection_retry_max_attempts"] = str(
                shown["host_selection_retry_max_attempts"]
            )  # 64 bits
        if "context_extensions" in shown:
            shown["context_extensions"] = sorted(shown["context_extensions"])  # values are redacted
        if "users" in shown:
            shown["users"] = "redacted"
        return shown
    if isinstance(value, str) and (match := DURATION.fullmatch(value)):
        return f"{float(match[1]):g}s"
    return value


def in_files(running, *names):
    """Return the resources of files by name."""
    found = {}
    for name in names:
        document = json.loads((running.sidecar.directory / name).read_bytes())
        for resource in document["resources"]:
            found[resource.get("name") or resource["cluster_name"]] = plain(resource)
    return found


def dumped(running, what):
    return json.loads(running.admin(f"/config_dump?resource={what}")[1]).get("configs", [])


@pytest.mark.parametrize("service", ["orders", "storefront", "ledger"])
def test_envoy_runs_what_the_files_say(mesh, service):
    runs_what_its_files_say(mesh.sidecars[service])


def runs_what_its_files_say(running):
    """Compare everything that Envoy dumps with the files of its sidecar."""
    found = [str(p.relative_to(running.sidecar.directory)) for p in running.sidecar.directory.rglob("*.json")]
    listeners = {
        entry["name"]: plain(entry["active_state"]["listener"])
        for entry in dumped(running, "dynamic_listeners")
    }
    assert listeners == in_files(running, "xds/lds.json")
    clusters = {
        entry["cluster"]["name"]: plain(entry["cluster"])
        for entry in dumped(running, "dynamic_active_clusters")
    }
    assert clusters == in_files(running, "xds/cds.json")
    routes = {
        e["route_config"]["name"]: plain(e["route_config"]) for e in dumped(running, "dynamic_route_configs")
    }
    assert routes == in_files(running, *(name for name in found if name.startswith("rds/")))
    filters = {e["ecds_filter"]["name"]: plain(e["ecds_filter"]) for e in dumped(running, "ecds_filters")}
    assert filters == in_files(running, *(name for name in found if name.startswith("ecds/")))


def test_endpoints_too(mesh):
    text = wait_for(lambda: mesh.sidecars["storefront"].admin("/clusters?format=json")[1])
    addresses = {
        status["name"]: [h["address"]["socket_address"] for h in status.get("host_statuses", [])]
        for status in json.loads(text)["cluster_statuses"]
        if status["name"].startswith("to-")
    }
    host, port = mesh.sidecars["orders"].sidecar.ingress
    assert addresses["to-orders"] == [{"address": host, "port_value": port}]


def test_a_sidecar_uses_no_inotify_instance(mesh):
    from pathlib import Path

    for running in mesh.sidecars.values():
        targets = [str(p.readlink()) for p in Path(f"/proc/{running.process.pid}/fd").iterdir()]
        assert not [t for t in targets if "inotify" in t]
