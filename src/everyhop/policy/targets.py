# SPDX-License-Identifier: Apache-2.0
"""The ``targets`` part as values: where each service stands in the systems that a policy is compiled to.

What a target may be told is declared here once, in :data:`OPTIONS`; the parser, the JSON Schema and the canonical form follow it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from everyhop.core.problems import Span

OptionValue = str | int | bool | tuple[str, ...]
"""The value of a target's option, of the kind that :data:`OPTIONS` declares."""

DEFAULT_NAMESPACE: Final = "default"
DEFAULT_PORT: Final = 8080
DEFAULT_CLUSTER_DOMAIN: Final = "cluster.local"
APP_LABEL: Final = "app"
WITH: Final = "with"
"""The option that every target has: the other targets which stand on the same hops and hold what this one cannot."""


class OptionKind(StrEnum):
    """What an option's value looks like."""

    NAME = "name"  # a DNS label
    DOMAIN = "domain"  # a DNS name
    TEXT = "text"  # printable ASCII without white space, quotes or backslash
    PATH = "path"  # an absolute path of the same characters
    NUMBER = "number"  # 1 to 1,000,000
    SECONDS = "duration"  # kept in whole seconds
    SWITCH = "switch"  # true or false
    NAMES = "names"  # a list of DNS labels or names
    TEXTS = "texts"  # a list of TEXT


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its kind, what holds without it, what it means, and the only values it has (empty: any of its kind)."""

    kind: OptionKind
    default: OptionValue
    help: str
    choices: tuple[str, ...] = ()


ACCEPT: Final = "accept"
"""The option that every enforcing target has: what the operator accepts to be held by nobody there."""
ACCEPTABLE: Final = ("mtls", "token-binding", "ambiguous-paths")
"""What can be accepted: what a thief inside the caller's place could do, and paths that applications may read in two ways."""


def _with() -> dict[str, Option]:
    return {
        WITH: Option(OptionKind.NAMES, (), "targets on the same hops that hold what this one cannot"),
        ACCEPT: Option(OptionKind.NAMES, (), "accepted to be held by nobody: " + ", ".join(ACCEPTABLE)),
    }


_AUTHORIZER: Final = Option(
    OptionKind.TEXT, "", "where everyhop's authorizer answers; what facts decide is asked there"
)

OPTIONS: Final[Mapping[str, Mapping[str, Option]]] = MappingProxyType(
    {
        "istio": {
            **_with(),
            "root_namespace": Option(OptionKind.NAME, "istio-system", "the mesh's root namespace"),
            "trust_domain_aliases": Option(
                OptionKind.NAMES, (), "trust domains whose identities count as ours"
            ),
            "authorizer": Option(
                OptionKind.NAME,
                "",
                "the extension provider (envoyExtAuthzGrpc) that asks everyhop's authorizer",
            ),
            "authorizer_host": Option(
                OptionKind.DOMAIN, "", "the DNS name of its Service, unless it is in the root namespace"
            ),
        },
        "ambient": {
            **_with(),
            "root_namespace": Option(OptionKind.NAME, "istio-system", "the mesh's root namespace"),
            "trust_domain_aliases": Option(
                OptionKind.NAMES, (), "trust domains whose identities count as ours"
            ),
            "waypoint": Option(
                OptionKind.NAME, "", "the waypoint of each namespace; without it there is no layer 7"
            ),
            "authorizer": Option(
                OptionKind.NAME,
                "",
                "the extension provider (envoyExtAuthzGrpc) that asks everyhop's authorizer",
            ),
        },
        "linkerd": {
            **_with(),
            "control_plane_namespace": Option(
                OptionKind.NAME, "linkerd", "where Linkerd's control plane runs"
            ),
        },
        "cilium": {
            **_with(),
            "dns_namespace": Option(OptionKind.NAME, "kube-system", "where the cluster's DNS runs"),
            "dns_label": Option(OptionKind.TEXT, "k8s-app=kube-dns", "the label of its pods"),
            "cluster": Option(
                OptionKind.NAME,
                "",
                "the cluster's name in a cluster mesh; pods of other clusters are strangers",
            ),
            "traffic": Option(
                OptionKind.TEXT,
                "plain",
                "what Cilium's proxy would see; encrypted by a mesh beside it, rules end at the port",
                ("plain", "encrypted"),
            ),
        },
        "networkpolicy": {
            **_with(),
            "dns_namespace": Option(OptionKind.NAME, "kube-system", "where the cluster's DNS runs"),
            "dns_label": Option(OptionKind.TEXT, "k8s-app=kube-dns", "the label of its pods"),
        },
        "clusternetworkpolicy": {
            **_with(),
            "priority": Option(OptionKind.NUMBER, 100, "of the first policy of the Admin tier"),
            "dns_namespace": Option(OptionKind.NAME, "kube-system", "where the cluster's DNS runs"),
            "dns_label": Option(OptionKind.TEXT, "k8s-app=kube-dns", "the label of its pods"),
        },
        "serviceaccounts": {
            "token_seconds": Option(
                OptionKind.SECONDS, 600, "the life of a projected token, 10 minutes or more"
            ),
        },
        "rbac": {
            "group": Option(OptionKind.TEXT, "policy-admins", "the group that may edit policy objects"),
        },
        "gateway-api": {
            **_with(),
            "gateway": Option(OptionKind.NAME, "", "the Gateway that routes attach to"),
            "gateway_namespace": Option(OptionKind.NAME, "", "its namespace; the services' own without it"),
            "hosts": Option(OptionKind.NAMES, (), "the host names of the routes"),
        },
        "admission": {
            "namespaces": Option(
                OptionKind.NAMES, (), "where the guard rails hold; the services' namespaces without it"
            ),
            "url": Option(
                OptionKind.TEXT,
                "",
                "https URL of the server's face as the cluster reaches it; without it no webhook",
            ),
        },
        "gatekeeper": {
            "namespaces": Option(
                OptionKind.NAMES, (), "where the constraints hold; the services' namespaces without it"
            ),
        },
        "spire": {
            "parent": Option(
                OptionKind.PATH, "/spire-agents", "the path of the parent's SPIFFE ID: an alias of all agents"
            ),
            "cluster": Option(OptionKind.NAME, "everyhop", "the cluster's name for node attestation"),
            "class_name": Option(OptionKind.TEXT, "", "className of the controller manager"),
            "ttl": Option(OptionKind.SECONDS, 3600, "the life of an X509-SVID"),
            "jwt_ttl": Option(OptionKind.SECONDS, 300, "the life of a JWT-SVID"),
            "namespace": Option(OptionKind.NAME, "spire", "where server and agents run"),
            "version": Option(OptionKind.TEXT, "1.14.0", "of the images of server and agent"),
            "images": Option(OptionKind.TEXT, "", "where they are pulled from, before /spire-server"),
            "dns": Option(OptionKind.SWITCH, False, "whether an SVID has the DNS name of the service too"),
        },
        "cert-manager": {
            "issuer": Option(OptionKind.NAME, "", "the Issuer or ClusterIssuer that signs"),
            "issuer_kind": Option(OptionKind.TEXT, "ClusterIssuer", "its kind", ("Issuer", "ClusterIssuer")),
            "duration": Option(OptionKind.SECONDS, 86400, "the life of a certificate, an hour or more"),
            "dns": Option(
                OptionKind.SWITCH, False, "whether a certificate has the DNS name of the service too"
            ),
        },
        "envoy": {
            **_with(),
            "authorizer": _AUTHORIZER,
            "certificates": Option(
                OptionKind.PATH, "/etc/everyhop/svid", "svid.pem, key.pem, bundle.pem of the service"
            ),
            "authorizer_identity": Option(
                OptionKind.NAME, "", "the service whose SVID an authorizer at HOST:PORT shows"
            ),
            "directory": Option(
                OptionKind.PATH, "/etc/everyhop/envoy", "where the directories of the services are put"
            ),
            "listen": Option(OptionKind.TEXT, "0.0.0.0", "the address of the listener"),  # noqa: S104  # mTLS is demanded there
            "listen_port": Option(OptionKind.NUMBER, 15443, "its port"),
        },
        "nginx": {
            **_with(),
            "authorizer": _AUTHORIZER,
            "certificates": Option(
                OptionKind.PATH, "/etc/everyhop/svid", "svid.pem, key.pem, bundle.pem of the service"
            ),
            "listen_port": Option(OptionKind.NUMBER, 15443, "the port of the listener"),
        },
        "haproxy": {
            **_with(),
            "authorizer": _AUTHORIZER,
            "certificates": Option(
                OptionKind.PATH, "/etc/everyhop/svid", "svid.pem, key.pem, bundle.pem of the service"
            ),
            "directory": Option(
                OptionKind.PATH, "/etc/everyhop/haproxy", "where the directories of the services are put"
            ),
            "listen_port": Option(OptionKind.NUMBER, 15443, "the port of the listener"),
        },
        "opa": {
            **_with(),
            "package": Option(OptionKind.TEXT, "everyhop.authz", "the package of the rules"),
        },
        "aws": {
            **_with(),
            "application_domain": Option(OptionKind.DOMAIN, "", "the domain that users open"),
            "trust_provider": Option(
                OptionKind.NAME, "everyhop", "policy_reference_name of the user trust provider"
            ),
        },
        "compose": {
            "image": Option(OptionKind.TEXT, "everyhop:latest", "the image with everyhop and its Envoy"),
            "state": Option(OptionKind.TEXT, "everyhop-state", "the volume of the state directory"),
        },
        "systemd": {
            "state": Option(OptionKind.PATH, "/var/lib/everyhop", "the state directory"),
            "executable": Option(OptionKind.PATH, "/usr/local/bin/everyhop", "the command"),
        },
    }
)
"""The targets, by name, and what each may be told."""

ELSEWHERE: Final = ("sdk", "authorizer")
"""What stands on a hop without being compiled to: the SDK in the application, and everyhop's authorizer beside a proxy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where one service stands.

    ``namespace``, ``service_account`` and ``labels`` are its pods' (no other service has the same account, or a subset of the
    labels in the same namespace), ``port`` the port its containers listen on.  ``host`` is ``HOST:PORT`` of the application for
    targets outside of a cluster.  ``timeout`` is in seconds; ``retries`` counts further attempts.
    """

    namespace: str
    service_account: str
    labels: Mapping[str, str]
    port: int
    host: str | None = None
    image: str | None = None
    timeout: int | None = None
    retries: int | None = None
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The workload through which callers from outside come: a caller that the policy names ``outside``."""

    namespace: str
    service_account: str
    labels: Mapping[str, str]
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIssuer:
    """Who issues access tokens, as verifiers outside of everyhop know it."""

    issuer: str
    jwks_uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """A host outside that services may call by TLS on a port, by its name here."""

    name: str
    host: str
    port: int
    callers: tuple[str, ...]
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSettings:
    """The chapter ``targets``.

    ``trust_domain`` is the mesh's (None: the policy's).  ``placements`` holds what is written of services; ask :meth:`place`.
    ``probe_networks``: networks (CIDR) from which probes come without an identity.  ``options``: what is written, by target.
    """

    trust_domain: str | None = None
    cluster_domain: str = DEFAULT_CLUSTER_DOMAIN
    namespace: str = DEFAULT_NAMESPACE
    placements: Mapping[str, Placement] = field(default_factory=lambda: MappingProxyType({}))
    gateway: Gateway | None = None
    tokens: TokenIssuer | None = None
    probe_networks: tuple[str, ...] = ()
    egress: tuple[Egress, ...] = ()
    options: Mapping[str, Mapping[str, OptionValue]] = field(default_factory=lambda: MappingProxyType({}))
    span: Span | None = field(default=None, compare=False)

    def place(self, service: str) -> Placement:
        """Return where a service stands; without a word of it in its default place."""
        found = self.placements.get(service)
        return found if found is not None else default_placement(service, self.namespace)

    def option(self, target: str, name: str) -> Any:
        """Return an option's value or its default; its type is the one of its kind (KeyError where there is none)."""
        return self.options.get(target, {}).get(name, OPTIONS[target][name].default)


DEFAULTS: Final = TargetSettings()


def default_placement(service: str, namespace: str) -> Placement:
    """Return the place of a service of which nothing is written."""
    return Placement(
        namespace=namespace,
        service_account=service,
        labels=MappingProxyType({APP_LABEL: service}),
        port=DEFAULT_PORT,
    )


def targets_entry(settings: TargetSettings) -> dict[str, Any]:
    """Return the chapter in its canonical form: what differs from the defaults, as the language writes it."""
    entry: dict[str, Any] = {}
    if settings.trust_domain is not None:
        entry["trust_domain"] = settings.trust_domain
    if settings.cluster_domain != DEFAULT_CLUSTER_DOMAIN:
        entry["cluster_domain"] = settings.cluster_domain
    if settings.namespace != DEFAULT_NAMESPACE:
        entry["namespace"] = settings.namespace
    services = {
        name: _placement(place, default_placement(name, settings.namespace))
        for name, place in sorted(settings.placements.items())
    }
    parts: dict[str, Any] = {
        "services": {name: part for name, part in services.items() if part},
        "probe_networks": list(settings.probe_networks),
        "egress": {one.name: _egress(one) for one in settings.egress},
        **{target: _options(target, options) for target, options in sorted(settings.options.items())},
    }
    if settings.gateway is not None:
        parts["gateway"] = _gateway(settings.gateway)
    if settings.tokens is not None:
        parts["tokens"] = {"issuer": settings.tokens.issuer, "jwks_uri": settings.tokens.jwks_uri}
    return entry | {key: part for key, part in parts.items() if part}


def _placement(place: Placement, default: Placement) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    for key in ("namespace", "service_account", "port", "host", "image", "retries"):
        value = getattr(place, key)
        if value != getattr(default, key):
            entry[key] = value
    if dict(place.labels) != dict(default.labels):
        entry["labels"] = dict(sorted(place.labels.items()))
    if place.timeout is not None:
        entry["timeout"] = f"{place.timeout}s"
    return entry


def _gateway(gateway: Gateway) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "namespace": gateway.namespace,
        "service_account": gateway.service_account,
        "labels": dict(sorted(gateway.labels.items())),
    }
    return entry | ({"hosts": list(gateway.hosts)} if gateway.hosts else {})


def _egress(egress: Egress) -> dict[str, Any]:
    return {"host": egress.host, "port": egress.port, "from": list(egress.callers)}


def _options(target: str, options: Mapping[str, OptionValue]) -> dict[str, Any]:
    return {name: _option(OPTIONS[target][name], value) for name, value in sorted(options.items())}


def _option(option: Option, value: OptionValue) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value}s" if option.kind is OptionKind.SECONDS else value
