# SPDX-License-Identifier: Apache-2.0
"""Requests that meet and miss what AuthorizationPolicies ask for, and the same as Envoy's RBAC filter sees them.

Used to compare our evaluator with the filters that Istio's own tests expect; nothing of those files is kept here.
"""

from __future__ import annotations

import ipaddress
import random
from dataclasses import dataclass, field

from everyhop.evaluators.envoy_paths import Normalization, normalized
from everyhop.evaluators.envoy_rbac import Attempt
from everyhop.evaluators.model import Request, Token, Wire, Workload

TARGET = Workload(
    name="httpbin",
    namespace="foo",
    service_account="httpbin",
    labels={"app": "httpbin", "version": "v1"},
    ip="10.10.10.10",
)
JWT = "envoy.filters.http.jwt_authn"
BELIEVE_ALL = b"""\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: all, namespace: foo}
spec: {jwtRules: [{jwksUri: 'https://keys.example'}]}
"""


@dataclass
class Shape:
    """One attempt in the making."""

    peer: str | None = None
    method: str = "GET"
    path: str = "/"
    host: str = "a.example"
    port: int = 8080
    ip: str = "10.1.0.9"
    forwarded: str | None = None
    destination: str = "10.10.10.10"
    sni: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    token: dict[str, object] | None = None

    def request(self, wire: Wire) -> Request:
        """Return it as our evaluators are asked."""
        headers = {name: (value,) for name, value in self.headers.items()}
        if self.forwarded is not None:
            headers["x-forwarded-for"] = (self.forwarded,)
        token = None
        if self.token is not None:
            claims = dict(self.token)
            token = Token(
                issuer=claims.pop("iss"),
                subject=claims.pop("sub"),
                audiences=tuple(claims.pop("aud")),
                claims=claims,
            )
        is_http = wire is not Wire.TCP
        target = Workload(
            name=TARGET.name,
            namespace=TARGET.namespace,
            service_account=TARGET.service_account,
            labels=TARGET.labels,
            ip=self.destination,
        )
        return Request(
            source=Workload(name="c", namespace="c", service_account="c", labels={}, ip=self.ip),
            target=target,
            port=self.port,
            peer=self.peer,
            wire=wire,
            method=self.method if is_http else "",
            path=self.path if is_http else "",
            host=self.host if is_http else "",
            headers=headers if is_http else {},
            token=token,
            dns_name=self.sni,
        )

    def attempt(self, wire: Wire) -> Attempt:
        """Return it as Envoy's filter sees it."""
        headers = {}
        metadata = {}
        if wire is not Wire.TCP:
            path = normalized(self.path, Normalization.BASE)
            headers = {":method": self.method, ":path": path, ":authority": self.host, **self.headers}
            if self.token is not None:
                metadata = {JWT: {"payload": dict(self.token)}}
        http_remote = self.forwarded if wire is not Wire.TCP else None
        return Attempt(
            is_tls=self.peer is not None,
            uris=() if self.peer is None else (self.peer,),
            headers=headers,
            source_ip=ipaddress.ip_address(self.ip),
            direct_remote_ip=ipaddress.ip_address(self.ip),
            remote_ip=ipaddress.ip_address(http_remote or self.ip),
            destination_ip=ipaddress.ip_address(self.destination),
            port=self.port,
            server_name=self.sni or "",
            metadata=metadata,
        )


def filled(value: str, rng: random.Random) -> str:
    """Return a text that a value with stars or templates may match."""
    for hole in ("{**}", "{*}", "*"):
        value = value.replace(
            hole, rng.choice(("x", "a/b", "", "x=1") if hole == "{**}" else ("x", "y.z", ""))
        )
    return value


def shapes(rules, domains, rng: random.Random, count: int):
    """Yield attempts: each follows a rule of a policy in some of its fields and strays in up to two others."""
    for _ in range(count):
        shape = Shape(peer=rng.choice((None, "spiffe://cluster.local/ns/foo/sa/b")))
        if rules:
            rule = rng.choice(rules)
            _follow_source(shape, rng.choice(rule.get("from") or [{}]).get("source") or {}, domains, rng)
            _follow_operation(shape, rng.choice(rule.get("to") or [{}]).get("operation") or {}, rng)
            for condition in rule.get("when") or ():
                _follow_when(shape, condition, domains, rng)
        for _ in range(rng.choice((0, 0, 1, 2))):
            _stray(shape, rng)
        yield shape


def _pick(part, names, rng):
    values = [value for name in names for value in part.get(name) or ()]
    return rng.choice(values) if values and rng.random() < 0.95 else None


def _names(name, rng):
    """Mostly what is wanted, now and then what is not."""
    return (name,) if rng.random() < 0.9 else (f"not{name[0].upper()}{name[1:]}",)


def _follow_source(shape, source, domains, rng):
    domain = rng.choice(domains)
    if value := _pick(source, _names("principals", rng), rng):
        shape.peer = "spiffe://" + filled(value, rng)
        if rng.random() < 0.4 and "/" in value:
            shape.peer = f"spiffe://{domain}/{filled(value, rng).partition('/')[2]}"
    if (value := _pick(source, _names("namespaces", rng), rng)) and rng.random() < 0.8:
        shape.peer = f"spiffe://{domain}/ns/{filled(value, rng)}/sa/b"
    if value := _pick(source, _names("serviceAccounts", rng), rng):
        place, slash, account = value.rpartition("/")
        shape.peer = f"spiffe://{domain}/ns/{place if slash else 'foo'}/sa/{account}"
    if value := _pick(source, _names("trustDomains", rng), rng):
        shape.peer = f"spiffe://{filled(value, rng)}/ns/foo/sa/b"
    if value := _pick(source, _names("ipBlocks", rng), rng):
        shape.ip = _address(value)
    if value := _pick(source, _names("remoteIpBlocks", rng), rng):
        shape.forwarded = _address(value)
    if value := _pick(source, _names("requestPrincipals", rng), rng):
        _tokened(shape, value, rng)


def _follow_operation(shape, operation, rng):
    if value := _pick(operation, _names("methods", rng), rng):
        shape.method = filled(value, rng) or "GET"
    if value := _pick(operation, _names("hosts", rng), rng):
        shape.host = filled(value, rng) or "h"
        shape.host = shape.host.upper() if rng.random() < 0.2 else shape.host
    if value := _pick(operation, _names("ports", rng), rng):
        shape.port = int(value)
    if value := _pick(operation, _names("paths", rng), rng):
        path = filled(value, rng)
        shape.path = path if path.startswith("/") else f"/{path}"
        shape.path += rng.choice(("", "", "", "?q=/1", "/", "/more", "x"))


def _follow_when(shape, condition, domains, rng):
    key = condition["key"]
    value = _pick(condition, _names("values", rng), rng)
    if value is None:
        return
    source = {
        "source.principal": "principals",
        "source.namespace": "namespaces",
        "source.serviceAccount": "serviceAccounts",
        "source.trustDomain": "trustDomains",
        "source.ip": "ipBlocks",
        "remote.ip": "remoteIpBlocks",
        "request.auth.principal": "requestPrincipals",
    }.get(key)
    if source is not None:
        _follow_source(shape, {source: [value]}, domains, rng)
    elif key == "destination.ip":
        shape.destination = _address(value)
    elif key == "destination.port":
        shape.port = int(value)
    elif key == "connection.sni":
        shape.sni = filled(value, rng)
    elif key.startswith("request.headers["):
        name = key[len("request.headers[") : -1].lower()
        if name == ":method":
            shape.method = filled(value, rng) or "GET"
        else:
            shape.headers[name] = filled(value, rng)
    elif key.startswith("request.auth."):
        _claimed(shape, key, filled(value, rng), rng)


def _claimed(shape, key, value, rng):
    if shape.token is None:
        shape.token = {"iss": "issuer", "sub": "subject", "aud": ["audience"]}
    names = {"request.auth.audiences": ["aud"], "request.auth.presenter": ["azp"]}.get(key)
    names = names or key[len("request.auth.claims[") : -1].split("][")
    held = shape.token
    for name in names[:-1]:
        held = held.setdefault(name, {})
    as_list = names == ["aud"] or (names[-1] not in {"iss", "sub"} and rng.random() < 0.5)
    held[names[-1]] = ["other", value] if as_list else value


def _tokened(shape, value, rng):
    text = filled(value, rng)
    issuer, slash, subject = text.rpartition("/")
    claims = {"iss": issuer if slash else text, "sub": subject if slash else rng.choice(("", "s", text))}
    shape.token = {"aud": ["audience"], **(shape.token or {}), **claims}


def _address(value):
    network = ipaddress.ip_network(value, strict=False)
    return str(network[min(3, network.num_addresses - 1)])


def _stray(shape, rng):
    match rng.randrange(8):
        case 0:
            shape.peer = rng.choice(
                (None, "spiffe://other/ns/foo/sa/b", "spiffe://cluster.local/ns/a/sa/b/c")
            )
        case 1:
            shape.path = rng.choice(("/", "/x//y", "/a/../b", shape.path + "/x", shape.path.upper()))
        case 2:
            shape.method = rng.choice(("GET", "get", "DELETE"))
        case 3:
            shape.host = rng.choice(("b.example", "x"))
        case 4:
            shape.port = rng.choice((80, 9000, 1))
        case 5:
            shape.ip = "192.0.2.1"
        case 6:
            shape.token = None
        case _:
            shape.headers = {}
