# SPDX-License-Identifier: Apache-2.0
"""Istio's own validation and translation of our objects, and a real Envoy that runs what istiod would send."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from tests.support.peers import peer_program

from everyhop.dataplane.envoy import locate_envoy

PROGRAM = "istio-check"
PROVIDER = "everyhop"
_EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"
_STATE = {
    "@type": f"{_EXTENSIONS}.http.set_filter_state.v3.Config",
    "on_request_headers": [
        {
            "object_key": "io.istio.peer_principal",
            "factory_key": "envoy.string",
            "format_string": {
                "text_format_source": {"inline_string": "%REQ(X-PEER)%"},
                "omit_empty_values": True,
            },
            "skip_if_empty": True,
        }
    ],
}
# What Istio's jwt_authn leaves of a verified token: its claims, `scope` and `aud` as lists.
_CLAIMS = """
local function list(text)
  local found = {}
  for one in string.gmatch(text, "[^,]+") do found[#found + 1] = one end
  return found
end
function envoy_on_request(handle)
  local text = handle:headers():get("x-claims")
  if text == nil then return end
  local iss, client, aud, scope = string.match(text, "^([^|]*)|([^|]*)|([^|]*)|([^|]*)$")
  local payload = {iss = iss, client_id = client, aud = list(aud), scope = list(scope)}
  handle:streamInfo():dynamicMetadata():set("envoy.filters.http.jwt_authn", "payload", payload)
end
"""


def translated(files, workloads, *, trust_domain="shop.example", aliases=()):
    """Return what Istio says of files (contents by path): see ``tests/peers/istio_check/main.go``.

    ``workloads`` are dicts of name, namespace, labels and waypoint ("" for a sidecar).
    """
    asked = {
        "trust_domain": trust_domain,
        "aliases": list(aliases),
        "provider": PROVIDER,
        "objects": b"\n---\n".join(files.values()).decode(),
        "workloads": workloads,
    }
    done = subprocess.run(
        [peer_program(PROGRAM)],
        input=json.dumps(asked).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1])  # Istio's own log comes before it


class Pods:
    """One Envoy with a listener for each workload."""

    def __init__(self, ports):
        self._ports = ports

    def ask(self, name, peer, method, path, claims=""):
        """Return the status of a call: 200 from the application, anything else from Envoy."""
        headers = f"x-peer: {peer}\r\n" if peer else ""
        headers += f"x-claims: {claims}\r\n" if claims else ""
        request = f"{method} {path} HTTP/1.1\r\nhost: {name}\r\n{headers}\r\n"
        with socket.create_connection(("127.0.0.1", self._ports[name]), timeout=10) as connection:
            connection.sendall(request.encode("latin-1"))
            answer = http.client.HTTPResponse(connection, method=method)
            answer.begin()
            return answer.status


@contextmanager
def pods(workloads, directory: Path, ports):
    """Run Envoy with the HTTP filters of each workload (CUSTOM first, as Istio orders them) before an application.

    ``ports`` are those that the policy says: rules look at them.
    """
    listeners = [
        _listener(ports[name], [*(one["custom"] or ()), *(one["http"] or ())])
        for name, one in workloads.items()
    ]
    clusters = [_nobody(name) for name in sorted(set(_clusters(workloads)))]
    config = directory / "envoy.json"
    config.write_text(json.dumps({"static_resources": {"listeners": listeners, "clusters": clusters}}))
    log = directory / "envoy.log"
    with log.open("wb") as output:
        argv = [
            str(locate_envoy()),
            "-c",
            str(config),
            "--use-dynamic-base-id",
            "--concurrency",
            "1",
            "-l",
            "warning",
        ]
        process = subprocess.Popen(argv, stdout=output, stderr=output)
        try:
            made = Pods(ports)
            deadline = time.monotonic() + 15
            for name in workloads:
                while not _answers(made, name):
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.05)
            yield made
        finally:
            process.terminate()
            process.wait(timeout=10)


def _answers(made, name):
    try:
        made.ask(name, "", "GET", "/")
    except OSError:
        return False
    return True


def free_port():
    """Return a port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _clusters(workloads):
    for one in workloads.values():
        for custom in one["custom"] or ():
            service = custom.get("typedConfig", custom.get("typed_config", {})).get("grpcService", {})
            if service:
                yield service["envoyGrpc"]["clusterName"]


def _nobody(name):
    """Return a cluster at which nobody answers."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 1}}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address}}]}
    return {
        "name": name,
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [endpoint]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }


def _listener(port, policies):
    manager = {
        "@type": f"{_EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "inbound",
        "normalize_path": True,  # pathNormalization BASE
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "app",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}],
                }
            ]
        },
        "http_filters": [
            {"name": "state", "typed_config": _STATE},
            {
                "name": "claims",
                "typed_config": {
                    "@type": f"{_EXTENSIONS}.http.lua.v3.Lua",
                    "default_source_code": {"inline_string": _CLAIMS},
                },
            },
            *policies,
            {"name": "router", "typed_config": {"@type": f"{_EXTENSIONS}.http.router.v3.Router"}},
        ],
    }
    return {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
