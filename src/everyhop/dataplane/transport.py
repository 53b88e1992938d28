# SPDX-License-Identifier: Apache-2.0
"""Mutual TLS between sidecars: TLS 1.3 only, keys and bundle from the agent over SDS, no resumption.

Resumption is off because a resumed session would skip the check of a certificate that has expired, or of an
authority that was withdrawn, since the full handshake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everyhop.dataplane import _names as names
from everyhop.dataplane._resources import Json, extension

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from everyhop.dataplane.model import CertificateFiles

_SOCKET: Final = "envoy.transport_sockets.tls"
TLS: Final = "envoy.extensions.transport_sockets.tls.v3."
# Envoy's upstream contexts default to at most 1.2, so both ends are named.
_ONLY_1_3: Final = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
_RETRY: Final = {"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}}


def agent_service() -> Json:
    """Return the agent as a gRPC service, reconnected to within a second."""
    return {"envoy_grpc": {"cluster_name": names.SDS_CLUSTER, "retry_policy": _RETRY}}


def secret(name: str) -> Json:
    """Return a reference to a secret that the agent serves; nothing starts before it has arrived."""
    source = {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [agent_service()],
    }
    config = {"resource_api_version": "V3", "initial_fetch_timeout": "0s", "api_config_source": source}
    return {"name": name, "sds_config": config}


def downstream(alpn: Sequence[str], *, asks: bool, **secrets: Json | list[Json]) -> Json:
    """Return the transport socket of a listener; ``asks``: for a client certificate, which ``secrets`` say how to check."""
    return extension(
        _SOCKET,
        TLS + "DownstreamTlsContext",
        **({"require_client_certificate": True} if asks else {}),
        disable_stateless_session_resumption=True,
        disable_stateful_session_resumption=True,
        common_tls_context=_common(alpn, secrets),
    )


def upstream(alpn: Sequence[str], **secrets: Json | list[Json]) -> Json:
    """Return the transport socket towards a server, with what is shown to it and what it is checked by."""
    return extension(
        _SOCKET, TLS + "UpstreamTlsContext", max_session_keys=0, common_tls_context=_common(alpn, secrets)
    )


def _common(alpn: Sequence[str], secrets: Mapping[str, Json | list[Json]]) -> Json:
    return {"tls_params": _ONLY_1_3, **({"alpn_protocols": list(alpn)} if alpn else {}), **secrets}


def named(matchers: Sequence[Json], bundle: Json) -> Json:
    """Return how a peer is checked: by the authorities of a secret, and by its URI, which one of the matchers meets.

    Envoy reads an empty list as everybody, so it is refused (ValueError).
    """
    if not matchers:
        raise ValueError("a list without matchers lets everybody in")
    return {
        "default_validation_context": {"match_typed_subject_alt_names": list(matchers)},
        "validation_context_sds_secret_config": bundle,
    }


def exactly(spiffe_id: str) -> Json:
    """Return what matches one SPIFFE ID."""
    return {"san_type": "URI", "matcher": {"exact": spiffe_id}}


def server_tls(alpn: Sequence[str]) -> Json:
    """Return the transport socket of an ingress: every caller shows an X509-SVID of the trust domain."""
    return downstream(
        alpn,
        asks=True,
        tls_certificate_sds_secret_configs=[secret(names.SDS_SVID)],
        validation_context_sds_secret_config=secret(names.SDS_BUNDLE),
    )


def public_tls(files: CertificateFiles | None) -> Json:
    """Return the transport socket of an edge, whose clients have no certificate: ours, or the one in ``files``."""
    alpn = ("h2", "http/1.1")
    if files is None:
        return downstream(alpn, asks=False, tls_certificate_sds_secret_configs=[secret(names.SDS_SVID)])
    pair = {
        "certificate_chain": {"filename": str(files.certificate)},
        "private_key": {"filename": str(files.key)},
    }
    return downstream(alpn, asks=False, tls_certificates=[pair])


def client_tls(spiffe_id: str, alpn: Sequence[str], *, svid: str = names.SDS_SVID) -> Json:
    """Return the transport socket towards one service: nobody but exactly ``spiffe_id`` is talked to.

    ``svid`` is the secret whose certificate is shown.
    """
    return upstream(
        alpn,
        tls_certificate_sds_secret_configs=[secret(svid)],
        combined_validation_context=named([exactly(spiffe_id)], secret(names.SDS_BUNDLE)),
    )
