# SPDX-License-Identifier: Apache-2.0
"""Claim: policy and record cost a sidecar pair at most 10 % of the throughput of the same pair with TLS alone.

A call goes through two proxies: from the client over loopback to the egress, by mutual TLS 1.3 to the ingress, and
on to an application on a Unix socket (an Envoy that answers by itself; the same one for all).  Compared are

- ``ours``: egress secret, HTTP/2 between the sidecars, identity, policy, headers and a record on both sides, once
  under a policy of 10 operations and once of 10,000;
- ``tls``: the same two Envoys that forward and do nothing else, also HTTP/2 under mutual TLS;
- ``nginx``: two nginx with mutual TLS, one worker each, HTTP/1.1 with kept connections, no policy, no log (for scale).

Rounds alternate and the median of the rounds counts, because neighbours disturb all sides alike.  Every side must
answer 200, and ours must answer 403 to what the policy does not allow.  The load comes from wrk, or from a plain
client of this script where wrk is absent; then only the ratio says something.  Exit 0: at least 0.90 of the
throughput and at most 1.10 of the median latency at both sizes, 1: less.
"""

import argparse
import asyncio
import base64
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives import serialization

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.envoy_pair import SECRET, Mesh, exchange, free_port, request_bytes, wait_for  # noqa: E402

from everyhop.dataplane.envoy import envoy_version, locate_envoy  # noqa: E402
from everyhop.x509.certificates import certificates_to_pem  # noqa: E402
from everyhop.x509.csr import build_csr  # noqa: E402
from everyhop.x509.keys import generate_private_key  # noqa: E402

SIZES = (10, 10_000)
CONNECTIONS = 16
THROUGHPUT_BAR, LATENCY_BAR = 0.90, 1.10
TLS13 = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
TYPE = "type.googleapis.com/envoy.extensions."
ROUTER = {"name": "router", "typed_config": {"@type": TYPE + "filters.http.router.v3.Router"}}
H2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def policy(size):
    operations = "\n".join(f"      op{number}: GET /resource/{number}" for number in range(size))
    return f"""\
version: 1
trust_domain: shop.example
services:
  storefront: {{}}
  orders:
    operations:
{operations}
allow:
  - {{from: storefront, to: orders, operations: all}}
"""


# --- the three sides


class Processes:
    """What this script started, to be ended by it."""

    def __init__(self):
        self.all = []

    def start(self, argv, log):
        self.all.append(subprocess.Popen(argv, stdout=log.open("wb"), stderr=subprocess.STDOUT))
        return self.all[-1]

    def close(self):
        for process in self.all:
            process.send_signal(signal.SIGTERM)
        for process in self.all:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def manager(name, route):
    hosts = [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **route}]}]
    return {
        "name": "http",
        "typed_config": {
            "@type": TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name,
            "route_config": {"name": name, "virtual_hosts": hosts},
            "http_filters": [ROUTER],
            "generate_request_id": False,
        },
    }


def envoy(processes, binary, directory, name, listener, clusters):
    """Start an Envoy with one static listener, one worker."""
    path = directory / f"{name}.json"
    static = {"listeners": [{"name": name, **listener}], "clusters": clusters}
    path.write_text(json.dumps({"static_resources": static}))
    argv = [binary, "-c", path, "--use-dynamic-base-id", "--concurrency", "1", "-l", "error"]
    processes.start([str(word) for word in argv], directory / f"{name}.log")


def cluster(name, address, *, http2=False, tls=None):
    endpoint = {"endpoint": {"address": address}}
    made = {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if http2:
        options = {
            "@type": f"type.googleapis.com/{H2}",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
        made["typed_extension_protocol_options"] = {H2: options}
    if tls:
        made["transport_socket"] = tls
    return made


def tls_context(kind, files, **more):
    chain = {
        "certificate_chain": {"filename": str(files["cert"])},
        "private_key": {"filename": str(files["key"])},
    }
    common = {
        "tls_params": TLS13,
        "alpn_protocols": ["h2"],
        "tls_certificates": [chain],
        "validation_context": {"trusted_ca": {"filename": str(files["ca"])}},
    }
    message = TYPE + f"transport_sockets.tls.v3.{kind}"
    config = {"@type": message, "common_tls_context": common, **more}
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def loopback(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def application(processes, binary, directory):
    """Start the application: it answers 200 at once."""
    path = directory / "app.sock"
    answer = {"direct_response": {"status": 200, "body": {"inline_string": "ok"}}}
    listener = {
        "address": {"pipe": {"path": str(path)}},
        "filter_chains": [{"filters": [manager("app", answer)]}],
    }
    envoy(processes, binary, directory, "app", listener, [])
    wait_for(path.exists)
    return path


def tls_pair(processes, binary, directory, files, app):
    """Start two Envoys that forward under mutual TLS and do nothing else; return the port of the first."""
    inner, outer = free_port(), free_port()
    forward = {"route": {"cluster": "app", "timeout": "0s"}}
    chain = {
        "filters": [manager("in", forward)],
        "transport_socket": tls_context(
            "DownstreamTlsContext", files["orders"], require_client_certificate=True
        ),
    }
    listener = {"address": loopback(inner), "filter_chains": [chain], "enable_reuse_port": False}
    envoy(processes, binary, directory, "tls-in", listener, [cluster("app", {"pipe": {"path": str(app)}})])
    forward = {"route": {"cluster": "orders", "timeout": "0s"}}
    upstream = cluster(
        "orders", loopback(inner), http2=True, tls=tls_context("UpstreamTlsContext", files["storefront"])
    )
    listener = {"address": loopback(outer), "filter_chains": [{"filters": [manager("out", forward)]}]}
    envoy(processes, binary, directory, "tls-out", {**listener, "enable_reuse_port": False}, [upstream])
    return outer


NGINX = """\
{user}worker_processes 1; daemon off; pid {dir}/{name}.pid; error_log {dir}/{name}.err; events {{ worker_connections 512; }}
http {{ access_log off; keepalive_requests 10000000; client_body_temp_path {dir}/t; proxy_temp_path {dir}/t;
fastcgi_temp_path {dir}/t; uwsgi_temp_path {dir}/t; scgi_temp_path {dir}/t;
upstream next {{ server {next}; keepalive 64; keepalive_requests 10000000; }}
server {{ listen 127.0.0.1:{port} {ssl}; {server}
location / {{ proxy_pass {scheme}://next; proxy_http_version 1.1; proxy_set_header Connection ""; {proxy} }} }} }}
"""


def nginx_pair(processes, directory, files, app):
    """Start two nginx with mutual TLS; return the port of the first, None where there is no nginx."""
    binary = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if binary is None:
        return None
    inner, outer = free_port(), free_port()
    common = "ssl_protocols TLSv1.3; ssl_certificate {cert}; ssl_certificate_key {key}; ssl_client_certificate {ca};"
    server = common.format(**files["orders"]) + " ssl_verify_client on;"
    proxy = (
        "proxy_ssl_protocols TLSv1.3; proxy_ssl_certificate {cert}; proxy_ssl_certificate_key {key}; "
        "proxy_ssl_trusted_certificate {ca};"
    ).format(**files["storefront"])
    for name, port, ssl, head, scheme, tail, target in (
        ("nginx-in", inner, "ssl", server, "http", "", f"unix:{app}"),
        ("nginx-out", outer, "", "", "https", proxy, f"127.0.0.1:{inner}"),
    ):
        path = directory / f"{name}.conf"
        text = NGINX.format(
            user="user root; " if os.getuid() == 0 else "",
            dir=directory,
            name=name,
            port=port,
            ssl=ssl,
            server=head,
            scheme=scheme,
            proxy=tail,
            next=target,
        )
        path.write_text(text)
        processes.start([binary, "-c", str(path), "-p", str(directory)], directory / f"{name}.log")
    return outer


def certificate_files(mesh, directory):
    """Write SVIDs of both services to files, for the sides that read files."""
    found = {}
    ca = directory / "ca.pem"
    ca.write_bytes(certificates_to_pem(mesh.authority.certificates))
    for service in ("orders", "storefront"):
        key = generate_private_key()
        cert, key_file = directory / f"{service}.pem", directory / f"{service}.key"
        signed = mesh.authority.sign(mesh.spiffe_id(service), build_csr(key))
        cert.write_bytes(certificates_to_pem(signed.chain))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        found[service] = {"cert": cert, "key": key_file, "ca": ca}
    return found


# --- load


def by_wrk(port, headers, seconds):
    """Return requests a second, median and 99th percentile in ms."""
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency"]
    for name, value in headers:
        argv += ["-H", f"{name}: {value}"]
    done = subprocess.run(
        [*argv, f"http://127.0.0.1:{port}/resource/7"], capture_output=True, text=True, check=True
    )
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(f"not every call succeeded:\n{done.stdout}")
    unit = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    latencies = {
        share: float(number) * unit[u]
        for share, number, u in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s)\b", done.stdout)
    }
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    return float(rate[1]), latencies["50"], latencies["99"]


def by_python(port, headers, seconds):
    """The same from a plain client; its own cost hides part of the difference."""
    raw = plain_request(headers)
    times = []

    async def one(until):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < until:
            began = time.perf_counter()
            writer.write(raw)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"not every call succeeded: {head!r}")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(length[1]))
            times.append(time.perf_counter() - began)
        writer.close()

    async def all_of_them():
        until = time.monotonic() + seconds
        await asyncio.gather(*(one(until) for _ in range(CONNECTIONS)))

    asyncio.run(all_of_them())
    times.sort()
    return len(times) / seconds, times[len(times) // 2] * 1000, times[len(times) * 99 // 100] * 1000


# --- the comparison


def check(mesh):
    """Check that ours decides: 200 for what is allowed, 403 for what is not."""
    with mesh.connect("orders", mesh.client("storefront")) as connection:
        assert exchange(connection, request_bytes("GET", "/resource/7"))[0] == 200
        assert exchange(connection, request_bytes("GET", "/resource/x"))[0] == 403
        assert exchange(connection, request_bytes("POST", "/resource/7"))[0] == 403


def answers(port, headers):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        status, _, _ = exchange(connection, plain_request(headers))
    return status == 200


def plain_request(headers):
    lines = ["GET /resource/7 HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode()


def in_force(mesh):
    return all(mesh.secrets.configs.enforced(name) == mesh.snapshot.hash for name in mesh.sidecars)


def compare(sides, load, rounds, seconds):
    results = {name: [] for name in sides}
    for name, (port, headers) in sides.items():
        wait_for(lambda port=port, headers=headers: answers(port, headers), what=f"a 200 of {name}")
        load(port, headers, 1)  # warm-up
        assert results[name] == []
    for _ in range(rounds):
        for name, (port, headers) in sides.items():
            results[name].append(load(port, headers, seconds))
    return {
        name: tuple(statistics.median(column) for column in zip(*rows, strict=True))
        for name, rows in results.items()
    }


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each side in each round")
    options = parser.parse_args(argv)
    load = by_wrk if shutil.which("wrk") else by_python
    binary = locate_envoy()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Envoy {'.'.join(map(str, envoy_version(binary)))}, ",
        end="",
    )
    print(
        f"load {os.getloadavg()[0]:.1f} before; {CONNECTIONS} connections, {load.__name__.removeprefix('by_')}; ",
        end="",
    )
    print(f"median of {options.rounds} alternating rounds of {options.seconds} s")

    processes, met = Processes(), True
    directory = Path(tempfile.mkdtemp(prefix="ehb-", dir="/tmp"))
    try:
        with Mesh(policy(SIZES[0])) as mesh:
            app = application(processes, binary, directory)
            (mesh.root / "orders.app").symlink_to(app)
            mesh.apps["orders"] = mesh.apps["storefront"] = type("None", (), {"close": lambda _: None})()
            mesh.sidecar("orders")
            mesh.sidecar("storefront", app=False)
            files = certificate_files(mesh, directory)
            secret = base64.b64encode(b"storefront:" + SECRET).decode()
            ours = mesh.sidecars["storefront"].sidecar.egress_port
            headers = [("Host", "orders"), ("Proxy-Authorization", f"Basic {secret}")]
            sides = {
                "ours": (ours, headers),
                "tls": (tls_pair(processes, binary, directory, files, app), headers),
            }
            if (port := nginx_pair(processes, directory, files, app)) is not None:
                sides["nginx"] = (port, headers)
            time.sleep(0.5)
            for size in SIZES:
                mesh.apply(policy(size))
                wait_for(lambda: in_force(mesh), seconds=60, what="the policy in both sidecars")
                check(mesh)
                result = compare(sides, load, options.rounds, options.seconds)
                print(f"-- {size} operations")
                for name, (rate, median, tail) in result.items():
                    print(f"   {name:<6} {rate:9.0f} calls/s   p50 {median:6.2f} ms   p99 {tail:6.2f} ms")
                rate = result["ours"][0] / result["tls"][0]
                latency = result["ours"][1] / result["tls"][1]
                good = rate >= THROUGHPUT_BAR and latency <= LATENCY_BAR
                met = met and good
                print(f"   ours / tls: {rate:.2f} of the throughput (bar {THROUGHPUT_BAR}), ", end="")
                print(f"{latency:.2f} of the median latency (bar {LATENCY_BAR})")
            lines = sum(len(s.sidecar.access_log.read_bytes().splitlines()) for s in mesh.sidecars.values())
            print(f"   {lines} decisions were recorded meanwhile")
    finally:
        processes.close()
        shutil.rmtree(directory, ignore_errors=True)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
