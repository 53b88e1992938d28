# SPDX-License-Identifier: Apache-2.0
"""A workload with a sidecar, or a gateway: PeerAuthentication, then RequestAuthentication, then CUSTOM, DENY and ALLOW."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from everyhop.core.errors import InputError
from everyhop.evaluators.envoy_paths import Normalization, normalized
from everyhop.evaluators.istio.attachment import GATEWAY_LABEL, Attached
from everyhop.evaluators.istio.decision import decide
from everyhop.evaluators.istio.egress import Leaving
from everyhop.evaluators.istio.facts import facts_of
from everyhop.evaluators.istio.peers import Mode, Scopes, peer_policy_of, scopes
from everyhop.evaluators.istio.rules import policy_of
from everyhop.evaluators.istio.tokens import authentication_of
from everyhop.evaluators.model import Outcome, Wire

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from everyhop.evaluators.istio.facts import Facts
    from everyhop.evaluators.istio.rules import Policy
    from everyhop.evaluators.istio.tokens import JwtRule
    from everyhop.evaluators.model import Request, Workload
    from everyhop.manifests import Manifests

GROUP: Final = "security.istio.io"
VERSIONS: Final = ("v1", "v1beta1")
_NO_URIS: Final[Mapping[str, str]] = MappingProxyType({})
_NOTHING: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})


class Istio:
    """Istio's proxies under given manifests.

    ``trust_domain`` and ``aliases`` are the mesh's.  ``normalization`` is its path normalisation.  ``providers`` are the names of
    its extension providers that answer well, None for any: with another CUSTOM denies.  ``refuses_foreign``: proxies demand a
    client certificate of the mesh's own trust domains, which is Istio's default; here it is off, as a federated mesh has it, so
    that rules which do not look at the trust domain are seen.  ``filter_metadata`` is what other filters have stored, by filter and
    key; without it a rule that looks there raises InputError.

    ``jwks_uris`` says where the real keys of issuers are: a rule that takes them elsewhere believes what others sign, and not them.
    ``registry_only`` is the mesh's ``outboundTrafficPolicy``, for calls that leave (:attr:`Request.dns_name` and a target that is in no
    namespace).

    Raises InputError, with file and line, for manifests that Istio would reject or that say what is not known here.
    """

    def __init__(
        self,
        manifests: Manifests,
        *,
        trust_domain: str,
        aliases: Sequence[str] = (),
        root_namespace: str = "istio-system",
        normalization: Normalization = Normalization.BASE,
        providers: Collection[str] | None = None,
        refuses_foreign: bool = False,
        filter_metadata: Mapping[str, Mapping[str, Any]] | None = None,
        jwks_uris: Mapping[str, str] = _NO_URIS,
        registry_only: bool = False,
    ) -> None:
        self.root_namespace: Final = root_namespace
        self.trust_domains: Final = (trust_domain, *aliases)
        self.normalization: Final = normalization
        self.providers: Final = providers
        self.refuses_foreign: Final = refuses_foreign
        self.filter_metadata: Final = _NOTHING if filter_metadata is None else filter_metadata
        for one in manifests:
            if one.group == GROUP and one.api_version.rpartition("/")[2] not in VERSIONS:
                raise InputError(f"{one.span}: {one}: Istio has no {one.api_version}")
        self.policies: Final = tuple(
            policy_of(one, self.trust_domains) for one in manifests.of("AuthorizationPolicy", GROUP)
        )
        self.authentications: Final = tuple(
            authentication_of(one, jwks_uris) for one in manifests.of("RequestAuthentication", GROUP)
        )
        self.peers: Final = tuple(peer_policy_of(one) for one in manifests.of("PeerAuthentication", GROUP))
        self._policies = Attached((one for one in self.policies if not one.is_dry_run), root_namespace)
        self._authentications = Attached(self.authentications, root_namespace)
        self._leaving = Leaving(manifests, root_namespace, is_closed=registry_only)
        self._peers: dict[tuple[str, tuple[tuple[str, str], ...]], Scopes] = {}
        if filter_metadata is None:
            for policy in self.policies:
                _refuse_metadata(policy)

    def evaluate(self, request: Request) -> Outcome:
        """Return what the proxy of ``request.target`` does: the sidecar, or the gateway that its labels tell it to be."""
        if request.dns_name is not None and not request.target.namespace:
            return self._leaving.evaluate(request)
        is_gateway = GATEWAY_LABEL in request.target.labels
        peer = request.peer
        if not is_gateway:
            mode = self.scopes(request.target).mode(request.port)
            if mode is Mode.STRICT and peer is None:
                return Outcome(allowed=False, why="plaintext where mTLS is STRICT")
            if mode is Mode.DISABLE:
                peer = None  # TLS is not spoken there, so nobody has an identity
        refusal = self.refusal_of_peer(peer)
        if refusal is not None:
            return refusal
        facts = self.facts(request, peer, trusts_forwarded=not is_gateway)
        if facts is None:
            return Outcome(allowed=False, why="400: the path is malformed")
        return decide(
            self.applicable(request),
            self.jwt_rules(request),
            request,
            facts,
            providers=self.providers,
        )

    def scopes(self, workload: Workload) -> Scopes:
        """Return the policies for peers that count for a workload."""
        key = (workload.namespace, tuple(sorted(workload.labels.items())))
        found = self._peers.get(key)
        if found is None:
            found = self._peers[key] = scopes(self.peers, workload, self.root_namespace)
        return found

    def applicable(self, request: Request) -> tuple[Policy, ...]:
        """Return the policies that attach to the proxy of the target, dry runs left out."""
        return self._policies.to_workload(request.target)

    def jwt_rules(self, request: Request) -> tuple[JwtRule, ...]:
        """Return the rules for tokens that attach to the proxy of the target."""
        return tuple(rule for one in self._authentications.to_workload(request.target) for rule in one.rules)

    def refusal_of_peer(self, peer: str | None) -> Outcome | None:
        """Return the refusal of a client certificate of a foreign trust domain, where proxies look at it."""
        if not self.refuses_foreign or peer is None:
            return None
        if any(peer.startswith(f"spiffe://{one}/") for one in self.trust_domains):
            return None
        return Outcome(allowed=False, why="the client certificate is of a foreign trust domain")

    def facts(self, request: Request, peer: str | None, *, trusts_forwarded: bool) -> Facts | None:
        """Return what the proxy knows of a request, None for one that Envoy answers with 400."""
        path = "" if request.wire is Wire.TCP else normalized(request.path, self.normalization)
        if path is None:
            return None
        return facts_of(
            request,
            path,
            peer=peer,
            trusts_forwarded=trusts_forwarded,
            metadata=self.filter_metadata,
        )


def _refuse_metadata(policy: Policy) -> None:
    for part in policy.parts:
        for condition in part.parts("when") or ():
            if condition.text("key").startswith("experimental."):
                raise condition.wrong("what other filters store is not known here")
