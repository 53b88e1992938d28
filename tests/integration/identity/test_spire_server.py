# SPDX-License-Identifier: Apache-2.0
"""A real SPIRE server reads what we compile: its configuration, and the entries as script and as JSON."""

import json
import os
import socket
import subprocess
import time

import pytest
from tests.support.peers import peer_program
from tests.support.spire_world import compiled, file_of

PROGRAM = peer_program("spire-server")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="spire-server is not on the PATH"),
]
OPTIONS = "  spire: {ttl: 30m, jwt_ttl: 1m, dns: true}\n"
SECONDS = 60
SERVER = """
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{root}/api.sock"
  trust_domain = "shop.example"
  data_dir = "{root}"
  log_level = "WARN"
}}
plugins {{
  DataStore "sql" {{ plugin_data {{ database_type = "sqlite3" connection_string = "{root}/datastore.sqlite3" }} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
}}
"""


def run(*arguments, **further):
    """Run a program to its end; return it with its output as text."""
    return subprocess.run(arguments, capture_output=True, text=True, timeout=SECONDS, check=False, **further)


@pytest.fixture
def server(short_path):
    """A server of the trust domain with a data store of its own; its socket's path."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = short_path / "server.conf"
    config.write_text(SERVER.format(root=short_path, port=port))
    with (short_path / "log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, "run", "-config", str(config)], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + SECONDS
            path = str(short_path / "api.sock")
            while run(PROGRAM, "healthcheck", "-socketPath", path).returncode != 0:
                assert process.poll() is None, (short_path / "log").read_text()
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.1)
            yield path
        finally:
            process.terminate()
            process.wait(timeout=SECONDS)


def entries_of(path):
    """Return the entries that a server holds as (ID, parent, selectors, lives, names)."""
    shown = run(PROGRAM, "entry", "show", "-socketPath", path, "-output", "json")
    assert shown.returncode == 0, shown.stderr

    def identity(one):
        return f"spiffe://{one['trust_domain']}{one['path']}"

    return sorted(
        (
            identity(one["spiffe_id"]),
            identity(one["parent_id"]),
            tuple(sorted(f"{held['type']}:{held['value']}" for held in one["selectors"])),
            int(one.get("x509_svid_ttl") or 0),
            int(one.get("jwt_svid_ttl") or 0),
            tuple(one.get("dns_names") or ()),
        )
        for one in json.loads(shown.stdout)["entries"]
    )


def wanted():
    """Return what the policy wants a server to hold."""
    held = json.loads(file_of(compiled("spire", OPTIONS), "spire/entries.json"))["entries"]
    return sorted(
        (
            one["spiffe_id"],
            one["parent_id"],
            tuple(sorted(f"{each['type']}:{each['value']}" for each in one["selectors"])),
            one.get("x509_svid_ttl", 0),
            one.get("jwt_svid_ttl", 0),
            tuple(one.get("dns_names", ())),
        )
        for one in held
    )


def test_the_configuration_is_valid(tmp_path):
    path = tmp_path / "server.conf"
    path.write_text(file_of(compiled("spire"), "spire/server.conf"))
    found = run(PROGRAM, "validate", "-config", str(path))
    assert found.returncode == 0, found.stdout + found.stderr
    path.write_text(path.read_text().replace("bind_port", "bind_porch"))
    assert run(PROGRAM, "validate", "-config", str(path)).returncode != 0


def test_the_entries_are_taken_as_json(server, tmp_path):
    path = tmp_path / "entries.json"
    path.write_text(file_of(compiled("spire", OPTIONS), "spire/entries.json"))
    found = run(PROGRAM, "entry", "create", "-socketPath", server, "-data", str(path))
    assert found.returncode == 0, found.stdout + found.stderr
    assert entries_of(server) == wanted()


def test_the_entries_are_taken_as_a_script(server, tmp_path):
    shim = tmp_path / "spire-server"  # the script leaves the socket to its default
    shim.write_text(f'#!/bin/sh\nshift 2\nexec {PROGRAM} entry create -socketPath {server} "$@"\n')
    shim.chmod(0o755)
    script = tmp_path / "entries.sh"
    script.write_text(file_of(compiled("spire", OPTIONS), "spire/entries.sh"))
    found = run("sh", str(script), env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert found.returncode == 0, found.stdout + found.stderr
    assert entries_of(server) == wanted()


def test_an_alias_below_spires_own_paths_is_what_the_server_refuses(server):
    """Why such a parent is refused at compile time."""
    arguments = (
        "-node",
        "-spiffeID",
        "spiffe://shop.example/spire/agents",
        "-selector",
        "k8s_psat:cluster:c",
    )
    assert run(PROGRAM, "entry", "create", "-socketPath", server, *arguments).returncode != 0
