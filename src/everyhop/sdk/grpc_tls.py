# SPDX-License-Identifier: Apache-2.0
"""gRPC's own TLS: server credentials that follow the rotation, and the peer of a call.

gRPC's C core does its handshakes itself, so the peer is established on each call, from the chain that it shows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

from everyhop.core.errors import EveryhopError, TrustError
from everyhop.sdk.model import Peer
from everyhop.spiffe.x509_svid import validate_x509_svid
from everyhop.x509.certificates import certificates_from_pem, certificates_to_pem
from everyhop.x509.thumbprint import x5t_s256

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from everyhop.sdk.sources import X509Source


def grpc_server_credentials(source: X509Source) -> Any:
    """Return credentials for ``add_secure_port``: a client certificate demanded, rotation by itself.

    Works for ``grpc`` and ``grpc.aio`` servers.  Whoever has a certificate of the trust domain may connect: check
    each call's :func:`grpc_peer` (the interceptors of ``everyhop.integrations`` do).
    """
    grpc = import_module("grpc")  # published without types

    def configuration() -> Any:
        identity = source.svid
        return grpc.ssl_server_certificate_configuration(
            [(identity.key_pem.reveal(), identity.chain_pem)],
            root_certificates=certificates_to_pem(identity.bundle.x509_authorities),
        )

    def fetch() -> Any:
        try:
            return configuration()
        except EveryhopError:
            return None  # gRPC goes on with what it has; the check of each call refuses after a withdrawal

    return grpc.dynamic_ssl_server_credentials(configuration(), fetch, require_client_authentication=True)


def grpc_peer(
    auth_context: Mapping[str, Iterable[bytes]], source: X509Source, *, now: datetime | None = None
) -> Peer | None:
    """Return the verified peer of a call from ``context.auth_context()``; None without a client certificate.

    The chain is verified here against the bundle of this moment.  Raises TrustError or InputError when it does not
    hold, AccessDenied or Unavailable when this process has no identity (any more).
    """
    pem = _one(auth_context, "x509_pem_cert")
    if pem is None:
        return None
    chain = certificates_from_pem(_one(auth_context, "x509_pem_cert_chain") or pem)
    leaf = certificates_from_pem(pem)
    if len(leaf) != 1 or chain[:1] != leaf:
        raise TrustError("gRPC shows a chain that does not begin with the peer's certificate")
    bundle = source.bundle
    roots = set(bundle.x509_authorities)
    svid = validate_x509_svid([der for der in chain if der not in roots], bundle, now or datetime.now(UTC))
    return Peer(spiffe_id=str(svid.spiffe_id), x5t=x5t_s256(leaf[0]))


def _one(auth_context: Mapping[str, Iterable[bytes]], name: str) -> bytes | None:
    values = list(auth_context.get(name, ()))
    return values[0] if len(values) == 1 else None
