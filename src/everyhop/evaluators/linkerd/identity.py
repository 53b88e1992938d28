# SPDX-License-Identifier: Apache-2.0
"""Names of clients in Linkerd's certificates.

A pod of the mesh has a DNS name, ``SA.NS.serviceaccount.identity.CONTROL-PLANE.TRUST-DOMAIN``; other SPIFFE IDs are URI names, which
suffixes never match (linkerd/app/inbound/src/policy.rs, ``is_tls_authorized``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from everyhop.core.errors import InputError

_MESH_FORM: Final = re.compile(r"spiffe://([a-z0-9._-]+)/ns/([^/]+)/sa/([^/]+)")
_SPIFFE: Final = re.compile(r"spiffe://[a-z0-9._-]+(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)*")
_DNS: Final = re.compile(r"(?:\*|[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """What identities are made of: where the control plane runs, and the mesh's trust domain."""

    control_plane_namespace: str = "linkerd"
    trust_domain: str = "cluster.local"

    def account(self, namespace: str, name: str) -> str:
        """Return the name of a service account."""
        return (
            f"{name}.{namespace}.serviceaccount.identity.{self.control_plane_namespace}.{self.trust_domain}"
        )

    def client(self, peer: str | None) -> Client | None:
        """Return the client of a SPIFFE ID in the mesh's form or another, None for plaintext.

        An identity of a foreign trust domain has its name there: meshes may share their trust anchors, so it is a client too.
        """
        return None if peer is None else _client(peer, self.control_plane_namespace)


@lru_cache(maxsize=65536)
def _client(peer: str, namespace: str) -> Client:
    found = _MESH_FORM.fullmatch(peer)
    if found is None:
        return Client(peer, is_dns=False)
    return Client(f"{found[3]}.{found[2]}.serviceaccount.identity.{namespace}.{found[1]}", is_dns=True)


@dataclass(frozen=True, slots=True)
class Client:
    """The authenticated name of a client."""

    name: str
    is_dns: bool


@dataclass(frozen=True, slots=True)
class Identities:
    """Names, whole or by how they end."""

    exact: frozenset[str]
    suffixes: tuple[str, ...]

    def __contains__(self, client: Client) -> bool:
        """Tell whether a client is one of them."""
        return client.name in self.exact or (
            client.is_dns and any(client.name.endswith(one) for one in self.suffixes)
        )


ANYBODY: Final = Identities(frozenset(), ("",))


def read_identities(names: tuple[str, ...], where: str) -> Identities:
    """Read identities: ``*`` is every name, ``*.x`` one that ends so; raises InputError for what the webhook rejects."""
    for one in names:
        if not (_SPIFFE if one.startswith("spiffe://") else _DNS).fullmatch(one):
            raise InputError(f"{where}: {one[:80]!r} is neither a SPIFFE ID nor a name, whole or after *.")
    suffixes = tuple(one[1:] for one in names if one == "*" or one.startswith("*."))
    return Identities(frozenset(one for one in names if not one.startswith("*")), suffixes)
