# SPDX-License-Identifier: Apache-2.0
"""Compiled configurations of nginx and haproxy, run for real before an echo application, asking the product's authorizer.

Only places are changed in the text: ports, sockets, directories.  What it decides stays as it was compiled.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import ssl

from tests.support.envoy_pair import exchange, free_port, request_bytes
from tests.support.foreign_proxies import NGINX, Process, substitute, write_svid

from everyhop.runtime.target_places import Places, moved, secret_files

HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
SOCKET = "/run/everyhop/authorizer-http.sock"
CERTIFICATES = "/etc/everyhop/svid"


def start_nginx(mesh, files, service, socket):
    """Start the compiled nginx of a service."""
    port = free_port()
    directory = write_svid(mesh, service, mesh.root / f"t-nginx-{port}")
    text = substitute(
        files[f"nginx/{service}/nginx.conf"].decode(),
        {
            "listen 15443": f"listen 127.0.0.1:{port}",
            CERTIFICATES: directory,
            f"server unix:{SOCKET}": f"server unix:{socket}",
            "server 127.0.0.1:8080": f"server unix:{mesh.root / service}.app",
            f"/var/log/nginx/{service}.everyhop.log": directory / "access.json",
            "worker_processes auto": "worker_processes 1",
            # A busy machine: an answer that comes late is no refusal.
            "proxy_read_timeout      3s": "proxy_read_timeout      30s",
            "client_header_timeout       5s": "client_header_timeout       60s",
        },
    )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"    {kind}_temp_path {directory}/{kind};\n" for kind in kinds)
    (directory / "nginx.conf").write_text(text.replace("http {\n", f"http {{\n{places}", 1))
    user = "user root; " if os.getuid() == 0 else ""
    argv = [
        NGINX,
        "-c",
        str(directory / "nginx.conf"),
        "-p",
        str(directory),
        "-e",
        str(directory / "error.log"),
    ]
    argv += ["-g", f"{user}daemon off; pid {directory}/pid;"]
    proxy = Process(mesh, argv, port, directory / "log")
    proxy.directory = directory
    return proxy


def start_haproxy(mesh, files, service, socket):
    """Start the compiled haproxy of a service."""
    port = free_port()
    directory = write_svid(mesh, service, mesh.root / f"t-haproxy-{port}")
    (directory / "svid.pem.key").symlink_to("key.pem")
    upstream = f"server application unix@{mesh.root / service}.app"
    text = substitute(
        files[f"haproxy/{service}/haproxy.cfg"].decode(),
        {
            "bind :15443": f"bind 127.0.0.1:{port}",
            CERTIFICATES: directory,
            f"/etc/everyhop/haproxy/{service}": directory,
            "server application 127.0.0.1:8080": upstream,
            "    user haproxy\n    group haproxy\n": "",
            # A busy machine: an answer that comes late is no refusal.
            "session-timeout 5s": "session-timeout 60s",
            "timeout http-request 5s": "timeout http-request 60s",
        },
    )
    lua = substitute(
        files[f"haproxy/{service}/everyhop.lua"].decode(),
        {f"unix@{SOCKET}": f"unix@{socket}", "SECONDS = 3": "SECONDS = 30"},
    )
    (directory / "haproxy.cfg").write_text(text)
    (directory / "everyhop.lua").write_text(lua)
    proxy = Process(mesh, [HAPROXY, "-db", "-f", str(directory / "haproxy.cfg")], port, directory / "log")
    proxy.directory = directory
    return proxy


def start_envoy(mesh, files, service, socket):
    """Start the compiled Envoy of a service, with the real application and the real authorizer."""
    port = free_port()
    places = Places(mesh.root / f"t-envoy-{port}")
    write_svid(mesh, service, places.certificates)
    places.secrets.mkdir()
    for name, content in secret_files(places).items():
        (places.secrets / name).write_bytes(content)
    document = json.loads(moved(files[f"envoy/{service}/bootstrap.json"], places, ""))
    resources = document["static_resources"]
    resources["listeners"].pop()  # the application's stand-in
    resources["listeners"][0]["address"]["socket_address"]["port_value"] = port
    for cluster in resources["clusters"]:
        path = socket if cluster["name"] == "authorizer" else mesh.root / f"{service}.app"
        (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        endpoint["endpoint"]["address"]["pipe"]["path"] = str(path)
    places.bootstrap.write_text(json.dumps(document))
    argv = [str(mesh.envoy), "-c", str(places.bootstrap), "--use-dynamic-base-id", "--concurrency", "1"]
    argv += ["-l", "warning", "--file-flush-interval-msec", "20"]
    proxy = Process(mesh, argv, port, places.log)
    proxy.directory = places.root
    return proxy


def ask(mesh, proxy, method, path, *, caller="web", headers=(), body=b"", context=None):
    """Send one request on a connection of its own; the answer, or None when it ended without one."""
    try:
        with proxy.connect(context or context_of(mesh, caller)) as connection:
            connection.settimeout(60)
            return exchange(connection, request_bytes(method, path, headers=headers, body=body))
    except (ssl.SSLError, OSError, http.client.HTTPException):
        return None


class Asker:
    """Many requests, over one connection for each caller as long as it lives."""

    def __init__(self, mesh, proxy):
        self._mesh, self._proxy, self._kept = mesh, proxy, {}

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        for connection in self._kept.values():
            connection.close()

    def ask(self, caller, method, path):
        """The status of one request, None when the connection ended without an answer."""
        for _ in range(2):
            kept = caller in self._kept
            try:
                connection = self._kept.get(caller)
                if connection is None:
                    connection = self._kept[caller] = self._proxy.connect(context_of(self._mesh, caller))
                    connection.settimeout(60)
                connection.sendall(request_bytes(method, path))
                answer = http.client.HTTPResponse(connection, method=method)
                answer.begin()
                answer.read()
                if answer.will_close:
                    self._kept.pop(caller).close()
                return answer.status
            except (ssl.SSLError, OSError, http.client.HTTPException):
                self._kept.pop(caller).close()
                if not kept:
                    break
        return None


def context_of(mesh, caller):
    """A client context of a caller, made once."""
    kept = mesh.__dict__.setdefault("client_contexts", {})
    if caller not in kept:
        kept[caller] = mesh.client(caller)
    return kept[caller]
