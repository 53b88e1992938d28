# SPDX-License-Identifier: Apache-2.0
"""Who a route or a Server is open to, as Linkerd knows workloads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from everyhop.policy.model import OUTSIDE
from everyhop.targets.objects import obj, object_name
from everyhop.targets.yaml import Document

if TYPE_CHECKING:
    from everyhop.targets.intents import Door, Grant
    from everyhop.targets.view import View

GROUP: Final = "policy.linkerd.io"
V1ALPHA1: Final = f"{GROUP}/v1alpha1"
V1BETA3: Final = f"{GROUP}/v1beta3"
PROBE_NETWORKS: Final = "probes"
"""The name of the NetworkAuthentication."""
_SHOWN: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """A set of callers by name (``outside`` is the gateway), and whether probes come from networks without an identity."""

    callers: tuple[str, ...]
    networks: bool = False

    def __bool__(self) -> bool:
        return bool(self.callers)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the words that tell this set from others in the names of objects."""
        return (*self.callers, *(["*"] if self.networks else []))


def clients_of(view: View, door: Door) -> tuple[Clients, tuple[Grant, ...]]:
    """Return who may pass a door, with the grants; callers from outside only where a gateway is named."""
    has_gateway = view.intents.settings.gateway is not None
    grants = tuple(grant for grant in view.grants(door) if has_gateway or grant.caller != OUTSIDE)
    callers = tuple(sorted(grant.caller for grant in grants))
    networks = door.is_probe and bool(grants) and bool(view.intents.settings.probe_networks)
    return Clients(callers=callers, networks=networks), grants


def identity(view: View, caller: str) -> str:
    """Return the name in the certificate that Linkerd gives a service's pods, or the gateway's for ``outside``.

    ``ACCOUNT.NAMESPACE.serviceaccount.identity.CONTROL-PLANE-NAMESPACE.TRUST-DOMAIN``; KeyError for ``outside`` without a gateway.
    """
    settings = view.intents.settings
    place = settings.gateway if caller == OUTSIDE else settings.place(caller)
    if place is None:
        raise KeyError(caller)
    plane = view.option("control_plane_namespace")
    return f"{place.service_account}.{place.namespace}.serviceaccount.identity.{plane}.{view.intents.trust_domain}"


def mesh_authentication(view: View, namespace: str, clients: Clients) -> Document:
    """Return the identities of a set of callers, which is not empty: an empty one would not even be ignored everywhere."""
    if not clients:
        raise ValueError("a MeshTLSAuthentication names somebody")
    identities = sorted(identity(view, caller) for caller in clients.callers)
    name = object_name("clients", *clients.callers)
    made = obj(view, V1ALPHA1, "MeshTLSAuthentication", name, namespace, {"identities": identities})
    return Document(made, (_who(clients),))


def network_authentication(view: View, namespace: str) -> Document:
    """Return the networks that probes come from."""
    networks = [{"cidr": cidr} for cidr in view.intents.settings.probe_networks]
    made = obj(view, V1ALPHA1, "NetworkAuthentication", PROBE_NETWORKS, namespace, {"networks": networks})
    return Document(made, ("targets: probe_networks; opens probes only",))


def authorizations(
    view: View, namespace: str, kind: str, target: str, clients: Clients, note: str
) -> list[Document]:
    """Return the policies which open one target, a ``HTTPRoute`` or a ``Server``, to a set of callers.

    Each demands one authentication by name: a policy that demands none is open to everybody from everywhere.
    """
    demanded = [("allow", "MeshTLSAuthentication", object_name("clients", *clients.callers))]
    if clients.networks:
        demanded.append(("probe", "NetworkAuthentication", PROBE_NETWORKS))
    return [
        Document(_policy(view, namespace, (kind, target), object_name(word, target), (authentication, name)), (note,))
        for word, authentication, name in demanded
    ]  # fmt: skip


def _policy(
    view: View, namespace: str, target: tuple[str, str], name: str, authentication: tuple[str, str]
) -> dict[str, Any]:
    spec = {
        "targetRef": {"group": GROUP, "kind": target[0], "name": target[1]},
        "requiredAuthenticationRefs": [
            {"group": GROUP, "kind": authentication[0], "name": authentication[1]}
        ],
    }
    return obj(view, V1ALPHA1, "AuthorizationPolicy", name, namespace, spec)


def _who(clients: Clients) -> str:
    shown, further = clients.callers[:_SHOWN], len(clients.callers) - _SHOWN
    return ", ".join(shown) + (f" and {further} more" if further > 0 else "")
