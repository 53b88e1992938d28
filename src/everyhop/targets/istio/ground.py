# SPDX-License-Identifier: Apache-2.0
"""What both modes of Istio stand on: who is which principal, where objects may stand, who issues tokens."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

from everyhop.policy.model import OUTSIDE
from everyhop.targets.model import Feature, Fidelity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from everyhop.targets.intents import Door, ServiceIntents
    from everyhop.targets.model import Diagnostic
    from everyhop.targets.view import View

_SCHEME: Final = "spiffe://"


class Ground:
    """The settings of a mesh, with what is wrong with them for a policy."""

    def __init__(self, view: View) -> None:
        self.view: Final = view
        self.root_namespace: Final[str] = view.option("root_namespace")
        self.authorizer: Final[str] = view.option("authorizer")
        self._aliases: Final[tuple[str, ...]] = view.option("trust_domain_aliases")
        self._principals: dict[str, tuple[str, ...]] = {}

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Return the namespaces in which objects are written: never the root one, where a selector means the whole mesh."""
        return tuple(name for name in self.view.intents.namespaces if name != self.root_namespace)

    def services(self, namespace: str) -> tuple[ServiceIntents, ...]:
        """Return the services of a namespace that exist, canaries left out."""
        return self._by_namespace.get(namespace, ())

    @cached_property
    def _by_namespace(self) -> Mapping[str, tuple[ServiceIntents, ...]]:
        found: dict[str, list[ServiceIntents]] = {}
        for service in self.view.intents:
            if not service.service.is_canary:
                found.setdefault(service.place.namespace, []).append(service)
        return {namespace: tuple(services) for namespace, services in found.items()}

    def principals(self, caller: str) -> tuple[str, ...]:
        """Return the principals of a caller, the mesh's trust domain before its aliases; empty for one without identity."""
        found = self._principals.get(caller)
        if found is None:
            found = self._principals[caller] = self._principals_of(caller)
        return found

    def _principals_of(self, caller: str) -> tuple[str, ...]:
        if caller == OUTSIDE and self.view.intents.settings.gateway is None:
            return ()
        domain, _, path = self.view.intents.mesh_identity(caller).removeprefix(_SCHEME).partition("/")
        return tuple(f"{name}/{path}" for name in dict.fromkeys((domain, *self._aliases)))

    def needs_token(self, door: Door) -> bool:
        """Tell whether an access token is demanded at a door, and this target is the one that verifies it."""
        is_ours = self.view.fidelity(Feature.TOKEN).fidelity is not Fidelity.REFUSED
        return is_ours and Feature.TOKEN in door.features

    def diagnostics(self) -> Iterator[Diagnostic]:
        """Yield what is wrong with the settings, once for each."""
        yield from self._of_namespaces()
        opened = [
            (door, grant.caller)
            for service in self.view.intents
            for door in service.doors
            for grant in self.view.grants(door)
        ]
        outside = [str(door) for door, caller in opened if caller == OUTSIDE]
        if outside:
            yield from self._of_gateway(outside)
        if self.view.intents.settings.tokens is None and any(self.needs_token(door) for door, _ in opened):
            message = f"{self.view.target} verifies access tokens itself and is not told who issues them"
            yield self.view.error("tokens", message, suggestion="targets: tokens: {issuer: …, jwks_uri: …}")

    def _of_namespaces(self) -> Iterator[Diagnostic]:
        if self.root_namespace in self.view.intents.namespaces:
            message = (
                f"services stand in the root namespace {self.root_namespace!r}, where a policy selects pods of every "
                "namespace; nothing is written for it"
            )
            yield self.view.error("root-namespace", message, suggestion="give them a namespace of their own")
        gateway = self.view.intents.settings.gateway
        if gateway is not None and gateway.namespace in self.namespaces:
            message = (
                f"the gateway stands in {gateway.namespace!r}, where everything is denied by default; "
                "nothing gets in through it without an ALLOW policy of its own"
            )
            yield self.view.warning("gateway-closed", message, suggestion="give it a namespace of its own")

    def _of_gateway(self, doors: list[str]) -> Iterator[Diagnostic]:
        where = doors[0] if len(doors) == 1 else f"{doors[0]} and {len(doors) - 1} more"
        if self.view.intents.settings.gateway is None:
            message = f"{where} is open to callers from outside, and no gateway is named that carries them"
            yield self.view.error(
                "gateway", message, suggestion="targets: gateway: {namespace: …, service_account: …}"
            )

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Return what the mesh's configuration has to be for the files to mean what the policy says."""
        aliases = ", ".join(self._aliases) or "none"
        lines = [
            f"Relies on meshConfig: trustDomain {self.view.intents.trust_domain}, trustDomainAliases {aliases} and no others,",
            f"rootNamespace {self.root_namespace}, pathNormalization BASE or stronger (never NONE).",
        ]
        if self.authorizer:
            lines.append(
                f"Extension provider {self.authorizer}: envoyExtAuthzGrpc of everyhop's authorizer, failOpen false."
            )
        if self.view.accepted:
            lines.append("Accepted to be held by nobody: " + ", ".join(sorted(self.view.accepted)) + ".")
        return tuple(lines)
