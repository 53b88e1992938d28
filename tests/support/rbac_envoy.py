# SPDX-License-Identifier: Apache-2.0
"""A real Envoy that decides by RBAC filters, one listener each, with mutual TLS and without; and filters made at random."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import ipaddress
import json
import random
import signal
import socket
import ssl
import subprocess
import time
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives import serialization
from tests.support import identity

from everyhop.dataplane.envoy import locate_envoy
from everyhop.evaluators.envoy_rbac import Attempt
from everyhop.x509.certificates import certificates_to_pem

_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_RBAC = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
_INSPECTOR = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
_TEMPLATE = "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
_LOOPBACK = ipaddress.ip_address("127.0.0.1")
_START_SECONDS = 20


class RbacEnvoy:
    """An Envoy with two listeners for each set of filters (typed configs of RBAC), and further plain ones.

    ``plain`` are members of a connection manager, by name; each answers 200 with the path that filters see in ``x-path``.
    """

    def __init__(self, root, chains, plain=None):
        self._root = root
        now = datetime.now(UTC)
        self._ca = identity.TestCa(not_before=now - timedelta(hours=1), not_after=now + timedelta(hours=2))
        (root / "ca.pem").write_bytes(certificates_to_pem([self._ca.der]))
        self._contexts = {}
        self._write("server", "spiffe://mesh.test/server")
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2 * len(chains) + len(plain or {}))]
        ports = [one.getsockname()[1] for one in sockets]
        for one in sockets:
            one.close()
        self._ports = ports[: 2 * len(chains)]
        self._plain = dict(zip(plain or {}, ports[2 * len(chains) :], strict=True))
        listeners = [
            self._listener(port, chains[at // 2], is_tls=at % 2 == 1) for at, port in enumerate(self._ports)
        ]
        listeners += [self._listener(port, [], members=plain[name]) for name, port in self._plain.items()]
        (root / "bootstrap.json").write_text(json.dumps({"static_resources": {"listeners": listeners}}))
        self._connections = {}

    def __enter__(self):
        self._log = (self._root / "log").open("wb")
        self._process = subprocess.Popen(
            [
                str(locate_envoy()),
                *("--config-path", str(self._root / "bootstrap.json")),
                *("--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"),
            ],
            stdout=self._log,
            stderr=self._log,
            preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL),  # noqa: PLW1509  # one system call
        )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(
                    ("127.0.0.1", self._ports[-1] if self._ports else next(iter(self._plain.values()))), 1
                ).close()
                return self
            assert self._process.poll() is None, (self._root / "log").read_text()
            assert time.monotonic() < deadline, "Envoy does not answer"
            time.sleep(0.02)

    def __exit__(self, *_):
        for one in self._connections.values():
            one.close()
        self._process.terminate()
        self._process.wait(timeout=10)
        self._log.close()

    def status(self, chain, peer, method, path, headers):
        """Return the status that a chain of filters answers; ``peer`` is None for plaintext, "" for TLS without a certificate."""
        key = (chain, peer)
        connection = self._connections.get(key)
        if connection is None:
            port = self._ports[2 * chain + (peer is not None)]
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            if peer is not None:
                raw = socket.create_connection(("127.0.0.1", port), 10)
                connection.sock = self._context(peer).wrap_socket(raw, server_hostname="server")
            self._connections[key] = connection
        return _answer(connection, method, path, headers)[0]

    def seen(self, name, path):
        """Return the path that filters of a plain listener see, None where Envoy answers 400."""
        connection = http.client.HTTPConnection("127.0.0.1", self._plain[name], timeout=10)
        try:
            status, answer = _answer(connection, "GET", path, {":authority": "a"})
            return answer.getheader("x-path") if status != http.HTTPStatus.BAD_REQUEST else None
        finally:
            connection.close()

    def attempt(self, chain, peer, method, path, headers):
        """Return what the filter sees of the same request."""
        return Attempt(
            is_tls=peer is not None,
            uris=(peer,) if peer else (),
            headers={":method": method, ":path": path, **headers},
            source_ip=_LOOPBACK,
            direct_remote_ip=_LOOPBACK,
            remote_ip=_LOOPBACK,
            destination_ip=_LOOPBACK,
            port=self._ports[2 * chain + (peer is not None)],
            server_name="" if peer is None else "server",
        )

    def _context(self, peer):
        found = self._contexts.get(peer)
        if found is None:
            found = ssl.create_default_context(cafile=str(self._root / "ca.pem"))
            found.check_hostname = False
            if peer:
                name = f"client-{len(self._contexts)}"
                self._write(name, peer)
                found.load_cert_chain(self._root / f"{name}.pem", self._root / f"{name}.key")
            self._contexts[peer] = found
        return found

    def _write(self, name, uri):
        key = identity.new_key()
        now = datetime.now(UTC)
        leaf = self._ca.leaf(
            key=key, uri=uri, not_before=now - timedelta(hours=1), not_after=now + timedelta(hours=1)
        )
        (self._root / f"{name}.pem").write_bytes(certificates_to_pem([leaf]))
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self._root / f"{name}.key").write_bytes(text)

    def _listener(self, port, filters, *, is_tls=False, members=None):
        manager = {
            "@type": _HCM,
            "stat_prefix": "x",
            **({"normalize_path": True} if members is None else members),
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": "all",
                        "domains": ["*"],
                        "routes": [
                            {
                                "match": {"prefix": ""},
                                "direct_response": {"status": 200},
                                "response_headers_to_add": [
                                    {"header": {"key": "x-path", "value": "%REQ(:path)%"}}
                                ],
                            }
                        ],
                    }
                ]
            },
            "http_filters": [
                *(
                    {"name": f"rbac-{at}", "typed_config": {"@type": _RBAC, **one}}
                    for at, one in enumerate(filters)
                ),
                {"name": "router", "typed_config": {"@type": _ROUTER}},
            ],
        }
        chain = {"filters": [{"name": "http", "typed_config": manager}]}
        if is_tls:
            server = {name: {"filename": str(self._root / f"server.{end}")} for name, end in (("certificate_chain", "pem"), ("private_key", "key"))}  # fmt: skip
            common = {
                "tls_certificates": [server],
                "validation_context": {"trusted_ca": {"filename": str(self._root / "ca.pem")}},
            }
            chain["transport_socket"] = {
                "name": "tls",
                "typed_config": {"@type": _TLS, "common_tls_context": common},
            }
        address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        inspector = {
            "name": "tls-inspector",
            "typed_config": {"@type": _INSPECTOR},
        }  # it is who knows the server's name
        return {
            "name": f"l{port}",
            "address": address,
            "listener_filters": [inspector] if is_tls else [],
            "filter_chains": [chain],
        }


def _answer(connection, method, path, headers):
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader("host" if name == ":authority" else name, value)
    connection.endheaders()
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer


METHODS = ("GET", "POST", "DELETE")
PATHS = (
    "/",
    "/a",
    "/A",
    "/a/",
    "/a/b",
    "/a/x/b",
    "/a/x=1;y/b",
    "/a|b",
    "/a?b",
    "/a/b?c=/a",
    "/ab",
    "/a/%2fb",
    "/g/",
    "/g/h/i",
)
HOSTS = ("a.test", "A.TEST", "b.test:80")
VALUES = (None, "", "one", "One", "one two")
PEERS = (
    None,
    "",
    "spiffe://mesh.test/ns/a/sa/b",
    "spiffe://mesh.test/ns/a/sa/bc",
    "spiffe://evil.test/ns/a/sa/b",
)
TEMPLATES = ("/*", "/a/*", "/a/*/b", "/a/**", "/g/**", "/**/b", "/a/")
PATTERNS = ("/a|/ab", ".*", "/a/[^/]+/b", "/.+", "(?:/a)?/b")


def random_filter(rng: random.Random):
    """Return an RBAC filter's members, made of everything that needs no metadata."""
    policies = {
        f"p{number}": {
            "permissions": [_permission(rng, 2) for _ in range(rng.randint(1, 2))],
            "principals": [_principal(rng, 2) for _ in range(rng.randint(1, 2))],
        }
        for number in range(rng.randint(0, 3))
    }
    return {"rules": {"action": rng.choice(("ALLOW", "ALLOW", "DENY", "LOG")), "policies": policies}}


def random_request(rng: random.Random):
    """Return peer, method, path and headers."""
    headers = {":authority": rng.choice(HOSTS)}
    value = rng.choice(VALUES)
    if value is not None:
        headers["x-a"] = value
    return rng.choice(PEERS), rng.choice(METHODS), rng.choice(PATHS), headers


def _text(rng, texts, *, patterns=()):
    kinds = ["exact", "prefix", "suffix", "contains", *(["safe_regex"] if patterns else [])]
    kind = rng.choice(kinds)
    if kind == "safe_regex":
        return {"safe_regex": {"regex": rng.choice(patterns)}}
    wanted = rng.choice(texts)
    if kind != "exact":
        cut = rng.randint(1, max(1, len(wanted)))
        wanted = (wanted[:cut] if kind == "prefix" else wanted[-cut:]) or "x"
    return {kind: wanted, **({"ignore_case": True} if rng.random() < 0.3 else {})}


def _header(rng):
    name, texts = rng.choice(
        ((":method", METHODS), (":authority", HOSTS), ("x-a", VALUES[1:]), (":path", PATHS))
    )
    made = {"name": name}
    if rng.random() < 0.25:
        made["present_match"] = rng.random() < 0.7
    else:
        made["string_match"] = _text(rng, texts)
    if rng.random() < 0.25:
        made["invert_match"] = True
    if rng.random() < 0.2:
        made["treat_missing_header_as_empty"] = True
    return {"header": made}


def _range(rng):
    return rng.choice(
        (
            {"address_prefix": "127.0.0.0", "prefix_len": 8},
            {"address_prefix": "127.0.0.1", "prefix_len": 32},
            {"address_prefix": "10.0.0.0", "prefix_len": 8},
            {"address_prefix": "::", "prefix_len": 0},
        )
    )


def _permission(rng, depth):
    kind = rng.randrange(10 if depth else 7)
    match kind:
        case 0 | 1:
            return {
                "url_path": {"path": _text(rng, [one.partition("?")[0] for one in PATHS], patterns=PATTERNS)}
            }
        case 2:
            config = {"@type": _TEMPLATE, "path_template": rng.choice(TEMPLATES)}
            return {
                "uri_template": {
                    "name": "envoy.path.match.uri_template.uri_template_matcher",
                    "typed_config": config,
                }
            }
        case 3 | 4:
            return _header(rng)
        case 5:
            return {"destination_ip": _range(rng)}
        case 6:
            return rng.choice(({"any": True}, {"requested_server_name": _text(rng, ("server", "other"))}))
        case 7:
            return {"not_rule": _permission(rng, depth - 1)}
        case _:
            rules = [_permission(rng, depth - 1) for _ in range(rng.randint(1, 3))]
            return {rng.choice(("and_rules", "or_rules")): {"rules": rules}}


def _principal(rng, depth):
    kind = rng.randrange(9 if depth else 6)
    match kind:
        case 0 | 1:
            names = [one for one in PEERS if one]
            name = _text(rng, names, patterns=(".*/ns/a/.*", ".+", "spiffe://.*b"))
            return {"authenticated": {"principal_name": name} if rng.random() < 0.8 else {}}
        case 2:
            return _header(rng)
        case 3:
            return {rng.choice(("direct_remote_ip", "remote_ip")): _range(rng)}
        case 4:
            return {"url_path": {"path": _text(rng, ("/a", "/ab"))}}
        case 5:
            return {"any": True}
        case 6:
            return {"not_id": _principal(rng, depth - 1)}
        case _:
            ids = [_principal(rng, depth - 1) for _ in range(rng.randint(1, 3))]
            return {rng.choice(("and_ids", "or_ids")): {"ids": ids}}


def random_tree(rng: random.Random):
    """Return an RBAC filter's members with a matcher tree, nested once or twice."""
    return {"matcher": _tree(rng, 2)}


def _tree(rng, depth):
    common = "type.googleapis.com/envoy.extensions.matching.common_inputs."
    header = "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
    config, texts = rng.choice(
        (
            ({"@type": f"{common}ssl.v3.UriSanInput"}, [one for one in PEERS if one]),
            ({"@type": header, "header_name": ":method"}, METHODS),
            ({"@type": header, "header_name": "x-a"}, [one for one in VALUES if one]),
        )
    )
    value = {"name": "input", "typed_config": config}
    if rng.random() < 0.5:
        kind = rng.choice(("exact_match_map", "prefix_match_map"))
        keys = texts if kind == "exact_match_map" else [one[: rng.randint(1, len(one))] for one in texts]
        branches = {
            key: _leaf(rng, depth) for key in dict.fromkeys(rng.sample(keys, rng.randint(1, len(keys))))
        }
        made = {"matcher_tree": {"input": value, kind: {"map": branches}}}
    else:
        predicates = [
            {"single_predicate": {"input": value, "value_match": _text(rng, texts)}}
            for _ in range(rng.randint(1, 2))
        ]
        predicate = (
            predicates[0]
            if len(predicates) == 1
            else {rng.choice(("and_matcher", "or_matcher")): {"predicate": predicates}}
        )
        if rng.random() < 0.3:
            predicate = {"not_matcher": predicate}
        made = {"matcher_list": {"matchers": [{"predicate": predicate, "on_match": _leaf(rng, depth)}]}}
    return made | ({"on_no_match": _leaf(rng, depth - 1)} if depth < 2 or rng.random() < 0.7 else {})


def _leaf(rng, depth):
    if depth > 0 and rng.random() < 0.4:
        return {"matcher": _tree(rng, depth - 1)}
    config = {
        "@type": "type.googleapis.com/envoy.config.rbac.v3.Action",
        "name": "n",
        "action": rng.choice(("ALLOW", "ALLOW", "DENY", "LOG")),
    }
    return {"action": {"name": "action", "typed_config": config}}
