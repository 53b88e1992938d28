# SPDX-License-Identifier: Apache-2.0
"""Who may come: authorizations, and the objects they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from everyhop.core.errors import InputError
from everyhop.evaluators.fields import Fields, spec_of
from everyhop.evaluators.labels import ALL, Selector, read_selector
from everyhop.evaluators.linkerd.identity import ANYBODY, Client, Identities, Mesh, read_identities
from everyhop.evaluators.networks import Network, read_network, read_networks

if TYPE_CHECKING:
    from everyhop.manifests.model import Manifest, Manifests

GROUP: Final = "policy.linkerd.io"
GATEWAY: Final = "gateway.networking.k8s.io"
CORE: Final = "core"
EVERYWHERE: Final = read_networks(("0.0.0.0/0", "::/0"), "")
LOOPBACK: Final = read_networks(("127.0.0.1/32", "::1/128"), "")


class Ref(NamedTuple):
    """What a reference points at; the group of the core is "core", kinds and groups are in lower case."""

    group: str
    kind: str
    name: str
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Authorization:
    """One way in: a network and an authentication have to fit.

    ``identities`` None: nobody is asked for a certificate, unless ``needs_tls`` asks for one of anybody's.
    """

    name: str
    networks: tuple[Network, ...] = EVERYWHERE
    identities: Identities | None = None
    needs_tls: bool = False

    def admits(self, client: Client | None, address: str) -> bool:
        """Tell whether a client from an address comes in by it."""
        if not any(address in one for one in self.networks):
            return False
        if self.identities is not None:
            return client is not None and client in self.identities
        return client is not None or not self.needs_tls


LOCALHOST: Final = Authorization("localhost", LOOPBACK)
"""What every proxy admits: the pod itself."""

DEFAULTS: Final = (
    "all-authenticated",
    "all-unauthenticated",
    "audit",
    "cluster-authenticated",
    "cluster-unauthenticated",
    "deny",
)


def default_authorizations(mode: str, cluster: tuple[Network, ...]) -> tuple[Authorization, ...]:
    """Return what a default policy or a server's ``accessPolicy`` admits; ``audit`` only writes down what it admits."""
    if mode == "deny":
        return ()
    networks = cluster if mode.startswith("cluster-") else EVERYWHERE
    needs_identity = mode.endswith("-authenticated")
    return (Authorization(mode, networks, ANYBODY if needs_identity else None),)


def check_mode(mode: str, where: str) -> str:
    """Return a default policy; raises InputError for what is none."""
    if mode not in DEFAULTS:
        raise InputError(f"{where}: {mode[:60]!r} is none of {', '.join(DEFAULTS)}")
    return mode


@dataclass(frozen=True, slots=True)
class LegacyPolicy:
    """A ServerAuthorization: the servers it is for, by name or labels, and whom it admits."""

    name: str
    namespace: str
    server: str | None
    selector: Selector
    authorization: Authorization


class Clients:
    """Every authorization of the manifests."""

    def __init__(self, manifests: Manifests, mesh: Mesh, cluster: tuple[Network, ...]) -> None:
        self._mesh = mesh
        self._cluster = cluster
        self._meshtls = {
            (one.namespace, one.name): self._meshtls_of(one)
            for one in manifests.of("MeshTLSAuthentication", GROUP)
        }
        self._network = {
            (one.namespace, one.name): _networks_of(one)
            for one in manifests.of("NetworkAuthentication", GROUP)
        }
        self._policies: dict[tuple[str, Ref], list[Authorization]] = {}
        for one in manifests.of("AuthorizationPolicy", GROUP):
            self._add(one)
        self.legacy = tuple(
            legacy
            for one in manifests.of("ServerAuthorization", GROUP)
            if (legacy := self._legacy(one)) is not None
        )

    def of(self, namespace: str, target: Ref) -> tuple[Authorization, ...]:
        """Return whom the policies of a namespace admit to a target; names of routes are compared without case."""
        return tuple(self._policies.get((namespace, _comparable(target)), ()))

    def _meshtls_of(self, manifest: Manifest) -> Identities:
        check_version(manifest, "v1alpha1")
        with spec_of(manifest) as spec:
            names = spec.texts("identities")
            refs = spec.each("identityRefs", read_ref)
        if (names is None) == (refs is None) or not (names or refs):
            raise InputError(f"{spec.where}: one of identities and identityRefs, and not empty")
        return read_identities(
            (*(names or ()), *(self._of_ref(one, manifest, spec.where) for one in refs or ())), spec.where
        )

    def _of_ref(self, ref: Ref, manifest: Manifest, where: str) -> str:
        if (ref.group, ref.kind) == (CORE, "serviceaccount") and ref.name:
            return self._mesh.account(ref.namespace or manifest.namespace, ref.name)
        if (ref.group, ref.kind) == (CORE, "namespace") and ref.namespace is None and ref.name:
            return self._mesh.account(ref.name, "*")
        raise InputError(f"{where}: an identity is a ServiceAccount or a Namespace, by name")

    def _add(self, manifest: Manifest) -> None:
        check_version(manifest, "v1alpha1")
        with spec_of(manifest) as spec:
            target = self._target(spec, manifest)
            refs = spec.each("requiredAuthenticationRefs", read_ref)
        if refs is None:
            raise InputError(f"{spec.where}: requiredAuthenticationRefs is missing")
        identities, networks = self._required(refs, manifest, spec.where)
        if identities == () or networks == ():
            return  # a reference that leads nowhere: the controller ignores the policy, which is closed
        # No reference at all is everybody, from everywhere, without a certificate.
        authorization = Authorization(
            str(manifest),
            EVERYWHERE if networks is None else networks,
            None if identities is None else identities[0],
        )
        self._policies.setdefault((manifest.namespace, _comparable(target)), []).append(authorization)

    def _target(self, spec: Fields, manifest: Manifest) -> Ref:
        inner = spec.inner("targetRef")
        if inner is None:
            raise InputError(f"{spec.where}: targetRef is missing")
        with inner:
            ref = read_ref(inner)
        if ref.namespace is not None:
            raise InputError(f"{inner.where}: a target is in the policy's own namespace")
        kinds = {
            (GROUP, "server"), (CORE, "namespace"), (GROUP, "httproute"), (GATEWAY, "httproute"), (GATEWAY, "grpcroute"),
        }  # fmt: skip
        if (ref.group, ref.kind) not in kinds or not ref.name:
            raise InputError(f"{inner.where}: {ref.kind} of {ref.group} is no target")
        if ref.kind == "namespace" and ref.name != manifest.namespace:
            raise InputError(f"{inner.where}: cannot target another namespace")
        return ref

    def _required(
        self, refs: tuple[Ref, ...], manifest: Manifest, where: str
    ) -> tuple[tuple[Identities, ...] | None, tuple[Network, ...] | None]:
        """Return the identities and networks that are asked for: None for none, () where one of them does not exist."""
        identities: tuple[Identities, ...] | None = None
        networks: tuple[Network, ...] | None = None
        for ref in refs:
            key = (ref.namespace or manifest.namespace, ref.name)
            kind = (ref.group, ref.kind)
            if kind in {(GROUP, "meshtlsauthentication"), (CORE, "serviceaccount")}:
                if identities is not None:
                    raise InputError(f"{where}: one MeshTLSAuthentication or ServiceAccount at most")
                if kind[0] == CORE:
                    identities = (Identities(frozenset({self._mesh.account(*key)}), ()),)
                else:
                    found = self._meshtls.get(key)
                    identities = () if found is None else (found,)
            elif kind == (GROUP, "networkauthentication"):
                if networks is not None:
                    raise InputError(f"{where}: one NetworkAuthentication at most")
                networks = self._network.get(key, ())
            else:
                raise InputError(f"{where}: {ref.kind} of {ref.group} is no authentication")
        return identities, networks

    def _legacy(self, manifest: Manifest) -> LegacyPolicy | None:
        check_version(manifest, "v1beta1", "v1alpha1")
        with spec_of(manifest) as spec:
            server, client = spec.inner("server"), spec.inner("client")
            if server is None or client is None:
                raise InputError(f"{spec.where}: server and client have to be there")
            with server:
                name, selector = server.text("name"), server.take("selector")
            if (name is None) == (selector is None):
                raise InputError(f"{server.where}: one of name and selector has to be there")
            with client:
                authorization = self._legacy_client(client, manifest)
        chosen = ALL if selector is None else read_selector(selector, f"{server.where}.selector")
        if authorization is None:
            return None
        return LegacyPolicy(str(manifest), manifest.namespace, name, chosen, authorization)

    def _legacy_client(self, client: Fields, manifest: Manifest) -> Authorization | None:
        # Without networks the cluster's are meant here, unlike in an AuthorizationPolicy.
        networks = client.each("networks", read_net) or self._cluster
        is_open = client.truth("unauthenticated") or False
        mesh = client.inner("meshTLS")
        if mesh is None:
            return Authorization(str(manifest), networks) if is_open else None
        with mesh:
            any_tls = mesh.truth("unauthenticatedTLS") or False
            names = mesh.texts("identities") or ()
            accounts = mesh.each("serviceAccounts", _account) or ()
        if is_open or (any_tls and (names or accounts)):
            raise InputError(f"{mesh.where}: what asks for nothing stands alone")
        if any_tls:
            return Authorization(str(manifest), networks, needs_tls=True)
        names += tuple(self._mesh.account(one[0] or manifest.namespace, one[1]) for one in accounts)
        if not names:
            return None
        return Authorization(str(manifest), networks, read_identities(names, mesh.where))


def _comparable(ref: Ref) -> Ref:
    return ref if ref.kind == "server" else ref._replace(name=ref.name.lower())


def check_version(manifest: Manifest, *versions: str) -> None:
    """Raise InputError for an object of another version than those that are read."""
    version = manifest.api_version.rpartition("/")[2]
    if version not in versions:
        raise InputError(
            f"{manifest.span}: {manifest} is of {manifest.api_version}, and {versions[0]} is read"
        )


def read_ref(fields: Fields) -> Ref:
    """Read a reference; an empty group is the core."""
    group, kind = fields.text("group") or CORE, fields.needed_text("kind")
    return Ref(group.lower(), kind.lower(), fields.text("name") or "", fields.text("namespace"))


def _networks_of(manifest: Manifest) -> tuple[Network, ...]:
    check_version(manifest, "v1alpha1")
    with spec_of(manifest) as spec:
        networks = spec.each("networks", read_net)
    if not networks:
        raise InputError(f"{spec.where}: at least one network")
    return networks


def read_net(fields: Fields) -> Network:
    """Read a network with its exceptions; an address alone is a network of one."""
    excepted = tuple(_block(one) for one in fields.texts("except") or ())
    return read_network(_block(fields.needed_text("cidr")), excepted, fields.where)


def _block(text: str) -> str:
    return text if "/" in text else f"{text}/{128 if ':' in text else 32}"


def _account(fields: Fields) -> tuple[str | None, str]:
    return fields.text("namespace"), fields.needed_text("name")
